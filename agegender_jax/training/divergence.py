"""What a run does when its loss diverges: stop, skip the update, or warn."""

import math

import jax
import numpy as np

from agegender_jax import errors, schema
from agegender_jax.runtime import checkpoint

ON_NONFINITE = ('stop', 'skip')
# A loss that has grown so many times over the majority baseline's is a warning.
LARGE_LOSS = 1000


def check_finite(
  name: str, losses: list[float], last_step: int, checkpoints: checkpoint.Checkpoints
) -> None:
  """Raises errors.UserError at the first step whose loss is not finite.

  The losses are of consecutive steps up to `last_step`; `name` is what they are called.
  """
  for offset, loss in enumerate(losses):
    if not math.isfinite(loss):
      step = last_step - len(losses) + 1 + offset
      checkpoints.wait()
      latest = checkpoints.latest_step()
      kept = f'the checkpoint of step {latest} is' if latest else 'nothing is'
      raise errors.UserError(
        f'the {name} is {loss} at step {step}; {kept} kept; lower '
        'optimizer.learning_rate or set optimizer.clip_norm'
      )


def majority_loss(run_tasks, labels: dict[str, np.ndarray]) -> float:
  """Computes the loss of one guess for all, of up to a thousand examples.

  Args:
    run_tasks: the tasks.
    labels: of the training split, see schema.

  Returns:
    The weighted sum over the tasks; of each the better of the median with the
    variance, in years, and of even odds.
  """
  total = 0.0
  for task in run_tasks:
    known = np.flatnonzero(labels[task.label] != schema.UNKNOWN)
    known = known[:: -(-len(known) // 1000)]
    values = [labels[key][known] for key in task.labels]
    even = np.zeros((len(known), task.num_outputs), np.float32)
    guess = even + np.float32(np.log(np.var(values[0]) + 1e-6))
    guess[:, 0] = np.median(values[0])
    loss = jax.jit(task.loss)  # Compiled whole: op by op takes half a second.
    found = [float(loss(logits, *values).mean()) for logits in (even, guess)]
    total += task.weight * min(found)
  return total


class Watch:
  """Follows the losses of a run, and stops it or warns."""

  def __init__(
    self,
    baseline_loss: float,
    max_skipped: int,
    checkpoints: checkpoint.Checkpoints,
  ):
    """Begins; up to `max_skipped` updates in a row may be left out."""
    self._baseline, self._max_skipped = baseline_loss, max_skipped
    self._checkpoints = checkpoints
    self._skipped, self._is_warned = 0, False

  def check(self, reports: list[dict[str, np.ndarray]], step: int) -> None:
    """Checks the steps up to `step`.

    Args:
      reports: name -> float32 [steps, 2] each, see steps.create_train_steps.
      step: the last one.

    Raises:
      errors.UserError: a loss is not finite, or too many updates were skipped.
    """
    columns = {
      name: np.concatenate([report[name][:, 0] for report in reports])
      for name in ('loss', 'skipped')
      if name in reports[0]
    }
    check_finite('loss', columns['loss'].tolist(), step, self._checkpoints)
    self._warn_large(float(columns['loss'].max()), step)
    self._count_skipped(columns.get('skipped', ()), step)

  def _count_skipped(self, flags, step: int) -> None:
    """Counts the steps, 1 where the update was left out, that follow each other."""
    for offset, flag in enumerate(flags):
      self._skipped = self._skipped + 1 if flag else 0
      if self._skipped > self._max_skipped:
        raise errors.UserError(
          f'loss or gradients were not finite in {self._skipped} steps in a row, up to '
          f'step {step - len(flags) + 1 + offset}: lower optimizer.learning_rate or '
          'set optimizer.clip_norm'
        )

  def _warn_large(self, loss: float, step: int) -> None:
    """Prints a warning, once, if a loss is far above the majority baseline's."""
    if self._is_warned or not loss > LARGE_LOSS * self._baseline > 0:
      return
    self._is_warned = True
    print(
      f'warning: the loss is {loss:.3g} up to step {step}, {loss / self._baseline:.0f} '
      "times the majority baseline's: lower optimizer.learning_rate or set "
      'optimizer.clip_norm',
      flush=True,
    )
