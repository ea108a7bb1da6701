"""VGG-16, plain and with batch normalisation, as torchvision has it.

Simonyan & Zisserman 2015, "Very deep convolutional networks for large-scale
image recognition", configuration D. The four-conv report puts a gender head on
its frozen features. Submodules carry torchvision's names (`features_28` is the
module that torchvision keeps under `features.28`), for `pretrained.port`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from agegender_jax.models import layers

_kernel_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
_dense_init = nn.initializers.normal(0.01)


class VGG(nn.Module):
  """Stages of 3x3 convolutions, each closed by max-pooling.

  Attributes:
    stage_sizes: convolutions in each stage.
    batch_norm: normalise after every convolution (torchvision's `_bn` nets).
    num_classes: outputs of the classifier; 0 ends with the last pooling.
    dtype: of the activations; logits are float32 or wider.
    kit: see layers.Kit.
  """

  stage_sizes: tuple[int, ...] = (2, 2, 3, 3, 3)
  batch_norm: bool = False
  num_classes: int = 0
  dtype: Any = jnp.float32
  kit: layers.Kit = layers.Kit()

  least_image_size = 32  # Five poolings.

  @nn.compact
  def __call__(self, image, train: bool):
    """Computes features or logits.

    Args:
      image: float [B, H, W, 3], normalised.
      train: batch statistics, and dropout in the classifier.

    Returns:
      float [B, H / 32, W / 32, 512] or float [B, num_classes].

    Raises:
      errors.UserError: the image is too small.
    """
    layers.check_size(image, self.least_image_size, 'a VGG')
    x, index = image, 0  # torchvision's index within `features`.
    for stage, size in enumerate(self.stage_sizes):
      for _ in range(size):
        x = self.kit.conv(
          min(64 * 2**stage, 512),
          (3, 3),
          padding=((1, 1), (1, 1)),
          dtype=self.dtype,
          kernel_init=_kernel_init,
          name=f'features_{index}',
        )(x)
        if self.batch_norm:
          norm = self.kit.norm(dtype=self.dtype, name=f'features_{index + 1}')
          x = norm(x, use_running_average=not train)
        x = layers.Relu(name=f'features_{index}_relu')(x)
        index += 3 if self.batch_norm else 2
      x = self.kit.max_pool(x, (2, 2), (2, 2), 'VALID')
      index += 1
    return self._classify(x, train) if self.num_classes else x

  def _classify(self, x, train):
    """Maps float [B, h, w, 512] to logits, float [B, num_classes]."""
    x = adaptive_average_pool(x, 7)
    # torch flattens channels first; the kernel of classifier_0 counts on it.
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
    for index in (0, 3):
      x = nn.Dense(
        4096,
        dtype=self.dtype,
        kernel_init=_dense_init,
        name=f'classifier_{index}',
      )(x)
      drop = self.kit.drop(0.5, name=f'classifier_{index + 2}')
      x = drop(layers.relu(x), deterministic=not train)
    return nn.Dense(
      self.num_classes,
      dtype=jnp.promote_types(self.dtype, jnp.float32),
      kernel_init=_dense_init,
      name='classifier_6',
    )(x)


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
  """Averages into `size` x `size` bins, as torch.nn.AdaptiveAvgPool2d.

  Bin i of n pixels covers floor(i n / size) to ceil((i + 1) n / size), so bins
  overlap, or repeat pixels, where n is no multiple of `size`.

  Args:
    x: float [B, H, W, C].
    size: bins along each side.

  Returns:
    float [B, size, size, C].
  """
  rows, columns = (jnp.asarray(_bin_weights(n, size), x.dtype) for n in x.shape[1:3])
  return jnp.einsum(
    'ph,qw,bhwc->bpqc', rows, columns, x, precision=jax.lax.Precision.HIGHEST
  )


def _bin_weights(n, size):
  """Returns float [size, n]: what each pixel weighs in each bin."""
  first = np.arange(size)[:, None] * n // size
  end = -(-(np.arange(size)[:, None] + 1) * n // size)
  inside = (np.arange(n) >= first) & (np.arange(n) < end)
  return inside / inside.sum(axis=1, keepdims=True)


VGG16 = VGG
VGG16BN = functools.partial(VGG, batch_norm=True)
