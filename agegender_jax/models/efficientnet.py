"""EfficientNet-Lite0 as timm has it, `tf_efficientnet_lite0`.

Tan & Le 2019, "EfficientNet"; Lite (Liu 2020) leaves squeeze-and-excitation out
and clips ReLUs at 6. Submodules carry timm's names (`blocks_1_0/conv_pw` is
`blocks.1.0.conv_pw`), for `pretrained.port`. Padding and epsilon are
TensorFlow's, which the published weights were trained with.
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from agegender_jax.models import layers

_kernel_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
# (blocks, kernel side, stride of the first, expansion, channels) per stage.
_STAGES = (
  (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip


def _conv_norm(module, train, x, features, side, names, stride=1, groups=1):
  """Applies a convolution and its batch norm as submodules of `module`."""
  x = module.kit.conv(
    features,
    (side, side),
    (stride, stride),
    'SAME',
    use_bias=False,
    feature_group_count=groups,
    dtype=module.dtype,
    kernel_init=_kernel_init,
    name=names[0],
  )(x)
  norm = module.kit.norm(epsilon=1e-3, dtype=module.dtype, name=names[1])
  return norm(x, use_running_average=not train)


class Block(nn.Module):
  """An inverted residual: wider by 1x1, depthwise, narrower by 1x1.

  Attributes:
    features: channels out.
    side: of the depthwise kernel.
    stride: of the depthwise convolution.
    expansion: factor of the channels; 1 leaves the first convolution out.
    dtype: of the activations.
    kit: see layers.Kit.
  """

  features: int
  side: int
  stride: int
  expansion: int
  dtype: Any
  kit: layers.Kit

  @nn.compact
  def __call__(self, x, train: bool):
    """Maps float [B, H, W, C] to float [B, H / s, W / s, features]."""
    unit = functools.partial(_conv_norm, self, train)
    wide = x.shape[-1] * self.expansion
    y, depthwise, last = x, ('conv_dw', 'bn1'), ('conv_pw', 'bn2')
    if self.expansion > 1:
      y = nn.relu6(unit(y, wide, 1, ('conv_pw', 'bn1')))
      depthwise, last = ('conv_dw', 'bn2'), ('conv_pwl', 'bn3')
    y = nn.relu6(unit(y, wide, self.side, depthwise, self.stride, groups=wide))
    y = unit(y, self.features, 1, last)
    return x + y if x.shape == y.shape else y


class EfficientNetLite0(nn.Module):
  """Inverted residuals; with `num_classes` 0 the last feature map.

  Attributes:
    num_classes: outputs of `classifier`; 0 ends before the pooling.
    dtype: of the activations; logits are float32 or wider.
    kit: see layers.Kit; its convolutions must know groups.
  """

  num_classes: int = 0
  dtype: Any = jnp.float32
  kit: layers.Kit = layers.Kit()

  least_image_size = 32  # Five halvings.

  @nn.compact
  def __call__(self, image, train: bool):
    """Maps float [B, H, W, 3], normalised, to [B, H / 32, W / 32, 1280] or logits.

    Raises:
      errors.UserError: the image is too small.
    """
    layers.check_size(image, self.least_image_size, 'EfficientNet-Lite0')
    unit = functools.partial(_conv_norm, self, train)
    x = nn.relu6(unit(image, 32, 3, ('conv_stem', 'bn1'), stride=2))
    for stage, (size, side, stride, expansion, features) in enumerate(_STAGES):
      for row in range(size):
        x = Block(
          features,
          side,
          1 if row else stride,
          expansion,
          self.dtype,
          self.kit,
          name=f'blocks_{stage}_{row}',
        )(x, train)
    x = unit(x, 1280, 1, ('conv_head', 'bn2'))
    # ReLU6, in two parts: Grad-CAM looks at the first.
    x = jnp.minimum(layers.Relu(name='relu')(x), 6)
    if not self.num_classes:
      return x
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x = jnp.mean(x, axis=(1, 2), dtype=wide)
    return nn.Dense(self.num_classes, dtype=wide, name='classifier')(x)
