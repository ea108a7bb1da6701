import io

import faces_on_disk
import numpy as np
import pytest
from PIL import Image

from agegender_jax import errors
from agegender_jax.data import images
from agegender_jax.data import source as source_lib


def encode(image, form='PNG', **options):
  stream = io.BytesIO()
  image.save(stream, form, **options)
  return stream.getvalue()


def test_decode_reads_bytes_and_paths(tmp_path):
  data = encode(Image.new('RGB', (3, 2), (10, 20, 30)))
  (tmp_path / 'a.png').write_bytes(data)
  for encoded in (data, tmp_path / 'a.png', str(tmp_path / 'a.png')):
    image = images.decode(encoded)
    assert image.mode == 'RGB' and image.getpixel((2, 1)) == (10, 20, 30)


@pytest.mark.parametrize(
  'image, colour',
  [
    (Image.new('L', (2, 2), 77), (77, 77, 77)),
    (Image.new('LA', (2, 2), (77, 0)), (255, 255, 255)),
    (Image.new('RGBA', (2, 2), (10, 20, 30, 255)), (10, 20, 30)),
    (Image.new('RGBA', (2, 2), (10, 20, 30, 0)), (255, 255, 255)),
    (Image.new('1', (2, 2), 1), (255, 255, 255)),
    (Image.fromarray(np.full((2, 2), 77 << 8, np.uint16)), (77, 77, 77)),
    (Image.new('RGB', (2, 2), (0, 255, 0)).convert('P'), (0, 255, 0)),
  ],
)
def test_decode_makes_rgb(image, colour):
  decoded = images.decode(encode(image))
  assert decoded.mode == 'RGB' and decoded.getpixel((0, 0)) == colour


def test_decode_cmyk():
  data = encode(Image.new('CMYK', (16, 16), (0, 0, 0, 255)), 'JPEG')
  assert images.decode(data).getpixel((8, 8)) == (0, 0, 0)


def test_decode_takes_the_first_frame_of_an_animation():
  frames = [Image.new('L', (4, 4), value) for value in (50, 200)]
  data = encode(frames[0], 'GIF', save_all=True, append_images=frames[1:])
  assert images.decode(data).getpixel((0, 0)) == (50, 50, 50)


def test_decode_turns_upright():
  image = Image.new('RGB', (4, 2), 'black')
  image.paste('white', (0, 0, 2, 2))  # The left half.
  exif = Image.Exif()
  exif[0x0112] = 6  # Stored with the top on the right: turn clockwise.
  decoded = images.decode(encode(image, exif=exif))
  assert decoded.size == (2, 4)
  assert decoded.getpixel((0, 0)) == (255, 255, 255)
  assert decoded.getpixel((0, 3)) == (0, 0, 0)


@pytest.mark.parametrize('data', [b'', b'no image', 'half'])
def test_decode_rejects_what_is_no_image(data):
  if data == 'half':
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(noise), 'JPEG')
    data = data[: len(data) // 2]
  with pytest.raises(images.UnreadableError):
    images.decode(data)


def test_prepare_keeps_pixels_of_a_fitting_image():
  pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
  result = images.prepare(Image.fromarray(pixels), 8)
  np.testing.assert_array_equal(result, pixels)


def test_prepare_cuts_the_central_square_and_the_margin():
  pixels = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
  image = Image.fromarray(pixels)
  np.testing.assert_array_equal(images.prepare(image, 8), pixels[:, 2:10])
  np.testing.assert_array_equal(images.prepare(image, 4, crop=0.25), pixels[2:6, 4:8])


def test_prepare_antialiases():
  stripes = np.zeros((64, 64, 3), np.uint8)
  stripes[:, ::2] = 200
  result = images.prepare(Image.fromarray(stripes), 8)
  assert result.std() < 8 and abs(result.mean() - 100) < 2


@pytest.mark.parametrize('size, crop', [(0, 0.0), (8, 0.5), (8, -0.1)])
def test_check_size_rejects(size, crop):
  with pytest.raises(errors.UserError):
    images.check_size(size, crop)


def grey_image(values):
  """An RGB image whose three channels are a uint8 array."""
  return Image.fromarray(np.asarray(values, np.uint8)).convert('RGB')


def test_otsu_parts_two_values():
  image = grey_image([[60, 60, 60, 61], [60, 60, 60, 61]])
  result = images.prepare(image.resize((4, 4), 0), 4, 0.0, 'otsu')
  expected = [0, 0, 0, 255]
  for row in result:
    for channel in row.T:
      assert channel.tolist() == expected


@pytest.mark.parametrize('seed', range(5))
def test_otsu_leaves_the_least_variance_within(seed):
  random = np.random.default_rng(seed)
  dark = random.normal(70, 12, 300)
  grey = np.append(dark, random.normal(160, 25, 100)).clip(0, 255)
  grey = grey.astype(np.uint8)

  def within(threshold):  # The other form of the same criterion.
    parts = grey[grey <= threshold], grey[grey > threshold]
    return sum(((part - part.mean()) ** 2.0).sum() for part in parts)

  best = min(range(int(grey.min()), int(grey.max())), key=within)
  assert images.otsu_threshold(grey) == best
  assert 90 < best < 140


def test_otsu_of_one_value_is_all_dark():
  result = images.prepare(grey_image(np.full((4, 4), 9)), 4, 0.0, 'otsu')
  assert not result.any()


def test_gaussian_spreads_by_one_pixel_and_keeps_the_mean():
  spot = np.zeros((33, 33))
  spot[14:19, 14:19] = 250  # A square: its variance is (25 - 1) / 12 = 2.
  result = images.prepare(grey_image(spot), 33, 0.0, 'gaussian')
  weight = result[:, :, 0].astype(np.float64)
  assert weight.sum() == pytest.approx(spot.sum(), rel=0.01)
  row = np.arange(33) - 16
  variance = (weight.sum(axis=1) * row**2).sum() / weight.sum()
  assert variance == pytest.approx(2 + 1, rel=0.05)
  np.testing.assert_array_equal(weight, weight[::-1])
  np.testing.assert_allclose(weight, weight.T, atol=1)  # Rows come first.
  flat = np.full((8, 8, 3), 77, np.uint8)
  np.testing.assert_array_equal(
    images.prepare(Image.fromarray(flat), 8, 0.0, 'gaussian'), flat
  )


def test_each_filter_changes_the_pixels_that_are_kept():
  noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
  found = {
    name: images.prepare(Image.fromarray(noise), 16, 0.0, name).tobytes()
    for name in images.FILTERS
  }
  assert found[''] == noise.tobytes()
  assert len(set(found.values())) == len(found) == 3


def test_each_filter_has_its_own_decoded_images(tmp_path):
  def gather(name, cache):
    source = faces_on_disk.open_source(
      'synthetic',
      'test',
      data_dir=str(tmp_path),
      image_size=16,
      synthetic_examples=20,
      filter=name,
      cache=cache,
    )
    return source.gather(np.arange(len(source)))

  plain = gather('', 'memmap')
  for name in ('gaussian', 'otsu', ''):
    expected = [images.FILTERS[name](Image.fromarray(pixels)) for pixels in plain]
    for cache in source_lib.CACHES:
      np.testing.assert_array_equal(gather(name, cache), expected)
  with pytest.raises(errors.UserError, match='config.data.filter "gausian"'):
    gather('gausian', 'memmap')
