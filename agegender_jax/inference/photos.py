"""Own pictures: found, read and batched in constant memory."""

import concurrent.futures
import glob
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from absl import logging

from agegender_jax import errors as errors_lib
from agegender_jax.data import images, raw

READ_THREADS = max(4, os.cpu_count() or 1)
# Times the size that is needed: a large JPEG is decoded at no less. Then no
# pixel of the result moves by more than 4 of 255, nor by 0.6 on average
# (tests/test_pictures.py).
DRAFT = 4


def find_images(patterns: Sequence[str]) -> list[str]:
  """Lists pictures.

  Args:
    patterns: files, folders (searched through) or globs.

  Returns:
    Paths, each pattern's in the order of their names.

  Raises:
    errors_lib.UserError: a pattern without any picture.
  """
  paths = []
  for pattern in patterns:
    if os.path.isdir(pattern):
      files, passed_over = raw.list_folder(pattern)
      found = [file.path for file in files]
      if passed_over:
        logging.info('%s: %s', pattern, raw.describe_passed_over(passed_over))
    elif os.path.exists(pattern):
      found = [pattern]  # It is named, whatever its suffix.
    else:
      found = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    if not found:
      raise errors_lib.UserError(f'--images={pattern}: no picture found there')
    paths += found
  return paths


def create_read(data) -> Callable:
  """Creates what reads a picture as a run's configuration says.

  Args:
    data: the block `config.data`.

  Returns:
    A function: path -> (image uint8 [S, S, 3], '') or (None, what is wrong).
  """
  at_least = math.ceil(DRAFT * data.image_size / (1 - 2 * data.crop))
  # A filter may make much of little.
  at_least = 0 if data.filter else at_least

  def read(path):
    try:
      image = images.decode(path, at_least, data.max_megapixels)
      return (
        images.prepare(image, data.image_size, data.crop, data.filter),
        '',
      )
    except Exception as error:  # Pillow raises whatever it met.
      text = str(error)
      if not isinstance(error, images.UnreadableError):
        text = f'{type(error).__name__}: {text}'
      return None, ' '.join(text.split())

  return read


def read_batches(
  paths: Sequence[str],
  batch_size: int,
  size: int,
  read: Callable,
  errors: dict,
) -> Iterator[dict[str, np.ndarray]]:
  """Reads pictures in constant memory, a few batches ahead.

  Args:
    paths: of the pictures.
    batch_size: B; the last batch is padded.
    size: pixels, height and width.
    read: see `create_read`.
    errors: gets path row -> what is wrong, for each unreadable picture.

  Yields:
    `image` uint8 [B, size, size, 3], `mask` float32 [B] (0 for padding and
    unreadable pictures).
  """
  with concurrent.futures.ThreadPoolExecutor(READ_THREADS) as pool:
    starts = iter(range(0, len(paths), batch_size))

    def submit(start):
      part = paths[start : start + batch_size]
      return start, [pool.submit(read, path) for path in part]

    waiting = [submit(start) for start in itertools.islice(starts, 2)]
    while waiting:
      start, futures = waiting.pop(0)
      image = np.zeros((batch_size, size, size, 3), np.uint8)
      mask = np.zeros((batch_size,), np.float32)
      for row, future in enumerate(futures):
        picture, error = future.result()
        if error:
          errors[start + row] = error
        else:
          image[row], mask[row] = picture, 1
      waiting += [submit(start) for start in itertools.islice(starts, 1)]
      yield {'image': image, 'mask': mask}
