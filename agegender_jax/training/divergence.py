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

  Args:
    name: what the losses are called.
    losses: of consecutive steps.
    last_step: the step of the last one.
    checkpoints: of the run.
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


def count_skipped(in_a_row: int, is_skipped, limit: int, last_step: int) -> int:
  """Counts the steps that were skipped one after the other.

  Args:
    in_a_row: those that end before the first of these steps.
    is_skipped: [steps], 1 where the update was left out.
    limit: how many are allowed.
    last_step: the step of the last one.

  Returns:
    Those that end with the last step.

  Raises:
    errors.UserError: there are more than `limit`.
  """
  for offset, flag in enumerate(is_skipped):
    in_a_row = in_a_row + 1 if flag else 0
    if in_a_row > limit:
      step = last_step - len(is_skipped) + 1 + offset
      raise errors.UserError(
        f'loss or gradients were not finite in {in_a_row} steps in a row, up to step '
        f'{step}: lower optimizer.learning_rate or set optimizer.clip_norm'
      )
  return in_a_row


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


def warn_large(loss: float, step: int, baseline: float) -> bool:
  """Prints a warning if a loss is far above the majority baseline's.

  Returns:
    True if it is.
  """
  is_large = loss > LARGE_LOSS * baseline > 0
  if is_large:
    print(
      f'warning: the loss is {loss:.3g} up to step {step}, {loss / baseline:.0f} times '
      f"the majority baseline's: lower optimizer.learning_rate or set "
      'optimizer.clip_norm',
      flush=True,
    )
  return is_large
