"""A recipe's network in PyTorch, timed beside the package's.

ResNets and VGGs are torchvision's. Modules carry the names of the package's
parameter tree, so that one rule maps weights and `optimizer.freeze` applies.
"""

import collections
import contextlib

import numpy as np
import torch
from torch import nn

from agegender_jax import config as config_lib
from agegender_jax import errors

# A torchvision built for CUDA registers no operators on a CPU-only torch, and
# stops at the first that it wants to describe.
_library = torch.library.Library('torchvision', 'FRAGMENT')
for _name in ('nms', 'qnms'):
  with contextlib.suppress(RuntimeError):
    _library.define(f'{_name}(Tensor dets, Tensor scores, float t) -> Tensor')

import torchvision  # noqa: E402


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


def _create_resnet(config, size):
  net = getattr(torchvision.models, config.backbone)()
  side = -(-size // 32)  # Five halvings, each rounded up.
  shape = (net.fc.in_features, side, side)
  del net.avgpool, net.fc
  return _sequential(dict(net.named_children())), shape


def _create_vgg(config, size):
  net = getattr(torchvision.models, config.backbone)()
  return _sequential({'features': net.features}), (512, size // 32, size // 32)


# Name -> (block `model`, image size) -> (module, shape of its features).
BACKBONES = {
  'cnn': _create_cnn,
  'levi_hassner': _create_levi_hassner,
  **{f'resnet{depth}': _create_resnet for depth in (18, 34, 50, 101, 152)},
  **dict.fromkeys(('vgg16', 'vgg16_bn'), _create_vgg),
}


# Fields of the block `model` that torchvision's ResNets have not.
_OF_OURS = ('width', 'first_pool', 'squeeze_excite', 'resnet_d', 'drop_path')


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
    known = config_lib.default_config().model
    changed = [f'model.{name}' for name in _OF_OURS if config[name] != known[name]]
    if changed:
      raise errors.UserError(f'no PyTorch peer of a network with {", ".join(changed)}')
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
