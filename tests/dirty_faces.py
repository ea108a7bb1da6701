"""Writes a small UTKFace with one of everything that can be wrong."""

import io
import itertools

import faces_on_disk
import numpy as np
from PIL import Image

from agegender_jax.data import splits


def name(labels, number, ending='.jpg.chip.jpg'):
  return f'{labels}_{number:017d}{ending}'


def grid_png(grey):
  """Returns a PNG whose difference hash is that of its 8 x 9 grey levels."""
  stream = io.BytesIO()
  Image.fromarray(grey).save(stream, 'PNG')
  return stream.getvalue()


def grids_in_two_parts():
  """Returns two images one bit apart, one in test and one in train."""
  for seed in itertools.count():
    grey = np.random.default_rng(seed).integers(60, 200, (8, 9), np.uint8)
    other = grey.copy()
    other[7, 8] = grey[7, 7] + (1 if grey[7, 8] <= grey[7, 7] else 0)
    pair = [
      splits.split_of(splits.percent(splits.difference_hash(
        Image.fromarray(each))))
      for each in (grey, other)
    ]  # fmt: skip
    close = np.abs(grey.astype(int) - other).max() < 100
    if pair == ['test', 'train'] and close:
      return grid_png(grey), grid_png(other)


def write(folder) -> None:
  """Writes 20 whole images and twelve of the others."""
  faces_on_disk.write_utkface(folder, 20)  # Images 0 to 19.
  same, resaved, agreeing = (faces_on_disk.jpeg(n) for n in (100, 101, 102))
  image = Image.open(io.BytesIO(resaved))
  stream = io.BytesIO()
  image.save(stream, 'JPEG', quality=70)
  test, train = grids_in_two_parts()
  for filename, data in {
    name('30_0_1', 50): same,
    name('30_1_1', 51): same,
    name('47_0_1', 52): same,
    # Agrees as far as it is known: the gender is missing.
    name('12', 53).replace('12_', '12_2_'): agreeing,
    name('12_1_2', 54): agreeing,
    name('20_0_0', 60): resaved,
    name('28_0_0', 61): stream.getvalue(),
    name('40_0_0', 70, '.png'): test,
    name('43_0_0', 71, '.png'): train,
    name('33_1_1', 80): b'no image',
    # Identical to another one, though its name has no labels.
    'portrait.jpg': faces_on_disk.jpeg(5),
    name('25_0_0', 90, ' .jpg.chip.jpg'): faces_on_disk.jpeg(103),
  }.items():
    (folder / filename).write_bytes(data)
