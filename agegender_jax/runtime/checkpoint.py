"""Orbax checkpoints: the latest and the best, restored as saved."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from agegender_jax import errors

# Two items, so that prediction reads the network without the optimizer.
VARIABLES, OPTIMIZER = 'variables', 'optimizer'


class Checkpoints:
  """The checkpoints of a workdir."""

  def __init__(self, workdir: str, ranking: Sequence[tuple[str, int]]):
    """Opens the checkpoints.

    Args:
      workdir: output folder.
      ranking: (score as `save` gets it, 1 or -1 = more or less is better);
        the first that a run has ranks its checkpoints.
    """

    def rank(scores):
      return next(
        (sign * scores[name] for name, sign in ranking if name in scores),
        -np.inf,
      )

    policy = checkpoint_managers.AnyPreservationPolicy([
      checkpoint_managers.LatestN(1),
      checkpoint_managers.BestN(
        get_metric_fn=rank, n=1, keep_checkpoints_without_metrics=False
      ),
    ])  # fmt: skip
    self._manager = ocp.CheckpointManager(
      pathlib.Path(workdir).absolute() / 'checkpoints',
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        best_fn=rank,
        best_mode='max',
      ),
      item_handlers={
        VARIABLES: ocp.StandardCheckpointHandler(),
        OPTIMIZER: ocp.StandardCheckpointHandler(),
      },
    )

  def save(self, state, scores: dict[str, float]) -> None:
    """Saves in the background; the caller may donate the state at once.

    Args:
      state: a state.TrainState of NumPy arrays.
      scores: the validation scores, with the ranking metric.
    """
    self._manager.save(
      int(state.step),
      args=ocp.args.Composite(**{
        VARIABLES: ocp.args.StandardSave(state.variables),
        OPTIMIZER: ocp.args.StandardSave(state.opt_state),
      }),
      metrics={k: v for k, v in scores.items() if np.isfinite(v)},
    )  # fmt: skip

  def latest_step(self) -> int | None:
    """Returns the newest checkpoint's step, None without any."""
    return self._manager.latest_step()

  def best_step(self) -> int | None:
    """Returns the best checkpoint's step, None without any."""
    return self._manager.best_step()

  def check_step(self, step: int) -> int:
    """Returns `step` if it was kept, else raises errors.UserError."""
    steps = self._manager.all_steps()
    if step not in steps:
      kept = ', '.join(map(str, sorted(steps))) or 'none'
      raise errors.UserError(
        f'no checkpoint of step {step}: train.restore_step can be {kept}'
      )
    return step

  def restore_variables(self, step: int, target: dict[str, Any]):
    """Restores params and batch_stats.

    Args:
      step: a step that was kept.
      target: variables of the same structure and shapes.

    Returns:
      The variables, where the target's are.

    Raises:
      errors.UserError: the checkpoint is of another network.
    """
    self.wait()
    found = self._manager.item_metadata(step)[VARIABLES]
    _check_same(target, found)
    return self._restore(step, VARIABLES, target)

  def read_variables(self, step: int) -> dict[str, Any]:
    """Returns the variables of a step as saved, whatever the network."""
    args = ocp.args.Composite(**{VARIABLES: ocp.args.StandardRestore()})
    return self._manager.restore(step, args=args)[VARIABLES]

  def restore(self, step: int, target):
    """Restores a state.TrainState like `target`; raises as above."""
    variables = self.restore_variables(step, target.variables)
    return target.replace(
      step=jax.numpy.asarray(step, target.step.dtype),
      params=variables['params'],
      batch_stats=variables['batch_stats'],
      opt_state=self._restore(step, OPTIMIZER, target.opt_state),
    )

  def _restore(self, step, item, target):
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(**{item: ocp.args.StandardRestore(target)}),
    )
    return restored[item]

  def wait(self) -> None:
    """Waits for the saves under way."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits for the saves under way and closes the folder."""
    self._manager.close()


def _check_same(target, found) -> None:
  """Raises errors.UserError at the first leaf that differs."""

  def shapes(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
      '/'.join(str(part.key) for part in path): tuple(leaf.shape)
      for path, leaf in leaves
    }

  wanted, has = shapes(target), shapes(getattr(found, 'tree', found))
  for name in sorted(wanted.keys() | has.keys()):
    if wanted.get(name) != has.get(name):
      raise errors.UserError(
        f'the checkpoint is of another network: {name} is '
        f'{has.get(name, "absent")} there and {wanted.get(name, "absent")} in '
        'the configuration; evaluate with the model of the run'
      )
