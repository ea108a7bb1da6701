"""ResNet-18, -34, -50, -101 and -152 as torchvision has them.

He et al. 2016, "Deep residual learning for image recognition"; the stride of a
bottleneck sits in its 3x3 convolution (torchvision's "v1.5"). Submodules carry
torchvision's names, which lets `pretrained.port` bring its weights in.
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from agegender_jax.models import layers

# torchvision's: Gaussian, variance 2 / fan_out.
_kernel_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
# Explicit: SAME pads a strided convolution on the right only, torch on both.
_PAD1, _PAD3 = ((1, 1), (1, 1)), ((3, 3), (3, 3))


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and the shortcut around them.

  Attributes:
    features: channels of the 3x3 convolutions.
    strides: of the first convolution, height and width.
    project: whether a strided 1x1 convolution is on the shortcut.
    dtype: of the activations.
    kit: see layers.Kit.
    squeeze_excite: whether channels are weighted before the sum.
    resnet_d: whether the shortcut averages 2x2 pixels instead of striding.
    drop_path: probability of the shortcut alone, per example in training.
  """

  features: int
  strides: tuple[int, int]
  project: bool
  dtype: Any
  kit: layers.Kit
  squeeze_excite: bool = False
  resnet_d: bool = False
  drop_path: float = 0.0

  expansion = 1  # Channels out per `features`.

  @nn.compact
  def __call__(self, x, train: bool):
    """Maps float [B, H, W, C] to float [B, H / s, W / s, features]."""
    conv, norm = _bind(self, train)
    y = conv(self.features, (3, 3), self.strides, _PAD1, name='conv1')(x)
    y = layers.relu(norm(name='bn1')(y))
    y = conv(self.features, (3, 3), padding=_PAD1, name='conv2')(y)
    y = norm(name='bn2')(y)
    return _add_shortcut(self, x, y, conv, norm, train)


class Bottleneck(BasicBlock):
  """1x1, 3x3 and 1x1 convolutions and the shortcut; fields as BasicBlock's."""

  expansion = 4

  @nn.compact
  def __call__(self, x, train: bool):
    """Maps float [B, H, W, C] to float [B, H / s, W / s, 4 * features]."""
    conv, norm = _bind(self, train)
    y = conv(self.features, (1, 1), padding='VALID', name='conv1')(x)
    y = layers.relu(norm(name='bn1')(y))
    y = conv(self.features, (3, 3), self.strides, _PAD1, name='conv2')(y)
    y = layers.relu(norm(name='bn2')(y))
    y = conv(4 * self.features, (1, 1), padding='VALID', name='conv3')(y)
    y = norm(name='bn3')(y)
    return _add_shortcut(self, x, y, conv, norm, train)


class SqueezeExcite(nn.Module):
  """Weights channels by what their means say (Hu et al. 2018); timm's names."""

  dtype: Any
  kit: layers.Kit

  @nn.compact
  def __call__(self, x):
    """Maps float [B, H, W, C] to the same shape."""
    narrow = max(8, round(x.shape[-1] / 16 / 8) * 8)  # As timm rounds it.
    conv = functools.partial(self.kit.conv, kernel_size=(1, 1), dtype=self.dtype)
    y = layers.relu(conv(narrow, name='fc1')(x.mean(axis=(1, 2), keepdims=True)))
    return x * nn.sigmoid(conv(x.shape[-1], name='fc2')(y))


