import io

import numpy as np
import pytest
from PIL import Image

from agegender_jax import schema
from agegender_jax.data import preprocess


def encode(image, form='PNG', **options):
  stream = io.BytesIO()
  image.save(stream, form, **options)
  return stream.getvalue()


def test_decode_reads_bytes_and_paths(tmp_path):
  data = encode(Image.new('RGB', (3, 2), (10, 20, 30)))
  (tmp_path / 'a.png').write_bytes(data)
  for picture in (data, tmp_path / 'a.png', str(tmp_path / 'a.png')):
    image = preprocess.decode(picture)
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
  decoded = preprocess.decode(encode(image))
  assert decoded.mode == 'RGB' and decoded.getpixel((0, 0)) == colour


def test_decode_cmyk():
  data = encode(Image.new('CMYK', (16, 16), (0, 0, 0, 255)), 'JPEG')
  assert preprocess.decode(data).getpixel((8, 8)) == (0, 0, 0)


def test_decode_takes_the_first_frame_of_an_animation():
  frames = [Image.new('L', (4, 4), value) for value in (50, 200)]
  data = encode(frames[0], 'GIF', save_all=True, append_images=frames[1:])
  assert preprocess.decode(data).getpixel((0, 0)) == (50, 50, 50)


def test_decode_turns_upright():
  image = Image.new('RGB', (4, 2), 'black')
  image.paste('white', (0, 0, 2, 2))  # The left half.
  exif = Image.Exif()
  exif[0x0112] = 6  # Stored with the top on the right: turn clockwise.
  decoded = preprocess.decode(encode(image, exif=exif))
  assert decoded.size == (2, 4)
  assert decoded.getpixel((0, 0)) == (255, 255, 255)
  assert decoded.getpixel((0, 3)) == (0, 0, 0)


@pytest.mark.parametrize('data', [b'', b'no picture', 'half'])
def test_decode_rejects_what_is_no_picture(data):
  if data == 'half':
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(noise), 'JPEG')
    data = data[: len(data) // 2]
  with pytest.raises(preprocess.UnreadableError):
    preprocess.decode(data)


def test_prepare_keeps_pixels_of_a_fitting_picture():
  pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
  result = preprocess.prepare(Image.fromarray(pixels), 8)
  np.testing.assert_array_equal(result, pixels)


def test_prepare_cuts_the_central_square_and_the_margin():
  pixels = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
  image = Image.fromarray(pixels)
  np.testing.assert_array_equal(preprocess.prepare(image, 8), pixels[:, 2:10])
  np.testing.assert_array_equal(
    preprocess.prepare(image, 4, crop=0.25), pixels[2:6, 4:8]
  )


def test_prepare_antialiases():
  stripes = np.zeros((64, 64, 3), np.uint8)
  stripes[:, ::2] = 200
  result = preprocess.prepare(Image.fromarray(stripes), 8)
  assert result.std() < 8 and abs(result.mean() - 100) < 2


@pytest.mark.parametrize('size, crop', [(0, 0.0), (8, 0.5), (8, -0.1)])
def test_check_size_rejects(size, crop):
  with pytest.raises(schema.UserError):
    preprocess.check_size(size, crop)
