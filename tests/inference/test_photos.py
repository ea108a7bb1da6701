import os
import threading

import faces_on_disk
import numpy as np
import pytest
from PIL import Image

from agegender_jax import config as config_lib
from agegender_jax import errors as errors_lib
from agegender_jax.data import images
from agegender_jax.inference import photos


def data_of(size=16, **fields):
  data = config_lib.default_config().data
  data.image_size = size
  data.update(fields)
  return data


def smooth(width, height, seed=0):
  """Draws coloured hills with some texture, as photos have."""
  random = np.random.default_rng(seed)
  small = Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8))
  big = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
  noise = random.integers(-6, 7, (height, width, 1))
  return Image.fromarray(np.clip(big + noise, 0, 255).astype(np.uint8))


def test_folders_globs_and_files_are_found_by_name(tmp_path):
  faces_on_disk.write_utkface(tmp_path / 'b', 2)
  (tmp_path / 'b' / 'note.txt').write_text('')
  (tmp_path / 'b' / '.hidden.jpg').write_bytes(b'')
  (tmp_path / 'a').mkdir()
  for name in ('z.HEIC', 'y.webp', 'x.bin'):
    (tmp_path / 'a' / name).write_bytes(b'x')

  def found(*patterns):
    paths = photos.find_images([str(tmp_path / p) for p in patterns])
    return [os.path.relpath(path, tmp_path) for path in paths]

  faces = sorted(os.listdir(tmp_path / 'b'))[1:3]
  assert found('') == ['a/y.webp', 'a/z.HEIC', *(f'b/{f}' for f in faces)]
  assert found('a/x.bin', 'b/*.jpg') == ['a/x.bin', *(f'b/{f}' for f in faces)]
  with pytest.raises(errors_lib.UserError, match=r'c/\*: no picture'):
    found('b', 'c/*')


@pytest.mark.parametrize(
  'mode, suffix, tolerance',
  [
    ('L', 'png', 0), ('RGB', 'png', 0), ('RGBA', 'png', 0), ('P', 'gif', 0),
    ('LA', 'png', 0), ('1', 'png', 0), ('I;16', 'png', 0), ('I;16', 'tif', 0),
    ('F', 'tif', 0), ('CMYK', 'tif', 0), ('CMYK', 'jpg', 3), ('RGB', 'bmp', 0),
    ('RGB', 'webp', 3), ('YCbCr', 'jpg', 3),
  ],
)  # fmt: skip
def test_pictures_of_any_mode_are_read(tmp_path, mode, suffix, tolerance):
  # White: it is the same in every mode but that of floats, which is grey.
  value = {'I;16': 65535, 'F': 255.0, 'CMYK': (0, 0, 0, 0)}.get(mode)
  image = Image.new('RGB', (31, 20), 'white')
  if mode in ('I;16', 'F', 'CMYK'):
    image = Image.new(mode, (31, 20), value)
  else:
    image = image.convert(mode)
  path = tmp_path / f'a.{suffix}'
  image.save(path)
  pixels, error = photos.create_read(data_of())(str(path))
  assert not error
  assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
  assert pixels.min() >= 255 - tolerance


def test_rotated_and_animated_pictures_show_their_first_upright_frame(tmp_path):
  left_dark = np.zeros((32, 32, 3), np.uint8)
  left_dark[:, 16:] = 255
  image = Image.fromarray(left_dark)
  exif = Image.Exif()
  exif[0x0112] = 6  # Turned clockwise by a viewer: its left is up.
  image.save(tmp_path / 'r.png', exif=exif)
  read = photos.create_read(data_of())
  pixels, _ = read(str(tmp_path / 'r.png'))
  assert pixels[0].max() < 60 and pixels[-1].min() > 195
  frames = [Image.new('L', (20, 20), value) for value in (200, 20)]
  frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
  pixels, _ = read(str(tmp_path / 'a.gif'))
  np.testing.assert_array_equal(pixels, 200)


def test_what_cannot_be_read_is_an_error_of_one_line(tmp_path):
  whole = faces_on_disk.jpeg(0, 64)
  files = {
    'text.jpg': b'no picture\n', 'empty.png': b'', 'cut.jpg': whole[:700],
    'iphone.heic': b'\0\0\0\x18ftypheic' + bytes(64),
  }  # fmt: skip
  read = photos.create_read(data_of())
  for name, content in files.items():
    (tmp_path / name).write_bytes(content)
    image, error = read(str(tmp_path / name))
    assert image is None and error and '\n' not in error, name
  (tmp_path / 'folder.jpg').mkdir()
  for name in ('absent.jpg', 'folder.jpg'):
    image, error = read(str(tmp_path / name))
    assert image is None and 'Error' in error


@pytest.mark.parametrize('side', [700, 1100, 2000])
def test_a_large_jpeg_is_read_at_less_and_hardly_differs(tmp_path, side):
  path = tmp_path / 'large.jpg'
  smooth(side * 4 // 3, side).save(path, quality=90)
  data = data_of(64)
  fast, _ = photos.create_read(data)(str(path))
  full = images.prepare(images.decode(str(path)), 64)
  difference = np.abs(fast.astype(int) - full)
  assert difference.max() <= 4 and difference.mean() <= 0.6
  stored = images.load(str(path), photos.DRAFT * 64)
  assert min(stored.size) < side  # It was read at less ...
  assert min(stored.size) >= photos.DRAFT * 64  # ... but not at too little.


def test_a_filter_sees_the_whole_jpeg(tmp_path):
  path = tmp_path / 'large.jpg'
  smooth(800, 600).save(path, quality=90)
  fast, _ = photos.create_read(data_of(64, filter='otsu'))(str(path))
  image = images.decode(str(path))
  full = images.prepare(image, 64, 0.0, 'otsu')
  np.testing.assert_array_equal(fast, full)


def test_batches_keep_their_order_pad_the_tail_and_name_what_is_broken():
  def read(path):
    row = int(path)
    if row % 3 == 1:
      return None, f'broken {row}'
    return np.full((2, 2, 3), row, np.uint8), ''

  errors = {}
  batches = photos.read_batches(list(map(str, range(10))), 4, 2, read, errors)
  batches = list(batches)
  assert errors == {row: f'broken {row}' for row in (1, 4, 7)}
  masks = [batch['mask'].astype(int).tolist() for batch in batches]
  assert masks == [[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]]
  seen = [int(image[0, 0, 0]) for batch in batches
          for image, on in zip(batch['image'], batch['mask'], strict=True)
          if on]  # fmt: skip
  assert seen == [0, 2, 3, 5, 6, 8, 9]
  assert {batch['image'].shape for batch in batches} == {(4, 2, 2, 3)}


def test_reading_stays_a_few_batches_ahead():
  lock, count = threading.Lock(), 0

  def read(path):
    nonlocal count
    with lock:
      count += 1
    return np.zeros((2, 2, 3), np.uint8), ''

  batches = photos.read_batches(['x'] * 10_000, 10, 2, read, {})
  for taken in range(1, 50):
    next(batches)
    assert count <= 10 * (taken + 2)
  batches.close()
