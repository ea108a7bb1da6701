"""Reads torch's `.pth` files without torch, tensors and nothing else.

A `.pth` file is a pickle, and unpickling one runs whatever code its author
wrote into it. This reader knows the few names that a state dict of tensors is
made of and refuses every other, in both of torch's formats: the zip archive
(since 1.6) and the older stream of pickles.
"""

import collections
import io
import os
import pickle
import struct
import zipfile
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from agegender_jax import errors, files

_DTYPES = {
  'FloatStorage': np.float32,
  'DoubleStorage': np.float64,
  'HalfStorage': np.float16,
  'BFloat16Storage': ml_dtypes.bfloat16,
  'LongStorage': np.int64,
  'IntStorage': np.int32,
  'ShortStorage': np.int16,
  'CharStorage': np.int8,
  'ByteStorage': np.uint8,
  'BoolStorage': np.bool_,
}
# First pickle of the older format.
_MAGIC = 0x1950A86A20F9469CFC6C
# What unpickling raises on damaged bytes.
_DAMAGE = (
  pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, OSError,
  LookupError, ValueError, TypeError, AttributeError, ArithmeticError,
  MemoryError, RecursionError, NotImplementedError,
)  # fmt: skip


class _StorageType(NamedTuple):
  """Stands for `torch.FloatStorage` and its like."""

  name: str


class _Storage(NamedTuple):
  """A span of a buffer; `offset` and `size` count elements."""

  key: str
  dtype: Any
  offset: int
  size: int


class _Tensor(NamedTuple):
  """A view of a storage, read once all storages are known."""

  storage: _Storage
  offset: int
  shape: tuple
  strides: tuple


def _rebuild_tensor(storage, offset, shape, strides, *_):
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor, *_):
  return tensor


_ALLOWED = {
  ('collections', 'OrderedDict'): collections.OrderedDict,
  ('torch', 'Size'): tuple,
  ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
} | {('torch', name): _StorageType(name) for name in _DTYPES}


class _RefusedError(Exception):
  """The pickle names something that is no part of a state dict."""


class _Unpickler(pickle.Unpickler):
  """Unpickles the names in `_ALLOWED` only."""

  def find_class(self, module, name):
    try:
      return _ALLOWED[module, name]
    except KeyError:
      raise _RefusedError(f'{module}.{name}') from None

  def persistent_load(self, pid):
    kind, storage_type, key, _, size, *view = pid
    if kind != 'storage' or not isinstance(storage_type, _StorageType):
      raise _RefusedError(f'a persistent {kind}')
    dtype = np.dtype(_DTYPES[storage_type.name])
    # The older format's view: (its own key, offset, size).
    offset, size = view[0][1:] if view and view[0] else (0, size)
    return _Storage(str(key), dtype, offset, size)


def load(path: str) -> Any:
  """Reads a `.pth` file's object, every tensor as an array.

  Args:
    path: of a file that `torch.save` wrote.

  Returns:
    What was saved: dicts, lists and numbers as they are, tensors as arrays of
    their own (bfloat16 is ml_dtypes').

  Raises:
    errors.UserError: no such file; a damaged one; or one that holds anything
      but tensors and plain values.
  """
  try:
    files.check_regular(path)
    with open(path, 'rb') as file:
      is_zip = file.read(4) == b'PK\x03\x04'
      file.seek(0)
      value, buffers = _read_zip(file) if is_zip else _read_stream(file)
    return _resolve(value, buffers)
  except FileNotFoundError:
    raise errors.UserError(f'no such file: {path}') from None
  except _RefusedError as error:
    raise errors.UserError(
      f'{path} is refused: its pickle asks for {error}, which no file of '
      'weights needs; save the state dict alone, or use .safetensors'
    ) from None
  except _DAMAGE as error:
    raise errors.UserError(
      f'{path} is truncated or no .pth file of weights '
      f'({errors.one_line(error, 100)}): fetch it again'
    ) from None


def _read_zip(file):
  """Returns the object and {storage key: raw array} of a zip archive."""
  archive = zipfile.ZipFile(file)
  names = {name.partition('/')[2]: name for name in archive.namelist()}
  order = '<'
  if 'byteorder' in names:
    order = {b'little': '<', b'big': '>'}[archive.read(names['byteorder'])]
  if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
    raise ValueError('torch stores, it does not compress')
  value = _Unpickler(io.BytesIO(archive.read(names['data.pkl']))).load()

  def buffer(storage):
    content = archive.read(names[f'data/{storage.key}'])
    return np.frombuffer(content, storage.dtype.newbyteorder(order))

  return value, {s.key: buffer(s) for s in _storages(value)}


def _read_stream(file):
  """Returns the object and {storage key: raw array} of the older format."""
  if _Unpickler(file).load() != _MAGIC:
    raise ValueError('not written by torch.save')
  _Unpickler(file).load()  # The protocol's version.
  order = '<' if _Unpickler(file).load()['little_endian'] else '>'
  value = _Unpickler(file).load()
  keys = _Unpickler(file).load()
  dtypes = {s.key: s.dtype.newbyteorder(order) for s in _storages(value)}
  left = os.fstat(file.fileno()).st_size - file.tell()
  buffers = {}
  for key in keys:
    size = struct.unpack(order + 'q', file.read(8))[0]
    length = size * dtypes[key].itemsize
    left -= 8 + length
    if size < 0 or left < 0:
      raise EOFError(f'storage {key} is cut short')
    buffers[key] = np.frombuffer(file.read(length), dtypes[key])
  return value, buffers


def _storages(value):
  """Yields the storages of the tensors within a value."""
  if isinstance(value, _Tensor):
    yield value.storage
  elif isinstance(value, dict):
    for item in value.values():
      yield from _storages(item)
  elif isinstance(value, list | tuple):
    for item in value:
      yield from _storages(item)


def _resolve(value, buffers):
  """Returns the value with arrays for tensors."""
  if isinstance(value, _Tensor):
    return _array(value, buffers[value.storage.key])
  if isinstance(value, dict):
    return {key: _resolve(item, buffers) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_resolve(item, buffers) for item in value]
  return value


def _array(tensor, buffer):
  """Returns the tensor's own copy, never reaching past its storage."""
  start, size = tensor.storage.offset, tensor.storage.size
  storage = buffer[start : start + size]
  shape, strides = tensor.shape, tensor.strides
  last = tensor.offset + sum(
    (n - 1) * stride for n, stride in zip(shape, strides, strict=True)
  )
  count = int(np.prod(shape, dtype=object)) if shape else 1
  if min((*shape, *strides, start, tensor.offset), default=0) < 0:
    raise ValueError('a tensor with a negative size')
  # More elements than the storage has: a few bytes could fill the memory.
  if count > storage.size or (count and last >= storage.size):
    raise ValueError('a tensor reaches past its storage')
  if not count:
    return np.zeros(shape, tensor.storage.dtype)
  view = np.lib.stride_tricks.as_strided(
    storage[tensor.offset :],
    shape,
    [stride * storage.itemsize for stride in strides],
    writeable=False,
  )
  return view.astype(tensor.storage.dtype)
