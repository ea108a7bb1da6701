"""Brings weights in torchvision's naming into variables, by one rule.

Every backbone names its submodules after torchvision, so that no family needs
a table: `layer1.0.conv1.weight` is `layer1_0/conv1/kernel`, its axes turned
from [out, in, h, w] to [h, w, in, out]. timm's ResNets share these names.
torchvision's ImageNet weights want data.normalize = 'imagenet'.
"""

import importlib
import os
import pathlib
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from agegender_jax import errors, files
from agegender_jax.models import torch_pickle

_HUB = 'hf:'
_HUB_FILES = ('model.safetensors', 'pytorch_model.bin')
_STATISTICS = {'running_mean': 'mean', 'running_var': 'var'}
# Under these a training checkpoint keeps the state dict.
_NESTED = ('state_dict', 'model_state_dict', 'model', 'net')
# What wrappers put before every name: DataParallel, Lightning, compile, MoCo.
_PREFIXES = ('module.', 'model.', 'backbone.', 'net.', '_orig_mod.', 'encoder_q.')


class Origin(NamedTuple):
  """A file of weights, as a run records it."""

  source: str  # What the user named.
  path: str  # Of the file on this machine.
  revision: str  # The repository's commit; '' for a local file.
  sha256: str  # Of the file, hexadecimal.


def locate(source: str) -> Origin:
  """Finds a file of weights, downloading it where the source is a repository.

  Args:
    source: a path, or `hf:owner/name`, `hf:owner/name@revision`.

  Raises:
    errors.UserError: no such file, or the download failed.
  """
  revision = ''
  if source.startswith(_HUB):
    path, revision = _download(source[len(_HUB) :])
  else:
    path = os.path.expanduser(source)
  if not os.path.isfile(path):
    raise errors.UserError(f'no such file of weights: {source}')
  return Origin(source, path, revision, files.sha256(path))


def _download(name):
  """Returns the local path and the commit of a repository's weights."""
  huggingface_hub = errors.import_extra('huggingface_hub', 'hub', _HUB + name)
  hub_errors = importlib.import_module('huggingface_hub.errors')
  repo, _, revision = name.partition('@')
  # The hub's own retries take half a minute for a file.
  constants = importlib.import_module('huggingface_hub.constants')
  offline = not _is_reachable(constants.ENDPOINT)
  for file in _HUB_FILES:
    try:
      path = huggingface_hub.hf_hub_download(
        repo, file, revision=revision or None, local_files_only=offline
      )
      # .../snapshots/<commit>/<file>
      return path, pathlib.Path(path).parent.name
    except hub_errors.LocalEntryNotFoundError:
      raise errors.UserError(
        f'{_HUB}{name} cannot be reached and is not in the cache: check the '
        'network, or download the file elsewhere and give its path'
      ) from None
    except hub_errors.EntryNotFoundError:
      continue
    except (OSError, ValueError) as error:
      raise errors.UserError(f'{_HUB}{name}: {errors.one_line(error)}') from None
  raise errors.UserError(f'{_HUB}{name} has none of {", ".join(_HUB_FILES)}')


def _is_reachable(url):
  """Returns True if a server answers within seconds, whatever it answers."""
  try:
    urllib.request.urlopen(urllib.request.Request(url, method='HEAD'), timeout=5)
  except urllib.error.HTTPError:
    return True
  except OSError:
    return False
  return True


def load_state(path: str) -> dict[str, np.ndarray]:
  """Reads a state dict; no torch is needed.

  Args:
    path: of a .pth, .pt, .bin, .safetensors or .npz file.

  Returns:
    {torch name: array}, in the file's order.

  Raises:
    errors.UserError: the file is missing, damaged, malicious, or no state dict.
  """
  suffix = pathlib.Path(path).suffix
  if suffix not in _READERS:
    raise errors.UserError(
      f'{path}: weights are {", ".join(_READERS)} files, not "{suffix}"'
    )
  try:
    state = _READERS[suffix](path)
  except (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    ValueError,
    EOFError,
    MemoryError,
  ) as error:
    raise errors.UserError(
      f'{path} is truncated or damaged ({errors.one_line(error)}): fetch it again'
    ) from None
  return _checked(state, path)


def _checked(state, path):
  """Returns the state dict within what a file held."""
  for key in _NESTED:
    if isinstance(state, dict) and isinstance(state.get(key), dict):
      state = state[key]
  if not isinstance(state, dict) or not state:
    raise errors.UserError(f'{path} holds no state dict')
  for key, value in state.items():
    if not isinstance(key, str) or not isinstance(value, np.ndarray):
      raise errors.UserError(f'{path}: {key!r} is no tensor')
  return state


def _read_safetensors(path):
  try:
    return safetensors.numpy.load_file(path)
  except safetensors.SafetensorError as error:
    raise ValueError(str(error)) from None
  except (AttributeError, KeyError) as error:
    raise errors.UserError(
      f'{path} holds tensors of a type that NumPy lacks ({errors.one_line(error)}): '
      'save it again as float32'
    ) from None


