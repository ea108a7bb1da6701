"""A recipe's network in PyTorch, timed beside the package's.

Modules carry the names of the package's parameter tree, so that one rule maps
weights and the rules of `optimizer.freeze` apply.
"""

import collections
import functools

import numpy as np
import torch
from torch import nn

from agegender_jax import errors


class Flatten(nn.Module):
  """Flattens channels last: a view of memory that is channels_last."""

  def forward(self, x):
    """Maps [B, C, H, W] to [B, H * W * C]."""
    return x.permute(0, 2, 3, 1).flatten(1)


class GlobalMean(nn.Module):
  """Global average pooling."""

  def forward(self, x):
    """Maps [B, C, H, W] to [B, C]."""
    return x.mean((2, 3))


class Logits(nn.Linear):
  """The output layer, in float32 whatever the dtype of the rest."""

  def forward(self, x):
    """Maps [B, N] to float32 [B, K]."""
    with torch.autocast(x.device.type, enabled=False):
      return super().forward(x.float())


def _norm(value, shape):
  create = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
  return create(shape[0]), shape


def _conv(value, shape):
  return nn.Conv2d(shape[0], int(value), 3, padding=1), (int(value), *shape[1:])


def _pool(value, shape):
  return nn.MaxPool2d(2), (shape[0], shape[1] // 2, shape[2] // 2)


# Word of models.cnn's notation -> (value, shape) -> (module, shape after it).
_LAYERS = {
  'conv': _conv,
  'dense': lambda value, shape: (nn.Linear(shape[0], int(value)), (int(value),)),
  'pool': _pool,
  'norm': _norm,
  'drop': lambda value, shape: (nn.Dropout(float(value)), shape),
  'flatten': lambda value, shape: (Flatten(), (int(np.prod(shape)),)),
  'gap': lambda value, shape: (GlobalMean(), shape[:1]),
}


def create_stack(text: str, shape: tuple[int, ...]):
  """Creates the layers of a line in models.cnn's notation.

  Args:
    text: such as `conv:32 pool flatten dense:128 drop:0.5`.
    shape: (C, H, W) or (C,) of what comes in.

  Returns:
    A dict of modules in their order, and the shape of what comes out.
  """
  modules, counts = {}, collections.Counter()
  for word in text.split():
    kind, _, value = word.partition(':')
    counts[kind] += 1
    name = f'{kind}{counts[kind]}'
    modules[name], shape = _LAYERS[kind](value, shape)
    if kind in ('conv', 'dense'):
      modules[f'{name}_relu'] = nn.ReLU(inplace=True)
  return modules, shape


def _create_cnn(config, size):
  modules, shape = create_stack(config.layers, (3, size, size))
  return _sequential(modules), shape


def _create_levi_hassner(config, size):
  modules, channels = {}, 3
  convolutions = ((96, 7, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1))
  for row, (features, side, stride, pad) in enumerate(convolutions, 1):
    modules[f'conv{row}'] = nn.Conv2d(channels, features, side, stride, pad)
    modules[f'relu{row}'] = nn.ReLU(inplace=True)
    modules[f'pool{row}'] = nn.MaxPool2d(3, 2, ceil_mode=True)
    if row in config.lrn_after:
      modules[f'norm{row}'] = nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
    size = -(-((size + 2 * pad - side) // stride + 1 - 3) // 2) + 1
    channels = features
  modules['flatten'] = nn.Flatten()  # Channels first, as Levi-Hassner here.
  width = channels * size * size
  for row, features in enumerate(config.dense_features, 6):
    modules[f'fc{row}'] = nn.Linear(width, features)
    modules[f'fc{row}_relu'] = nn.ReLU(inplace=True)
    modules[f'drop{row}'] = nn.Dropout(0.5)
    width = features
  return _sequential(modules), (width,)


class _Block(nn.Module):
  """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1."""

  def __init__(self, channels, features, stride, bottleneck):
    super().__init__()
    sides = (1, 3, 1) if bottleneck else (3, 3)
    self.width = features * (4 if bottleneck else 1)
    self.count, ins = len(sides), channels
    for row, side in enumerate(sides, 1):
      outs = self.width if row == len(sides) else features
      # A bottleneck's stride sits in its 3x3 convolution.
      strides = stride if row == (2 if bottleneck else 1) else 1
      conv = nn.Conv2d(ins, outs, side, strides, side // 2, bias=False)
      self.add_module(f'conv{row}', conv)
      self.add_module(f'bn{row}', nn.BatchNorm2d(outs))
      ins = outs
    self.projects = channels != self.width or stride != 1
    if self.projects:
      self.downsample_0 = nn.Conv2d(channels, self.width, 1, stride, bias=False)
      self.downsample_1 = nn.BatchNorm2d(self.width)

  def forward(self, x):
    """Maps [B, C, H, W] to [B, width, H / stride, W / stride]."""
    y = x
    for row in range(1, self.count + 1):
      y = getattr(self, f'bn{row}')(getattr(self, f'conv{row}')(y))
      if row < self.count:
        y = torch.relu_(y)
    if self.projects:
      x = self.downsample_1(self.downsample_0(x))
    return torch.relu_(y + x)


def _create_resnet(config, size, stages, bottleneck):
  modules = {
    'conv1': nn.Conv2d(3, 64, 7, 2, 3, bias=False),
    'bn1': nn.BatchNorm2d(64),
    'relu': nn.ReLU(inplace=True),
    'pool': nn.MaxPool2d(3, 2, 1),
  }
  channels = 64
  for stage, count in enumerate(stages):
    for row in range(count):
      stride = 2 if stage and not row else 1
      block = _Block(channels, 64 * 2**stage, stride, bottleneck)
      modules[f'layer{stage + 1}_{row}'] = block
      channels = block.width
  size = -(-size // 32)  # Five halvings, each rounded up.
  return _sequential(modules), (channels, size, size)


def _create_vgg(config, size, batch_norm):
  modules, channels, index = {}, 3, 0
  for stage, count in enumerate((2, 2, 3, 3, 3)):
    features = min(64 * 2**stage, 512)
    for _ in range(count):
      conv = nn.Conv2d(channels, features, 3, padding=1)
      modules[f'features_{index}'] = conv
      if batch_norm:
        modules[f'features_{index + 1}'] = nn.BatchNorm2d(features)
      index += 3 if batch_norm else 2
      modules[f'features_{index - 1}'] = nn.ReLU(inplace=True)
      channels = features
    modules[f'features_{index}'] = nn.MaxPool2d(2)
    index += 1
  return _sequential(modules), (channels, size // 32, size // 32)


def _resnet(stages, bottleneck):
  return functools.partial(_create_resnet, stages=stages, bottleneck=bottleneck)


# Name -> (block `model`, image size) -> (module, shape of its features).
BACKBONES = {
  'cnn': _create_cnn,
  'levi_hassner': _create_levi_hassner,
  'resnet18': _resnet((2, 2, 2, 2), False),
  'resnet34': _resnet((3, 4, 6, 3), False),
  'resnet50': _resnet((3, 4, 6, 3), True),
  'vgg16': functools.partial(_create_vgg, batch_norm=False),
  'vgg16_bn': functools.partial(_create_vgg, batch_norm=True),
}


def _sequential(modules):
  return nn.Sequential(collections.OrderedDict(modules))


class Net(nn.Module):
  """A shared backbone and a branch per task, as models.multitask has them."""

  def __init__(self, config, size: int, outputs: dict[str, int]):
    """Builds the network.

    Args:
      config: the block `model`.
      size: pixels, height and width, of the input.
      outputs: task name -> number of outputs K.

    Raises:
      errors.UserError: a network that has no peer.
    """
    super().__init__()
    if config.backbone not in BACKBONES or config.conv != 'direct':
      raise errors.UserError(
        f'no PyTorch peer of model.backbone={config.backbone} with '
        f'model.conv={config.conv}; known: {", ".join(BACKBONES)}, direct'
      )
    self.tasks = tuple(outputs)
    self.backbone, shape = BACKBONES[config.backbone](config, size)
    for name, count in outputs.items():
      modules, after = create_stack(config.branch, shape)
      modules['logits'] = Logits(after[0], count)
      self.add_module(f'branch_{name}', _sequential(modules))

  def forward(self, x):
    """Maps normalised images [B, 3, H, W] to task name -> float32 [B, K]."""
    x = self.backbone(x)
    return {name: getattr(self, f'branch_{name}')(x) for name in self.tasks}
