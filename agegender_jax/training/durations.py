"""Durations in steps, whether a recipe gives them in steps or epochs."""

import dataclasses
import math

from agegender_jax.training import optimizers


@dataclasses.dataclass(frozen=True)
class Durations:
  """When a run does what, in steps.

  Attributes:
    total: steps of the run.
    per_epoch: steps of one pass over the training split, a fraction mostly.
    evaluations: the steps after which to evaluate and checkpoint.
  """

  total: int
  per_epoch: float
  evaluations: frozenset[int]

  def calls(self, start: int, steps_per_call: int) -> list[range]:
    """Divides the steps from `start` on into dispatches.

    Args:
      start: steps done.
      steps_per_call: steps a dispatch has. What an evaluation leaves over is
        run step by step: a shorter dispatch would be compiled anew.

    Returns:
      The steps of each dispatch, counted from 0; none crosses an evaluation.
    """
    calls = []
    for end in sorted(step for step in self.evaluations if step > start):
      while start < end:
        count = steps_per_call if start + steps_per_call <= end else 1
        calls.append(range(start, start + count))
        start += count
    return calls


def create_durations(config, num_examples: int) -> Durations:
  """Converts the durations of `config.train` into steps.

  Args:
    config: the block `config.train`.
    num_examples: of the training split.

  Returns:
    The durations; the last step is always evaluated.

  Raises:
    errors.UserError: a pair of durations set wrongly.
  """
  per_epoch = num_examples / config.batch_size
  total = optimizers.exactly_one('train', config, 'num_epochs', 'num_steps')
  every = optimizers.exactly_one(
    'train', config, 'eval_every_epochs', 'eval_every_steps'
  )
  scale = {'num_epochs': per_epoch, 'eval_every_epochs': per_epoch}
  total = max(1, round(config[total] * scale.get(total, 1)))
  period = config[every] * scale.get(every, 1)
  count = math.floor(total / period)
  found = {max(1, round(k * period)) for k in range(1, count + 1)} | {total}
  return Durations(total, per_epoch, frozenset(s for s in found if s <= total))
