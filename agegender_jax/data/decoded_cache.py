"""Pixels by row: decoded once to a memory-mapped file, or every time.

What is written is sealed with its digest: a damaged file is made again.
"""

import concurrent.futures
import contextlib
import fcntl
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import tqdm
from absl import logging

from agegender_jax import errors, files
from agegender_jax.data import images, raw

_CHUNK = 64  # Images that a thread takes at once.
_ALIGNMENT = 64  # Bytes; what begins at a multiple JAX takes as it is on a CPU.


class Pixels:
  """Rows of several parts, one after the other.

  Attributes:
    parts: files or records.
    options: how they are read.
  """

  def __init__(self, parts: list, lengths: list[int], options: tuple = ()):
    """Keeps the parts, of so many rows each."""
    self.parts, self.options = parts, options
    self._ends = np.cumsum(lengths)
    self._starts = (self._ends - lengths).tolist()

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __reduce__(self):
    # A worker process opens the parts again: pickling would copy the pixels.
    return type(self), (self.parts, *self.options)

  @classmethod
  def join(cls, others: 'list[Pixels]') -> 'Pixels':
    """Returns the rows of all others, one after the other."""
    parts = [part for other in others for part in other.parts]
    return cls(parts, *others[0].options)


class MemmapPixels(Pixels):
  """Rows of several memory-mapped arrays."""

  def __init__(self, paths: list[pathlib.Path]):
    """Opens the arrays, .npy files, each uint8 [N_i, S, S, 3]."""
    # A plain view: slicing np.memmap itself costs more than the copy.
    self._arrays = [np.load(path, mmap_mode='r').view(np.ndarray) for path in paths]
    lengths = [len(array) for array in self._arrays]
    super().__init__(paths, lengths)
    self._largest = int(np.argmax(lengths))

  def gather(self, rows: np.ndarray) -> np.ndarray:
    """Copies rows, int [B], into a fresh uint8 [B, S, S, 3]."""
    result = _empty_pixels(len(rows), self._arrays[0].shape[1])
    # One call for the largest file: a call per row lets go of the interpreter
    # each time, and the thread that prefetches waits for it. Rows of other
    # files, clipped for now, follow.
    array, start = self._arrays[self._largest], self._starts[self._largest]
    np.take(array, rows - start, axis=0, out=result, mode='clip')
    parts = np.searchsorted(self._ends, rows, side='right')
    for place in np.flatnonzero(parts != self._largest).tolist():
      part = parts[place]
      result[place] = self._arrays[part][rows[place] - self._starts[part]]
    return result


class RecordPixels(Pixels):
  """Rows of several record files, decoded when asked for."""

  def __init__(self, records: list, size: int, crop: float, filter_name: str = ''):
    """Keeps the records, whose examples have an encoded `image`; see images.prepare."""
    lengths = [len(record) for record in records]
    super().__init__(records, lengths, (size, crop, filter_name))
    self._pool = None

  def gather(self, rows: np.ndarray) -> np.ndarray:
    """Decodes rows, int [B], into a fresh uint8 [B, S, S, 3]."""
    if self._pool is None:
      self._pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    result = _empty_pixels(len(rows), self.options[0])
    for place, pixels in enumerate(self._pool.map(self._decode, rows)):
      result[place] = pixels
    return result

  def _decode(self, row):
    part = int(np.searchsorted(self._ends, row, side='right'))
    local = int(row) - self._starts[part]
    return _decode_record(self.parts[part], local, *self.options)


