"""The backbone as a state dict in torchvision's naming.

The inverse of `pretrained.port`: `layer1_0/conv1/kernel`, [h, w, in, out], becomes
`layer1.0.conv1.weight`, [out, in, h, w].
"""

import pathlib
import re

import jax
import numpy as np
import safetensors.numpy
from flax import traverse_util

from agegender_jax import errors, files
from agegender_jax.models import pretrained

FAMILIES = ('resnet', 'vgg')
_LEAVES = {
  'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean',
  'var': 'running_var',
}  # fmt: skip


def state_dict(variables) -> dict[str, np.ndarray]:
  """Returns the state dict of a backbone's variables.

  Args:
    variables: `params` and `batch_stats` of a ResNet or VGG.
  """
  result = {}
  for path, value in traverse_util.flatten_dict(variables).items():
    *modules, leaf = path[1:]
    # A number after `_` is torch's place in an nn.Sequential.
    name = '.'.join(re.sub(r'_(\d+)$', r'.\1', module) for module in modules)
    value = np.asarray(value)
    if value.ndim > 1:
      value = np.moveaxis(value, (-1, -2), (0, 1))
    result[f'{name}.{_LEAVES[leaf]}'] = np.ascontiguousarray(value)
    if leaf == 'mean':
      result[f'{name}.num_batches_tracked'] = np.zeros((), np.int64)
  return result


def write(network, path: pathlib.Path) -> str:
  """Writes the backbone of an api.Predictor; see `export`."""
  name = network.info['backbone']
  if not name.startswith(FAMILIES):
    raise errors.UserError(
      f'torch: the backbone {name} has no counterpart in torchvision; those of '
      f'{" and ".join(FAMILIES)} have'
    )
  variables = {key: tree['backbone'] for key, tree in network.variables.items() if tree}
  state = state_dict(variables)
  content = safetensors.numpy.save(state)
  again = pretrained.port(safetensors.numpy.load(content), variables)
  for one, other in zip(
    jax.tree.leaves(again), jax.tree.leaves(variables), strict=True
  ):
    if not np.array_equal(one, other):
      raise errors.UserError('torch: what is read back differs: not kept')
  files.write_whole(path, content)
  return (
    f'{path}: {len(content) / 1e6:.1f} MB, the backbone in torchvision naming, read '
    'back to the same bits; heads are not in it'
  )