def _read_npz(path):
  file = np.load(path, allow_pickle=False)
  if isinstance(file, np.ndarray):
    return file  # A renamed .npy, which `_checked` refuses.
  with file:
    return dict(file)


_READERS = {
  '.pth': torch_pickle.load,
  '.pt': torch_pickle.load,
  '.bin': torch_pickle.load,
  '.safetensors': _read_safetensors,
  '.npz': _read_npz,
}


def port(
  state: Mapping[str, np.ndarray],
  variables: Mapping[str, Any],
  excuse: Iterable[str] = (),
) -> dict[str, Any]:
  """Returns the variables of a net with the values of a torch state dict.

  Args:
    state: {torch name: array}; `num_batches_tracked` is ignored, and prefixes
      of wrappers are taken off where what remains names a variable.
    variables: {'params': ..., 'batch_stats': ...} of one backbone; gives
      names, shapes and dtypes.
    excuse: names or leading parts of names (`fc`, `layer4_0`, `fc/kernel`, as
      in the params) that may be missing from the state, left over in it, or
      of another shape; what does not fit stays as it is in `variables`, the
      same object.

  Raises:
    errors.UserError: a key's shape differs, or keys are missing or left over
      and not excused; two keys name one variable; a value is not finite; or
      nothing fits at all.
  """
  excuse = tuple(name.strip('/').replace('.', '/') for name in excuse)
  wanted = traverse_util.flatten_dict(dict(variables))
  found, extra = {}, set()
  for key, value in state.items():
    if key.endswith('num_batches_tracked'):
      continue
    path = _target(_without_prefixes(key, value.ndim, wanted), value.ndim)
    if path not in wanted:
      if not _excused(path, excuse):
        extra.add(path)
      continue
    shape, turned = wanted[path].shape, _turn(value)
    if turned.shape == shape:
      if path in found:
        raise errors.UserError(
          f'{key}: another tensor of the file has the same name but for its prefix'
        )
      found[path] = turned.astype(wanted[path].dtype)
      if not np.isfinite(found[path]).all():
        raise errors.UserError(
          f'{key} holds values that are not finite: the weights are damaged'
        )
    elif not _excused(path, excuse):
      raise errors.UserError(
        f'{key} has shape {value.shape}, but the net wants '
        f'{_turned_shape(shape)}: are these the weights of another net?'
      )
  missing = {
    path for path in wanted if path not in found and not _excused(path, excuse)
  }
  if missing or extra:
    raise errors.UserError(
      f'the weights do not fit the net: missing {_modules(missing)}; left over '
      f'{_modules(extra)}; excuse those by model.init_excuse, or load the '
      'weights of this net'
    )
  if not found:
    raise errors.UserError(
      'no tensor of the weights fits the net, all are excused: shorten '
      'model.init_excuse, or load the weights of this net'
    )
  return traverse_util.unflatten_dict(wanted | found)


def count_loaded(
  keys: Iterable[str], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, int]:
  """Counts the tensors that were taken, as by `port`.

  Args:
    keys: of the file or run that they are taken from.
    before: the variables.
    after: the same with what was taken; all else are the same objects.

  Returns:
    `tensors` of the net, how many of them are `loaded`, and how many of the
    file's are `excused`.
  """
  old, new = (traverse_util.flatten_dict(dict(tree)) for tree in (before, after))
  loaded = sum(new[path] is not old[path] for path in old)
  held = sum(not key.endswith('num_batches_tracked') for key in keys)
  return {'tensors': len(old), 'loaded': loaded, 'excused': held - loaded}


def _excused(path, excuse):
  """Returns True if one of the names leads the path below its collection."""
  name = '/'.join(path[1:]) + '/'
  return any(name.startswith(f'{prefix}/') for prefix in excuse)


def _without_prefixes(key, rank, wanted):
  """Returns a key without its prefixes, if what remains names a variable."""
  rest = key
  while _target(rest, rank) not in wanted:
    prefix = next((p for p in _PREFIXES if rest.startswith(p)), None)
    if prefix is None:
      return key
    rest = rest.removeprefix(prefix)
  return rest


def _target(key, rank):
  """Returns the path in the variables of torch's `key` of that rank."""
  *modules, leaf = key.split('.')
  path = []
  for name in modules:
    if name.isdigit() and path:
      path[-1] += f'_{name}'  # A row of an nn.Sequential.
    else:
      path.append(name)
  if leaf in _STATISTICS:
    return ('batch_stats', *path, _STATISTICS[leaf])
  if leaf == 'weight':
    # Normalisation is the only layer whose weight is a vector.
    leaf = 'scale' if rank == 1 else 'kernel'
  return ('params', *path, leaf)


def _turn(value):
  """Turns [out, in, h, w] to [h, w, in, out] and [out, in] to [in, out]."""
  return np.moveaxis(value, (0, 1), (-1, -2)) if value.ndim > 1 else value


def _turned_shape(shape):
  """Returns torch's shape for one of this package."""
  return (*shape[:-3:-1], *shape[:-2]) if len(shape) > 1 else shape


def _modules(paths):
  """Lists the first parts of paths below their collection, each once."""
  return ', '.join(sorted({path[1] for path in paths})) or 'none'
