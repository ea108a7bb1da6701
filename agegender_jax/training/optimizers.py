"""Optimizers and learning-rate schedules, as optax chains."""

import math

import jax.numpy as jnp
import optax

from agegender_jax import errors
from agegender_jax.models import parameter_groups


def exactly_one(block: str, config, *names: str, required: bool = True):
  """Returns the name of the one field that is set (not 0).

  Raises:
    errors.UserError: several are set, or none although one is required.
  """
  found = [name for name in names if config[name]]
  if len(found) > 1 or (required and not found):
    fields = ' and '.join(f'{block}.{name}' for name in names)
    raise errors.UserError(
      f'set exactly one of {fields} (the other 0); '
      f'set are: {", ".join(found) or "none"}'
    )
  return found[0] if found else None


def create_schedule(config, num_steps: int, steps_per_epoch: float) -> optax.Schedule:
  """Creates the learning rate as a function of the step.

  `step_decay` by steps multiplies by `decay_factor` every N steps (Levi &
  Hassner 2015: 0.1 every 10,000 iterations). By epochs it is seed 003's
  printed rule, factor ** floor((1 + epoch) / N), which drops one epoch early.

  `time_decay` is rate / (1 + time / N), the "time based schedule" that seed 003
  names without a formula: Keras's legacy `decay`, changed every step, with N =
  1 / decay. The rate is halved after N steps or epochs, a third after 2 N.

  Args:
    config: the block `config.optimizer`.
    num_steps: of the whole run.
    steps_per_epoch: of the training split.

  Returns:
    step -> learning rate.

  Raises:
    errors.UserError: unknown schedule, or a pair of durations set wrongly.
  """
  rate = config.learning_rate
  warmup = exactly_one('optimizer', config, 'warmup_steps', 'warmup_epochs',
                       required=False)  # fmt: skip
  warmup_steps = 0
  if warmup:
    scale = 1 if warmup == 'warmup_steps' else steps_per_epoch
    warmup_steps = round(config[warmup] * scale)

  def decay_unit():
    return exactly_one('optimizer', config, 'decay_every_steps', 'decay_every_epochs')

  def time_decay():
    unit = decay_unit()
    scale = 1 if unit == 'decay_every_steps' else steps_per_epoch
    every = config[unit] * scale
    return lambda step: rate / (1 + step / every)

  def step_decay():
    unit = decay_unit()
    factor, every = config.decay_factor, config[unit]
    if unit == 'decay_every_steps':
      return lambda step: rate * factor ** (step // every)
    return lambda step: (
      rate * factor ** jnp.floor((1 + step // steps_per_epoch) / every)
    )

  schedules = {
    'constant': lambda: optax.constant_schedule(rate),
    'step_decay': step_decay,
    'time_decay': time_decay,
    'cosine': lambda: optax.cosine_decay_schedule(
      rate, max(1, num_steps - warmup_steps)
    ),
  }
  if config.schedule not in schedules:
    raise errors.UserError(
      f'unknown optimizer.schedule "{config.schedule}"; known: {", ".join(schedules)}'
    )
  schedule = schedules[config.schedule]()
  if warmup_steps:
    ramp = optax.linear_schedule(0.0, rate, warmup_steps)
    schedule = optax.join_schedules([ramp, schedule], [warmup_steps])
  return schedule


def create_optimizer(config, schedule: optax.Schedule) -> optax.GradientTransformation:
  """Creates the optimizer of a run.

  Args:
    config: the block `config.optimizer`.
    schedule: step -> learning rate.

  Returns:
    The optax chain: clipping, the optimizer, the rates' multipliers. It works
    on path -> array (see parameter_groups.split), trained parameters only, with an
    axis of 1 before a parameter's own (see steps): nothing here may go by
    shape. Weight decay touches kernels only, never biases or batch-norm scales.

  Raises:
    errors.UserError: unknown optimizer, or a rate that is not positive.
  """
  if not (config.learning_rate > 0 and math.isfinite(config.learning_rate)):
    raise errors.UserError(
      f'optimizer.learning_rate = {config.learning_rate} is not positive'
    )

  def kernels(params):
    return {path: path.split('/')[-1] == 'kernel' for path in params}

  decay = config.weight_decay
  multipliers = parameter_groups.parse_multipliers(config.lr_multipliers)

  def multiply(updates, params):
    del params
    factors = {
      path: next((factor for pattern, factor in multipliers.items()
                  if parameter_groups.matches(pattern, path)), 1.0)
      for path in updates
    }  # fmt: skip
    return {path: leaf * factors[path] for path, leaf in updates.items()}

  optimizers = {
    'adam': lambda: optax.adam(schedule),
    'adamw': lambda: optax.adamw(schedule, weight_decay=decay, mask=kernels),
    'sgd': lambda: optax.chain(
      optax.add_decayed_weights(decay, kernels),
      optax.sgd(schedule, momentum=config.momentum),
    ),
  }
  if config.name not in optimizers:
    raise errors.UserError(
      f'unknown optimizer.name "{config.name}"; known: {", ".join(optimizers)}'
    )
  if decay and config.name == 'adam':
    raise errors.UserError(
      "optimizer.weight_decay is not adam's: use optimizer.name=adamw"
    )
  optimizer = optimizers[config.name]()
  if config.clip_norm:
    clip = optax.clip_by_global_norm(config.clip_norm)
    optimizer = optax.chain(clip, optimizer)
  if multipliers:
    optimizer = optax.chain(optimizer, optax.stateless(multiply))
  return optimizer
