"""Optimizers, as optax chains over path -> parameter."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.models import parameter_groups


def create_optimizer(
  config, schedule: optax.Schedule, layer_factors: Mapping[str, float] | None = None
) -> optax.GradientTransformation:
  """Creates the optimizer of a run.

  Args:
    config: the block `config.optimizer`.
    schedule: step -> learning rate.
    layer_factors: see `layer_factors`; multiplies `lr_multipliers`.

  Returns:
    The optax chain: clipping, the optimizer, the rates' multipliers, all of it
    once per `accumulate_steps` steps, on the mean gradient. It works on path ->
    array, trained parameters only (see parameter_groups.split). Weight decay
    touches kernels only, never biases or batch-norm scales.

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

  every = config.accumulate_steps

  def rate(update):
    return schedule(update * every)

  optimizers = {
    'adam': lambda: optax.adam(rate),
    'adamw': lambda: optax.adamw(rate, weight_decay=decay, mask=kernels),
    'sgd': lambda: optax.chain(
      optax.add_decayed_weights(decay, kernels),
      optax.sgd(rate, momentum=config.momentum),
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
  factors = config_lib.parse_factors('optimizer.lr_multipliers', config.lr_multipliers)
  if factors or layer_factors:
    parts.append(_multiply(factors, layer_factors or {}))
  optimizer = optax.chain(*parts) if len(parts) > 1 else parts[0]
  if every > 1:
    optimizer = optax.MultiSteps(optimizer, every).gradient_transformation()
  return optimizer


def layer_factors(table: Sequence[Mapping], decay: float) -> dict[str, float]:
  """Returns the factors of the learning rate for layer-wise decay.

  A layer is a module of the backbone that has convolutions or is a dense layer,
  with the norms up to the next (a ResNet's stem and blocks). Layer l of L has
  decay^(L + 1 - l), the branches 1 (Clark et al. 2020; Bao et al. 2022).

  Args:
    table: see flops.layer_table.
    decay: in (0, 1).

  Returns:
    Path of a module, such as `backbone/layer1_0` -> factor.
  """
  depths: dict[str, int] = {}
  depth = 0
  for row in table:
    module = _module(row['name'])
    if module.startswith('backbone/') and module not in depths:
      depth += row['flops'] > 0
      depths[module] = depth
  return {module: decay ** (depth + 1 - row) for module, row in depths.items()}


def _module(path: str) -> str:
  """Returns the first two names of a path."""
  return '/'.join(path.split('/')[:2])


def _multiply(multipliers, layers) -> optax.GradientTransformation:
  """Scales updates by the first pattern that names their path and their layer's."""

  def factor(path):
    found = (f for p, f in multipliers.items() if parameter_groups.matches(p, path))
    return next(found, 1.0) * layers.get(_module(path), 1.0)

  def update(updates: dict[str, jax.Array], params):
    del params
    return {path: leaf * factor(path) for path, leaf in updates.items()}

  return optax.stateless(update)


@struct.dataclass
class AverageState:
  """The state of `with_average`.

  Attributes:
    count: int32 [], steps done.
    live: the parameters that the optimizer moves.
    inner: the optimizer's state.
  """

  count: jax.Array
  live: Any
  inner: Any


def with_average(
  optimizer: optax.GradientTransformation, decay: float
) -> optax.GradientTransformation:
  """Makes the parameters of a run a moving average of those that are trained.

  At step t, counted from 0, the average moves by 1 - min(decay, (1 + t) /
  (10 + t)) of the way to the live parameters, so that the first weights are soon
  forgotten. What is evaluated, saved and exported is the average; gradients are
  those of `live`.

  Args:
    optimizer: of the live parameters.
    decay: below 1.
  """

  def init(params):
    return AverageState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

  def update(gradients, state, params):
    before = live(state, params)
    changes, inner = optimizer.update(gradients, state.inner, before)
    after = optax.apply_updates(before, changes)
    share = 1 - jnp.minimum(decay, (1 + state.count) / (10 + state.count))
    moves = jax.tree.map(lambda new, old: share * (new - old), after, params)
    return moves, AverageState(state.count + 1, after, inner)

  return optax.GradientTransformation(init, update)


def live(opt_state, params):
  """Returns the parameters whose gradients the optimizer takes."""
  if not isinstance(opt_state, AverageState):
    return params
  # Weights may have been loaded since the state was made.
  is_first = opt_state.count == 0
  return jax.tree.map(
    lambda kept, given: jnp.where(is_first, given, kept), opt_state.live, params
  )