def _empty_pixels(count, size):
  """Returns a uint8 [count, size, size, 3] that a CPU device need not copy."""
  shape = (count, size, size, 3)
  memory = np.empty(math.prod(shape) + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  return memory[start : start + math.prod(shape)].reshape(shape)


def _decode_record(records, row, size, crop, filter_name):
  """Decodes one record's image to uint8 [size, size, 3]."""
  # Its size was checked when it was prepared.
  image = images.decode(records[row]['image'], max_megapixels=math.inf)
  return images.prepare(image, size, crop, filter_name)


def write_pixels(
  path: pathlib.Path, records, size: int, crop: float, filter_name: str = ''
) -> None:
  """Writes the decoded images of a split to a .npy file, unless it is there.

  Args:
    path: of the .npy file, uint8 [N, size, size, 3].
    records: data source whose examples have an encoded `image`.
    size: height and width, pixels.
    crop: fraction of the side cut from each edge.
    filter_name: key of images.FILTERS.

  Raises:
    errors.UserError: the disk is too small.
  """
  shape = (len(records), size, size, 3)

  def write(temporary):
    _check_space(path.parent, int(np.prod(shape)))
    pixels = np.lib.format.open_memmap(
      temporary, mode='w+', dtype=np.uint8, shape=shape
    )
    # A page without a block on a full disk would be a bus error, not an exception.
    if hasattr(os, 'posix_fallocate'):  # Not on macOS.
      with open(temporary, 'r+b') as file:
        os.posix_fallocate(file.fileno(), 0, os.path.getsize(temporary))

    def fill(start):
      rows = range(start, min(start + _CHUNK, len(records)))
      for row in rows:
        pixels[row] = _decode_record(records, row, size, crop, filter_name)
      return len(rows)

    title = f'{path.stem}: decoding at {size} px'
    with (
      progress_bar(len(records), title) as bar,
      concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
      for count in pool.map(fill, range(0, len(records), _CHUNK)):
        bar.update(count)
    pixels.flush()

  write_once(path, write)


def progress_bar(total: int, title: str) -> tqdm.tqdm:
  """Creates a progress bar, which shows on a terminal only."""
  return tqdm.tqdm(total=total, desc=title, unit=' images', disable=None)


def read_columns(path: pathlib.Path, records) -> dict[str, list]:
  """Reads every column of a split but the images, kept in a JSON file.

  Args:
    path: of the JSON file, written unless it is there.
    records: data source.

  Returns:
    Column name -> values by row.
  """

  def write(temporary):
    columns = {}
    for row in range(len(records)):
      for key, value in records[row].items():
        if key != 'image':
          value = value.decode() if isinstance(value, bytes) else value
          columns.setdefault(key, []).append(value)
    temporary.write_text(json.dumps(columns, default=lambda x: x.item()))

  write_once(path, write)
  return json.loads(path.read_text())


def write_once(path: pathlib.Path, write: Callable[[pathlib.Path], None]) -> None:
  """Writes a file that is either there and whole, or made.

  Args:
    path: of the file; nothing is done where it is whole.
    write: writes the file to the path that it is given.

  Raises:
    errors.UserError: the folder cannot be written.
  """
  if is_whole(path):
    return
  with exclusive(path):
    if is_whole(path):  # Another process wrote it while this one waited.
      return
    # Locked, so the name is fixed: what a killed process left is written over.
    temporary = path.with_name(f'{path.name}.unfinished')
    write(temporary)
    files.sync(temporary)
    os.replace(temporary, path)
    files.sync(path.parent)
    seal(path)


def is_whole(path: pathlib.Path) -> bool:
  """Returns True if a file or folder is what was sealed.

  A file whose size and times are those of its seal is not read again. Damage
  is logged.
  """
  if not path.exists():
    return False
  with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
    kept = json.loads(_seal_path(path).read_text())
    found = raw.stamp_and_digest(_contents(path), kept)
    if all(found[name][3] == value[3] for name, value in kept.items()):
      if found != kept:  # Copied or touched: only the times are others.
        _write_seal(path, found)
      return True
  logging.warning('"%s" is damaged or unfinished and is made again', path)
  return False


def seal(path: pathlib.Path) -> None:
  """Keeps sizes, times and digests of a file, or of a folder's files."""
  _write_seal(path, raw.stamp_and_digest(_contents(path), {}))


def _contents(path):
  paths = [path] if path.is_file() else [p for p in path.iterdir() if p.is_file()]
  return {each.name: each for each in paths}


def _write_seal(path, found):
  with contextlib.suppress(OSError):  # The next start reads the files again.
    files.write_whole(_seal_path(path), json.dumps(found))


def _seal_path(path):
  return path.with_name(f'.{path.name}.seal')


@contextlib.contextmanager
def exclusive(path: pathlib.Path):
  """Holds a lock beside a path, so that one process at a time makes it.

  Args:
    path: what is to be made; its folder is created.

  Raises:
    errors.UserError: the folder cannot be written.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.with_name(f'.{path.name}.lock').open('w')
  except OSError as error:
    raise errors.UserError(
      f'cannot write to "{path.parent}" ({error.strerror}); '
      f'give another config.data.data_dir'
    ) from error
  with stream:
    # The system releases it when the process ends, however it ends.
    try:
      fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      logging.warning('another process makes "%s": waiting for it', path)
      fcntl.flock(stream, fcntl.LOCK_EX)
    yield


def _check_space(folder, needed):
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise errors.UserError(
      f'the decoded images take {needed / 1e9:.1f} GB, "{folder}" has '
      f'{free / 1e9:.1f} GB free; give another config.data.data_dir, a '
      f'smaller image_size or --config.data.cache=none'
    )
