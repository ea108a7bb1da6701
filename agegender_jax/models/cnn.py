"""Plain convolutional networks, written as a line of layers.

`'conv:32 pool drop:0.25 conv:64 pool flatten dense:128 drop:0.5'` is a whole
network: the CNNs of the multi-branch, the ResNet and the four-conv report differ
only in such lines, so one class builds them all and the branches on top of any
backbone too.
"""

from typing import Any

import jax
from flax import linen as nn

from agegender_jax import errors
from agegender_jax.models import layers

# The reports' networks are Keras models: its default initialiser.
KERNEL_INIT = nn.initializers.glorot_uniform()
# Word -> type of its value.
LAYERS: dict[str, type | None] = {
  'conv': int,
  'dense': int,
  'pool': None,
  'norm': None,
  'drop': float,
  'flatten': None,
  'gap': None,
}


def parse_layers(text: str) -> list[tuple[str, float | None, str]]:
  """Parses a line of layers.

  Args:
    text: words `conv:N` (3x3 same, then ReLU), `dense:N` (then ReLU), `pool`
      (2x2 max, stride 2), `norm` (batch norm), `drop:RATE`, `flatten`, `gap`
      (global average pooling).

  Returns:
    A list of (kind, value or None, name); names count per kind from 1.

  Raises:
    errors.UserError: an unknown word, or a missing or superfluous value.
  """
  counts, result = {}, []
  for word in text.split():
    kind, colon, value = word.partition(':')
    if kind not in LAYERS:
      raise errors.unknown('layer', word, sorted(LAYERS))
    value_type = LAYERS[kind]
    try:
      number = value_type(value) if value_type else None
    except ValueError:
      number = 0
    limit = 1 if kind == 'drop' else 2**31
    if bool(value_type) != bool(colon) or (value_type and not 0 < number < limit):
      raise errors.UserError(
        f'layer "{word}" should read "{kind}'
        + (':NUMBER", such as "conv:32"' if value_type else '", without value')
      )
    counts[kind] = counts.get(kind, 0) + 1
    result.append((kind, number, f'{kind}{counts[kind]}'))
  return result


def apply_layers(module: nn.Module, text: str, x: jax.Array, train: bool):
  """Applies a line of layers as submodules of `module` (inside compact).

  Args:
    module: has the fields kit and dtype.
    text: see `parse_layers`.
    x: float [B, H, W, C] or [B, C].
    train: batch statistics and dropout as in training.

  Returns:
    float [B, h, w, K] or [B, K].
  """
  for kind, value, name in parse_layers(text):
    if kind in ('conv', 'pool', 'gap') and x.ndim != 4:
      raise errors.UserError(
        f'layer "{name}" needs a feature map, but what comes in is flat'
      )
    if kind == 'dense' and x.ndim != 2:
      raise errors.UserError(f'layer "{name}" needs "flatten" or "gap" before it')
    if kind == 'pool' and min(x.shape[1:3]) < 2:
      raise errors.UserError(
        f'data.image_size is too small for this network: layer "{name}" gets '
        f'a map of {x.shape[1]}x{x.shape[2]}; raise it or drop a "pool"'
      )
    options = {'dtype': module.dtype, 'name': name}
    match kind:
      case 'conv':
        x = module.kit.conv(value, (3, 3), kernel_init=KERNEL_INIT, **options)(x)
        x = layers.Relu(name=f'{name}_relu')(x)
      case 'dense':
        x = layers.relu(nn.Dense(value, kernel_init=KERNEL_INIT, **options)(x))
      case 'pool':
        x = module.kit.max_pool(x, (2, 2), (2, 2), 'VALID')
      case 'norm':
        x = module.kit.norm(**options)(x, use_running_average=not train)
      case 'drop':
        x = module.kit.drop(value, name=name)(x, deterministic=not train)
      case 'flatten':
        x = x.reshape((x.shape[0], -1))
      case 'gap':
        x = x.mean(axis=(1, 2))
  return x


class Stack(nn.Module):
  """A backbone written as a line of layers.

  Attributes:
    layers: see `parse_layers`.
    kit: see layers.Kit.
    dtype: of the activations.
  """

  layers: str
  kit: layers.Kit = layers.Kit()
  dtype: Any = None

  @nn.compact
  def __call__(self, image: jax.Array, train: bool) -> jax.Array:
    """Maps float [B, H, W, C] to features [B, h, w, K] or [B, K]."""
    return apply_layers(self, self.layers, image, train)
