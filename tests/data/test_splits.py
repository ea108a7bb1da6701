import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from agegender_jax.data import images, splits


def test_difference_hash_packs_the_first_bit_highest():
  # Nine columns, eight rows: resizing is the identity.
  grey = np.tile(np.arange(9, dtype=np.uint8)[::-1] * 10, (8, 1))
  grey[0, 1:] = 255  # Row 0 rises once, then stays; the others fall.
  grey[1] = grey[1, ::-1]  # Row 1 rises everywhere.
  value = splits.difference_hash(Image.fromarray(grey))
  assert value == bytes([0x80, 0xFF, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
  'value, expected',
  [
    ('0e1616322a0e0a0c', 6),
    ('f8f2d7dedada5878', 46),
    ('c0b030a4a4a4c0e1', 10),
  ],
)
def test_percent_of_published_hashes(value, expected):
  assert splits.percent(bytes.fromhex(value)) == expected


@pytest.mark.parametrize(
  'name, expected',
  [
    ('100_0_0_20170112213500903.jpg.chip.jpg', '0e1616322a0e0a0c'),
    ('100_0_0_20170112215240346.jpg.chip.jpg', 'f8f2d7dedada5878'),
    ('25_1_2_20170104021958662.jpg.chip.jpg', 'c0b030a4a4a4c0e1'),
  ],
)
def test_difference_hash_of_published_images(name, expected):
  root = pathlib.Path(__file__).parents[2]
  shared = os.environ.get('AGEGENDER_SHARED') or root.parent / 'shared'
  path = pathlib.Path(shared) / 'data' / 'utkface' / name
  if not path.exists():
    pytest.skip('UTKFace is not here; set AGEGENDER_SHARED')
  image = images.load(path)
  assert splits.difference_hash(image).hex() == expected


def test_split_of_cuts_at_20_and_30():
  parts = [splits.split_of(value) for value in (0, 19, 20, 29, 30, 99)]
  expected = ['test'] * 2 + ['validation'] * 2 + ['train'] * 2
  assert parts == expected
