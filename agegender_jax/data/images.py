"""Images to pixels: the same steps for training and for own photos."""

import contextlib
import functools
import io
import os
import threading

import numpy as np
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from agegender_jax import errors, files

# Part of the cache's key: raise it when the pixels of `prepare` change.
VERSION = 1
# A larger image is refused before it is decoded; 3 bytes per pixel and reader.
MAX_MEGAPIXELS = 100.0
_HEADER_LOCK = threading.Lock()


class UnreadableError(ValueError):
  """An image that cannot be decoded."""


def load(
  encoded: bytes | str | os.PathLike,
  at_least: int = 0,
  max_megapixels: float = MAX_MEGAPIXELS,
) -> Image.Image:
  """Reads an image's stored pixels, of an animation the first frame.

  Args:
    encoded: an image file's bytes or its path.
    at_least: pixels that either side keeps where a large JPEG is decoded at
      1/2, 1/4 or 1/8 of its size, which is faster; 0 = in full.
    max_megapixels: a larger image is refused.

  Returns:
    The image in its own mode, not yet turned upright.

  Raises:
    UnreadableError: not an image that Pillow can decode, or too large.
  """
  try:
    with open_header(encoded) as image:
      megapixels = image.width * image.height / 1e6
      if megapixels > max_megapixels:
        raise ValueError(
          f'{megapixels:.0f} megapixels, more than data.max_megapixels = '
          f'{max_megapixels:g}'
        )
      if at_least and image.mode in ('L', 'RGB'):
        image.draft(image.mode, (at_least, at_least))
      image.load()
      # A copy would lose the format; load() keeps the pixels after closing.
      return image
  except Exception as error:  # Pillow's plugins raise whatever they met.
    raise UnreadableError(f'{type(error).__name__}: {error}') from error


def open_header(encoded: bytes | str | os.PathLike) -> Image.Image:
  """Opens an image, of which the header is read only.

  Pillow's own limit, which warns from 89 megapixels, does not count.
  """
  stream = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
  if isinstance(stream, str | os.PathLike):
    files.check_regular(stream)
  with _HEADER_LOCK:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
      return Image.open(stream)
    except UnidentifiedImageError:
      if not _register_heif():
        raise
      return Image.open(stream)
    finally:
      Image.MAX_IMAGE_PIXELS = limit


@functools.cache
def _register_heif() -> bool:
  """Lets Pillow read HEIC where pillow-heif is installed; True if it now does."""
  try:
    import pillow_heif
  except ImportError:
    return False
  pillow_heif.register_heif_opener()
  return True


def decode(
  encoded: bytes | str | os.PathLike,
  at_least: int = 0,
  max_megapixels: float = MAX_MEGAPIXELS,
) -> Image.Image:
  """Decodes an image to upright RGB, see `load` and `to_rgb`."""
  return to_rgb(load(encoded, at_least, max_megapixels))


def to_rgb(image: Image.Image) -> Image.Image:
  """Returns an image in RGB, turned upright by its EXIF block.

  Grey, palette, CMYK and 16-bit images are converted, transparency is laid on white.
  """
  # A broken EXIF block says nothing about orientation.
  with contextlib.suppress(Exception):
    image = ImageOps.exif_transpose(image)
  if image.mode == 'RGB':
    return image
  if image.mode.startswith('I'):  # 16 bits per pixel: keep the upper eight.
    grey = np.clip(np.asarray(image, np.int64) >> 8, 0, 255)
    return Image.fromarray(grey.astype(np.uint8)).convert('RGB')
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  return image.convert('RGB')


def otsu_threshold(grey: np.ndarray) -> int:
  """Finds the grey value that parts dark from bright best.

  Otsu 1979, "A threshold selection method from gray-level histograms": the one
  with the largest variance between the two classes.

  Args:
    grey: uint8, any shape.

  Returns:
    The threshold t in [0, 255]: dark is <= t. Of equally good ones the least;
    an image of one value is all dark.
  """
  shares = np.bincount(grey.ravel(), minlength=256) / grey.size
  dark = shares.cumsum()  # Omega(t) in the paper.
  moment = (shares * np.arange(256)).cumsum()  # Mu(t).
  spread = dark * (1 - dark)
  parted = spread > 1e-12  # Else one class is empty, but for rounding.
  if not parted.any():
    return int(grey.max())
  between = (moment[-1] * dark - moment) ** 2 / np.where(parted, spread, 1)
  return int(np.argmax(np.where(parted, between, -1)))


def _otsu(image):
  """Returns black and white, in RGB, by the image's own threshold."""
  grey = np.asarray(image.convert('L'))
  white = 255 * (grey > otsu_threshold(grey)).astype(np.uint8)
  return Image.fromarray(white).convert('RGB')


# Name in config.data.filter -> RGB image to RGB image, as the Levi-Hassner report
# proposes them.
FILTERS = {
  '': lambda image: image,
  # Standard deviation 1 pixel of what the network sees.
  'gaussian': lambda image: image.filter(ImageFilter.GaussianBlur(1)),
  'otsu': _otsu,
}


def check_size(size: int, crop: float) -> None:
  """Raises errors.UserError unless the two make sense for `prepare`."""
  if size < 1:
    raise errors.UserError(f'image_size is {size}; give at least 1 pixel')
  if not 0 <= crop < 0.5:
    raise errors.UserError(f'crop is {crop}; give a fraction of the side in [0, 0.5)')


def prepare(
  image: Image.Image, size: int, crop: float = 0.0, filter_name: str = ''
) -> np.ndarray:
  """Cuts the central square, less a margin, resizes and filters it.

  Args:
    image: an RGB image.
    size: height and width of the result, pixels.
    crop: fraction of the square's side cut from each edge, in [0, 0.5).
    filter_name: key of FILTERS.

  Returns:
    uint8 [size, size, 3].
  """
  side = min(image.size) * (1 - 2 * crop)
  left, top = ((length - side) / 2 for length in image.size)
  # Pillow's bilinear filter widens when it shrinks: it is antialiased.
  image = image.resize(
    (size, size),
    Image.Resampling.BILINEAR,
    box=(left, top, left + side, top + side),
  )
  return np.asarray(FILTERS[filter_name](image))
