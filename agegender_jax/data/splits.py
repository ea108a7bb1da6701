"""The published split rule: a function of the image alone.

Equal images stay on one side, and no list of files is needed.
"""

import hashlib

import numpy as np
from PIL import Image

PARTS = ('train', 'validation', 'test')


def difference_hash(image: Image.Image) -> bytes:
  """Hashes an image by the signs of its horizontal differences.

  Args:
    image: the stored pixels, not turned upright.

  Returns:
    8 bytes: bit [r, c] is 1 where grey[r, c + 1] > grey[r, c] on an 8 x 9 grid,
    row by row, the most significant bit first.
  """
  small = image.convert('L').resize((9, 8), Image.Resampling.BILINEAR)
  grey = np.asarray(small)
  return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()


def percent(difference: bytes) -> int:
  """Maps a difference hash to 0..99 by its SHA-1's first four bytes."""
  head = hashlib.sha1(difference).digest()[:4]
  return int.from_bytes(head, 'big') % 100


def split_of(value: int) -> str:
  """Returns `test` below 20, `validation` below 30, else `train`."""
  if value < 20:
    return 'test'
  return 'validation' if value < 30 else 'train'
