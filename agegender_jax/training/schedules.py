"""When a run does what: durations in steps, and the learning rate by step."""

import dataclasses

import jax.numpy as jnp
import optax

from agegender_jax import errors


@dataclasses.dataclass(frozen=True)
class Durations:
  """When a run does what, in steps.

  Attributes:
    total: steps of the run.
    per_epoch: steps of one pass over the training split, often a fraction.
    evaluations: the steps after which to evaluate and checkpoint.
  """

  total: int
  per_epoch: float
  evaluations: frozenset[int]

  def calls(self, start: int, steps_per_call: int) -> list[range]:
    """Divides the steps from `start` on into dispatches.

    None crosses an evaluation. What is left before one runs step by step: a
    shorter dispatch would have to be compiled as well.
    """
    calls = []
    for end in sorted(step for step in self.evaluations if step > start):
      while start < end:
        count = steps_per_call if start + steps_per_call <= end else 1
        calls.append(range(start, start + count))
        start += count
    return calls


def create_durations(config, num_examples: int) -> Durations:
  """Converts the durations of the block `config.train` into steps.

  Args:
    config: the block.
    num_examples: of the training split.

  Returns:
    The durations; the last step is always evaluated.

  Raises:
    errors.UserError: a pair of durations set wrongly.
  """
  per_epoch = num_examples / config.batch_size
  total = max(1, round(_steps('train', config, ('num_steps', 'num_epochs'), per_epoch)))
  every = 'eval_every_steps', 'eval_every_epochs'
  period = max(1, _steps('train', config, every, per_epoch))
  found = {round(k * period) for k in range(1, int(total / period) + 1)}
  return Durations(total, per_epoch, frozenset(found | {total}))


def create_schedule(config, durations: Durations) -> optax.Schedule:
  """Creates the learning rate as a function of the step.

  `step_decay` by steps multiplies by `decay_factor` every N steps (Levi &
  Hassner 2015: 0.1 every 10,000 iterations). By epochs it is the rule that the
  Levi-Hassner report prints, factor ** floor((1 + epoch) / N), which drops one
  epoch early.

  `time_decay` is rate / (1 + time / N), Keras's legacy `decay` with N = 1 /
  decay, changed every step: half the rate after N steps or epochs, a third
  after 2 N.

  Args:
    config: the block `config.optimizer`.
    durations: of the run.

  Returns:
    step -> learning rate.

  Raises:
    errors.UserError: unknown schedule, or a pair of durations set wrongly.
  """
  rate, per_epoch = config.learning_rate, durations.per_epoch
  warmup = 'warmup_steps', 'warmup_epochs'
  warmup_steps = round(_steps('optimizer', config, warmup, per_epoch, required=False))

  def decay_every():
    names = 'decay_every_steps', 'decay_every_epochs'
    return _steps('optimizer', config, names, per_epoch)

  def time_decay():
    every = decay_every()
    return lambda step: rate / (1 + step / every)

  def step_decay():
    factor, every = config.decay_factor, decay_every()
    if config.decay_every_steps:
      return lambda step: rate * factor ** (step // every)
    epochs = config.decay_every_epochs
    return lambda step: rate * factor ** jnp.floor((1 + step // per_epoch) / epochs)

  def cosine():
    steps = max(1, durations.total - warmup_steps)
    return optax.cosine_decay_schedule(rate, steps)

  schedules = {
    'constant': lambda: optax.constant_schedule(rate),
    'step_decay': step_decay,
    'time_decay': time_decay,
    'cosine': cosine,
  }
  if config.schedule not in schedules:
    raise errors.unknown('optimizer.schedule', config.schedule, schedules)
  schedule = schedules[config.schedule]()
  if warmup_steps:
    ramp = optax.linear_schedule(0.0, rate, warmup_steps)
    schedule = optax.join_schedules([ramp, schedule], [warmup_steps])
  return schedule


def _steps(block, config, names, per_epoch, required=True):
  """Returns a duration in steps, of two fields: steps and epochs, one of them not 0."""
  steps, epochs = (config[name] for name in names)
  if (steps and epochs) or (required and not (steps or epochs)):
    fields = ' and '.join(f'{block}.{name}' for name in names)
    raise errors.UserError(
      f'set exactly one of {fields} (the other 0); '
      f'set are: {"both" if steps else "none"}'
    )
  return steps or epochs * per_epoch
