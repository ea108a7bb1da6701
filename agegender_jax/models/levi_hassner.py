"""The three-convolution net of Levi & Hassner.

Levi & Hassner 2015, "Age and gender classification using convolutional neural
networks"; the Levi-Hassner report rebuilds it. Names follow the authors' Caffe files:
conv1 to conv3, fc6, fc7; the outputs (their fc8) are the heads'.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from agegender_jax import errors
from agegender_jax.models import layers

# Channels, kernel side, stride and padding (each side) of the convolutions.
_CONVOLUTIONS = ((96, 7, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1))
_POOL, _POOL_STRIDE = 3, 2
_DROPOUT = 0.5  # After each dense layer.
# The paper draws weights from a Gaussian of standard deviation 0.01, the report from
# a truncated one.
KERNEL_INIT = nn.initializers.truncated_normal(0.01)


def _pooled(size):
  """Returns the side after max-pooling in Caffe's ceil mode."""
  return -(-(size - _POOL) // _POOL_STRIDE) + 1


def map_sizes(image_size: int) -> list[int]:
  """Returns the side of the map after each pooling: 227 gives 28, 14, 7."""
  sizes, size = [], image_size
  for _, kernel, stride, padding in _CONVOLUTIONS:
    size = _pooled((size + 2 * padding - kernel) // stride + 1)
    sizes.append(size)
  return sizes


class LeviHassner(nn.Module):
  """Convolution, ReLU, max-pooling, LRN, three times; then dense layers.

  Attributes:
    lrn_after: the convolutions (1 to 3) that local response normalisation
      follows; the paper's (1, 2). The report has it after all three.
    dense_features: widths of the dense layers; the report varies both their
      width and their number. () ends with the flattened map.
    dtype: of the activations.
    kit: see layers.Kit.
  """

  lrn_after: tuple[int, ...] = (1, 2)
  dense_features: tuple[int, ...] = (512, 512)
  dtype: Any = jnp.float32
  kit: layers.Kit = layers.Kit()

  # From here on, every pooling window starts inside its map.
  least_image_size = next(s for s in range(7, 227) if min(map_sizes(s)) > 0)

  @nn.compact
  def __call__(self, image, train: bool):
    """Computes the features that the heads' outputs sit on.

    Args:
      image: float [B, H, W, 3], normalised.
      train: whether dropout is on (needs the rng `dropout`).

    Returns:
      float [B, dense_features[-1]]; without dense layers the flattened map,
      float [B, 384 * h * w], channels first.

    Raises:
      errors.UserError: the image is too small, or `lrn_after` names no
        convolution.
    """
    rows = range(1, len(_CONVOLUTIONS) + 1)
    if not set(self.lrn_after) <= set(rows):
      raise errors.UserError(
        f'model.lrn_after = {self.lrn_after} names a convolution that the '
        f'Levi-Hassner net has not: choose from {", ".join(map(str, rows))}'
      )
    layers.check_size(image, self.least_image_size, 'the Levi-Hassner net')
    x = image
    for row, (features, side, stride, pad) in enumerate(_CONVOLUTIONS, 1):
      x = self.kit.conv(
        features,
        (side, side),
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dtype=self.dtype,
        kernel_init=KERNEL_INIT,
        name=f'conv{row}',
      )(x)
      x = layers.Relu(name=f'conv{row}_relu')(x)
      x = _max_pool_ceil(self.kit.max_pool, x)
      if row in self.lrn_after:
        x = layers.local_response_norm(x)
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
    for row, features in enumerate(self.dense_features):
      x = nn.Dense(
        features,
        dtype=self.dtype,
        kernel_init=KERNEL_INIT,
        name=f'fc{6 + row}',
      )(x)
      drop = self.kit.drop(_DROPOUT, name=f'drop{6 + row}')
      x = drop(layers.relu(x), deterministic=not train)
    return x


def _max_pool_ceil(max_pool, x):
  """Max-pools 3x3/2, the last window reaching past the edge where needed."""
  padding = [
    (0, (_pooled(size) - 1) * _POOL_STRIDE + _POOL - size) for size in x.shape[1:3]
  ]
  return max_pool(x, (_POOL, _POOL), (_POOL_STRIDE, _POOL_STRIDE), padding)
