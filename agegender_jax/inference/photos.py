"""Images of the user's own: found, read, faces cut out, in constant memory."""

import dataclasses
import glob
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from agegender_jax import errors as errors_lib
from agegender_jax.data import images, raw
from agegender_jax.inference import crops as crops_lib
from agegender_jax.inference import detector as detector_lib

READ_THREADS = max(4, os.cpu_count() or 1)
# Times the size that is needed: a large JPEG is decoded at no less. Then no
# pixel of the result moves by more than 4 of 255, nor by 0.6 on average
# (tests/inference/test_photos.py).
DRAFT = 4
# A large JPEG in which faces are looked for is decoded at no less than this.
DETECT_PIXELS = 2 * max(detector_lib.SIDES)
NO_FACE = 'no face found'


@dataclasses.dataclass(frozen=True)
class Photo:
  """What was read of an image.

  Attributes:
    crops: uint8 [K, S, S, 3], a face each, as the network sees them.
    detections: of each face; empty where the image was taken as one crop.
    error: what is wrong, '' for nothing; then K is 0.
  """

  crops: np.ndarray
  detections: Sequence[detector_lib.Detection] = ()
  error: str = ''


def find_images(patterns: Sequence[str]) -> list[str]:
  """Lists images.

  Args:
    patterns: files, folders (searched through) or globs.

  Returns:
    Paths, each pattern's in the order of their names.

  Raises:
    errors_lib.UserError: a pattern without any image.
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
      raise errors_lib.UserError(f'--images={pattern}: no image found there')
    paths += found
  return paths


def decode(
  image: Any, at_least: int = 0, max_megapixels: float = images.MAX_MEGAPIXELS
) -> Image.Image:
  """Decodes what a caller has of an image to upright RGB.

  Args:
    image: a path, encoded bytes, a PIL image, or uint8 [H, W], [H, W, 1], [H, W, 3]
      or [H, W, 4].
    at_least: see images.load.
    max_megapixels: likewise.
  """
  if isinstance(image, np.ndarray):
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
      raise images.UnreadableError(
        f'an array must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}'
      )
    image = Image.fromarray(image.squeeze(2) if image.shape[2:] == (1,) else image)
  if isinstance(image, Image.Image):
    return images.to_rgb(image)
  return images.decode(image, at_least, max_megapixels)


def full_side(image: Any) -> int:
  """Returns the longest side, pixels, of what `decode` takes, without decoding."""
  if isinstance(image, np.ndarray):
    return max(image.shape[:2])
  if isinstance(image, Image.Image):
    return max(image.size)
  with images.open_header(image) as opened:
    return max(opened.size)


def create_read(
  data,
  recipe: crops_lib.Recipe | None = None,
  find_faces: Callable[[Image.Image], list[detector_lib.Detection]] | None = None,
  largest_face: bool = False,
) -> Callable[[Any], Photo]:
  """Creates what reads an image as a run's configuration says.

  Args:
    data: the block `config.data`.
    recipe: how faces are cut out; used with `find_faces`.
    find_faces: a detector.Detector; None takes an image as one face crop.
    largest_face: keep the largest face only.

  Returns:
    A function: image, see `decode` -> Photo.
  """
  size, crop, filter_name = data.image_size, data.crop, data.filter
  at_least = math.ceil(DRAFT * size / (1 - 2 * crop))
  # A filter may make much of little.
  at_least = 0 if filter_name else at_least
  at_least = max(at_least, DETECT_PIXELS) if find_faces else at_least

  def prepare(image):
    return images.prepare(image, size, crop, filter_name)

  def read_crops(source):
    image = decode(source, at_least, data.max_megapixels)
    if find_faces is None or recipe is None:
      return Photo(prepare(image)[None])
    found = find_faces(image)[: 1 if largest_face else None]
    if not found:
      return Photo(empty, (), NO_FACE)
    faces = [prepare(crops_lib.cut(image, face.landmarks, recipe)) for face in found]
    factor = full_side(source) / max(image.size)
    return Photo(np.stack(faces), [face.scaled(factor) for face in found])

  def read(image):
    try:
      return read_crops(image)
    except Exception as error:  # Pillow raises whatever it met.
      text = str(error)
      if not isinstance(error, images.UnreadableError):
        text = f'{type(error).__name__}: {text}'
      return Photo(empty, (), ' '.join(text.split()))

  empty = np.zeros((0, size, size, 3), np.uint8)
  return read


def group(photos: Iterable[Photo], batch_size: int) -> Iterator[list[Photo]]:
  """Groups photos until they have a batch of faces, or as many photos."""
  waiting: list[Photo] = []
  faces = 0
  for photo in photos:
    waiting.append(photo)
    faces += len(photo.crops)
    if faces >= batch_size or len(waiting) >= batch_size:
      yield waiting
      waiting, faces = [], 0
  if waiting:
    yield waiting