class ResNet(nn.Module):
  """A residual net; with `num_classes` 0 its last feature map.

  Attributes:
    stage_sizes: blocks in each stage.
    block: BasicBlock or Bottleneck.
    num_classes: outputs of `fc`; 0 ends before the global average pooling.
    dtype: of the activations; logits are float32 or wider.
    kit: see layers.Kit.
    width: factor of all channels but the outputs.
    first_pool: whether a max-pool follows the first convolution; without it
      all maps have twice the side.
    squeeze_excite: whether blocks have one (seresnet18 in timm).
    resnet_d: three 3x3 convolutions first and averaging shortcuts (He et al.
      2019, "Bag of tricks"; resnet18d in timm).
    drop_path: of the last block; block l of L has l / L of it (stochastic depth,
      Huang et al. 2016).
  """

  stage_sizes: tuple[int, ...]
  block: type[nn.Module]
  num_classes: int = 0
  dtype: Any = jnp.float32
  kit: layers.Kit = layers.Kit()
  width: float = 1.0
  first_pool: bool = True
  squeeze_excite: bool = False
  resnet_d: bool = False
  drop_path: float = 0.0

  least_image_size = 32  # Five halvings.

  @nn.compact
  def __call__(self, image, train: bool):
    """Computes features or logits.

    Args:
      image: float [B, H, W, 3], normalised.
      train: normalise by the batch and update the running statistics.

    Returns:
      float [B, H / 32, W / 32, C], C 512 or 2048 times the width, or float
      [B, num_classes]; without the first pool H / 16.

    Raises:
      errors.UserError: the image is too small.
    """
    layers.check_size(image, self.least_image_size, 'a ResNet')
    conv, norm = _bind(self, train)
    first = round(64 * self.width)
    x = image
    if self.resnet_d:
      for row, strides in ((0, (2, 2)), (3, (1, 1))):
        x = conv(first // 2, (3, 3), strides, _PAD1, name=f'conv1_{row}')(x)
        x = layers.relu(norm(name=f'conv1_{row + 1}')(x))
      x = conv(first, (3, 3), padding=_PAD1, name='conv1_6')(x)
    else:
      x = conv(first, (7, 7), (2, 2), _PAD3, name='conv1')(x)
    x = layers.relu(norm(name='bn1')(x))
    if self.first_pool:
      x = self.kit.max_pool(x, (3, 3), (2, 2), _PAD1)
    number = 0
    for stage, size in enumerate(self.stage_sizes):
      features = first * 2**stage
      for row in range(size):
        number += 1
        strides = (2, 2) if stage and not row else (1, 1)
        width = features * self.block.expansion
        x = self.block(
          features=features,
          strides=strides,
          project=x.shape[-1] != width or strides != (1, 1),
          dtype=self.dtype,
          kit=self.kit,
          squeeze_excite=self.squeeze_excite,
          resnet_d=self.resnet_d,
          drop_path=self.drop_path * number / sum(self.stage_sizes),
          name=f'layer{stage + 1}_{row}',
        )(x, train)
    if not self.num_classes:
      return x
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x = jnp.mean(x, axis=(1, 2), dtype=wide)
    return nn.Dense(self.num_classes, dtype=wide, name='fc')(x)


def _bind(module, train):
  """Returns the module's conv and norm with what all of its calls share."""
  conv = functools.partial(
    module.kit.conv, use_bias=False, dtype=module.dtype, kernel_init=_kernel_init
  )

  def norm(name):
    layer = module.kit.norm(dtype=module.dtype, name=name)
    return functools.partial(layer, use_running_average=not train)

  return conv, norm


def _add_shortcut(block, x, y, conv, norm, train):
  """Returns the block's end: y weighted by channel, plus x brought to its shape."""
  if block.squeeze_excite:
    y = SqueezeExcite(block.dtype, block.kit, name='se')(y)
  if block.project:
    row, strides = 0, block.strides
    if block.resnet_d:
      row, strides = 1, (1, 1)
      if block.strides != (1, 1):
        x = nn.avg_pool(x, (2, 2), (2, 2), 'SAME', count_include_pad=False)
    x = conv(y.shape[-1], (1, 1), strides, 'VALID', name=f'downsample_{row}')(x)
    x = norm(name=f'downsample_{row + 1}')(x)
  if block.drop_path:
    drop = block.kit.drop(block.drop_path, per_example=True, name='drop_path')
    y = drop(y, deterministic=not train)
  return layers.Relu(name='relu')(y + x)


ResNet18 = functools.partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock)
ResNet34 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock)
ResNet50 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=Bottleneck)
ResNet101 = functools.partial(ResNet, stage_sizes=(3, 4, 23, 3), block=Bottleneck)
ResNet152 = functools.partial(ResNet, stage_sizes=(3, 8, 36, 3), block=Bottleneck)
