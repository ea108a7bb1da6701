import os
import threading

import faces_on_disk
import numpy as np
import pytest
from PIL import Image

from agegender_jax import config as config_lib
from agegender_jax import errors as errors_lib
from agegender_jax.data import images
from agegender_jax.inference import ahead, crops, detector, photos


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
  with pytest.raises(errors_lib.UserError, match=r'c/\*: no image'):
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
def test_images_of_any_mode_are_read(tmp_path, mode, suffix, tolerance):
  # White: it is the same in every mode but that of floats, which is grey.
  value = {'I;16': 65535, 'F': 255.0, 'CMYK': (0, 0, 0, 0)}.get(mode)
  image = Image.new('RGB', (31, 20), 'white')
  if mode in ('I;16', 'F', 'CMYK'):
    image = Image.new(mode, (31, 20), value)
  else:
    image = image.convert(mode)
  path = tmp_path / f'a.{suffix}'
  image.save(path)
  photo = photos.create_read(data_of())(str(path))
  assert not photo.error
  (pixels,) = photo.crops
  assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
  assert pixels.min() >= 255 - tolerance


def test_rotated_and_animated_images_show_their_first_upright_frame(tmp_path):
  left_dark = np.zeros((32, 32, 3), np.uint8)
  left_dark[:, 16:] = 255
  image = Image.fromarray(left_dark)
  exif = Image.Exif()
  exif[0x0112] = 6  # Turned clockwise by a viewer: its left is up.
  image.save(tmp_path / 'r.png', exif=exif)
  read = photos.create_read(data_of())
  (pixels,) = read(str(tmp_path / 'r.png')).crops
  assert pixels[0].max() < 60 and pixels[-1].min() > 195
  frames = [Image.new('L', (20, 20), value) for value in (200, 20)]
  frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
  (pixels,) = read(str(tmp_path / 'a.gif')).crops
  np.testing.assert_array_equal(pixels, 200)


def test_what_cannot_be_read_is_an_error_of_one_line(tmp_path):
  whole = faces_on_disk.jpeg(0, 64)
  files = {
    'text.jpg': b'no image\n', 'empty.png': b'', 'cut.jpg': whole[:700],
    'iphone.heic': b'\0\0\0\x18ftypheic' + bytes(64),
  }  # fmt: skip
  read = photos.create_read(data_of())
  for name, content in files.items():
    (tmp_path / name).write_bytes(content)
    photo = read(str(tmp_path / name))
    assert not len(photo.crops) and photo.error and '\n' not in photo.error, name
  (tmp_path / 'folder.jpg').mkdir()
  for name in ('absent.jpg', 'folder.jpg'):
    photo = read(str(tmp_path / name))
    assert not len(photo.crops) and 'Error' in photo.error


@pytest.mark.parametrize('side', [700, 1100, 2000])
def test_a_large_jpeg_is_read_at_less_and_hardly_differs(tmp_path, side):
  path = tmp_path / 'large.jpg'
  smooth(side * 4 // 3, side).save(path, quality=90)
  data = data_of(64)
  (fast,) = photos.create_read(data)(str(path)).crops
  full = images.prepare(images.decode(str(path)), 64)
  difference = np.abs(fast.astype(int) - full)
  assert difference.max() <= 4 and difference.mean() <= 0.6
  stored = images.load(str(path), photos.DRAFT * 64)
  assert min(stored.size) < side  # It was read at less ...
  assert min(stored.size) >= photos.DRAFT * 64  # ... but not at too little.


def test_a_filter_sees_the_whole_jpeg(tmp_path):
  path = tmp_path / 'large.jpg'
  smooth(800, 600).save(path, quality=90)
  (fast,) = photos.create_read(data_of(64, filter='otsu'))(str(path)).crops
  image = images.decode(str(path))
  full = images.prepare(image, 64, 0.0, 'otsu')
  np.testing.assert_array_equal(fast, full)


def test_photos_keep_their_order_and_group_by_their_faces():
  def read(number):
    if number % 3 == 1:
      return photos.Photo(np.zeros((0, 2, 2, 3), np.uint8), (), f'broken {number}')
    return photos.Photo(np.full((number % 4, 2, 2, 3), number, np.uint8))

  found = list(ahead.map_ahead(read, range(40), photos.READ_THREADS))
  for number, photo in enumerate(found):
    assert photo.error == ('' if number % 3 != 1 else f'broken {number}')
    assert (photo.crops == number).all()
  groups = list(photos.group(found, 5))
  assert [photo for group in groups for photo in group] == found
  for group in groups:
    # No more photos than faces in a batch, and at most one photo beyond it.
    assert len(group) <= 5
    assert sum(len(photo.crops) for photo in group[:-1]) < 5


def test_reading_stays_a_few_images_ahead():
  lock, count = threading.Lock(), 0

  def read(path):
    nonlocal count
    with lock:
      count += 1
    return photos.Photo(np.zeros((1, 2, 2, 3), np.uint8))

  found = ahead.map_ahead(read, iter(int, 1), photos.READ_THREADS)  # Endless.
  for taken in range(1, 200):
    next(found)
    assert count <= taken + 2 * photos.READ_THREADS + 1
  found.close()


def test_paths_bytes_arrays_and_images_are_the_same(tmp_path):
  image = smooth(40, 30)
  path = tmp_path / 'a.png'
  image.save(path)
  read = photos.create_read(data_of())
  expected = read(str(path)).crops
  for source in (path, path.read_bytes(), image, np.asarray(image)):
    np.testing.assert_array_equal(read(source).crops, expected)
  grey = np.asarray(image.convert('L'))
  np.testing.assert_array_equal(read(grey).crops, read(grey[..., None]).crops)
  assert 'uint8' in read(np.zeros((4, 4, 3))).error


def test_up_to_100_megapixels_are_read(tmp_path):
  for name, side in (('large', 9_900), ('larger', 10_100)):
    Image.new('1', (side, side)).save(tmp_path / f'{name}.png')
  read = photos.create_read(data_of())
  assert not read(str(tmp_path / 'large.png')).error
  assert (
    '102 megapixels, more than data.max_megapixels = 100'
    in read(str(tmp_path / 'larger.png')).error
  )


def test_faces_are_cut_out_and_their_places_are_of_the_whole_image(tmp_path):
  recipe = crops.RECIPES['utkface']
  side = 6000  # Decoded at half.
  landmarks = np.asarray(recipe.landmarks) * 3000 + 1000
  Image.new('RGB', (side, side), 'red').save(tmp_path / 'a.jpg')
  seen = []

  def find_faces(image):
    seen.append(image.size)
    factor = image.width / side
    faces = [
      detector.Detection(np.array([0, 0, size, size]) * factor, landmarks * factor, 0.9)
      for size in (4000, 100)
    ]
    return faces if image.getpixel((5, 5))[0] > 128 else []

  read = photos.create_read(data_of(), recipe, find_faces)
  photo = read(str(tmp_path / 'a.jpg'))
  assert seen == [(3000, 3000)]
  assert photo.crops.shape == (2, 16, 16, 3)
  np.testing.assert_allclose(photo.detections[0].landmarks, landmarks)
  np.testing.assert_allclose(photo.detections[1].box, [0, 0, 100, 100])
  largest = photos.create_read(data_of(), recipe, find_faces, largest_face=True)
  assert len(largest(str(tmp_path / 'a.jpg')).crops) == 1
  assert read(Image.new('RGB', (20, 20))).error == photos.NO_FACE
