"""Optimizers, as optax chains over path -> parameter."""

import math

import jax
import optax

from agegender_jax import errors
from agegender_jax.models import parameter_groups


def create_optimizer(config, schedule: optax.Schedule) -> optax.GradientTransformation:
  """Creates the optimizer of a run.

  Args:
    config: the block `config.optimizer`.
    schedule: step -> learning rate.

  Returns:
    The optax chain: clipping, the optimizer, the rates' multipliers. It works
    on path -> array, trained parameters only (see parameter_groups.split).
    Weight decay touches kernels only, never biases or batch-norm scales.

  Raises:
    errors.UserError: unknown optimizer, or a rate that is not positive.
  """
  if not (config.learning_rate > 0 and math.isfinite(config.learning_rate)):
    raise errors.UserError(
      f'optimizer.learning_rate = {config.learning_rate} is not positive'
    )
  decay = config.weight_decay

  def kernels(params):
    return {path: path.split('/')[-1] == 'kernel' for path in params}

  optimizers = {
    'adam': lambda: optax.adam(schedule),
    'adamw': lambda: optax.adamw(schedule, weight_decay=decay, mask=kernels),
    'sgd': lambda: optax.chain(
      optax.add_decayed_weights(decay, kernels),
      optax.sgd(schedule, momentum=config.momentum),
    ),
  }
  if config.name not in optimizers:
    raise errors.unknown('optimizer.name', config.name, optimizers)
  if decay and config.name == 'adam':
    raise errors.UserError(
      'optimizer.weight_decay is not for adam: use optimizer.name=adamw'
    )
  parts = [optimizers[config.name]()]
  if config.clip_norm:
    parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
  multipliers = parameter_groups.parse_multipliers(config.lr_multipliers)
  if multipliers:
    parts.append(_multiply(multipliers))
  return optax.chain(*parts) if len(parts) > 1 else parts[0]


def _multiply(multipliers: dict[str, float]) -> optax.GradientTransformation:
  """Scales each update by the factor of the first pattern that names its path."""

  def factor(path):
    found = (f for p, f in multipliers.items() if parameter_groups.matches(p, path))
    return next(found, 1.0)

  def update(updates: dict[str, jax.Array], params):
    del params
    return {path: leaf * factor(path) for path, leaf in updates.items()}

  return optax.stateless(update)
