"""Draws boxes and labels on images: black and white, so legible on any."""

import itertools
import math
import pathlib
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFont

from agegender_jax.inference import api, photos

MAX_SIDE = 2048  # Pixels; larger images are shrunk.


def label_of(face: api.Face) -> str:
  """Returns such as `31 (24-38), female 97 %`."""
  parts = []
  if face.age is not None:
    text = f'{face.age:.0f}'
    if face.age_low is not None and face.age_high is not None:
      text += f' ({face.age_low:.0f}-{face.age_high:.0f})'
    parts.append(text)
  elif face.age_group:
    parts.append(face.age_group)
  if face.gender and face.confidence:
    parts.append(f'{face.gender} {100 * face.confidence:.0f} %')
  return ', '.join(parts)


def draw(image: Image.Image, faces: Sequence[api.Face]) -> Image.Image:
  """Returns an image with the faces' boxes and labels.

  Args:
    image: upright RGB.
    faces: see api.Face; one without a box is labelled in the corner.
  """
  scale = min(1.0, MAX_SIDE / max(image.size))
  size = [max(1, round(scale * side)) for side in image.size]
  image = image.resize(size, Image.Resampling.BILINEAR)
  line = max(1, round(max(image.size) / 400))
  font = ImageFont.load_default(max(10, round(max(image.size) / 45)))
  canvas = ImageDraw.Draw(image)
  for face in faces:
    left, top, right, bottom = (
      (scale * value for value in face.box)
      if face.box
      else (0, 0, image.width - 1, image.height - 1)
    )
    if not face.error:
      canvas.rectangle((left, top, right, bottom), None, 'black', 3 * line)
      inner = (left + line, top + line, right - line, bottom - line)
      canvas.rectangle(inner, None, 'white', line)
    text = face.error or label_of(face)
    # The label stands on the box, below it where there is no room, and within
    # the image.
    _, _, width, height = canvas.textbbox((0, 0), text, font)
    width, height = width + 4 * line, height + 4 * line
    y = top - height if top >= height else min(bottom, image.height - height)
    x = max(0, min(left, image.width - width))
    canvas.rectangle((x, y, x + width, y + height), 'black')
    canvas.text((x + 2 * line, y + line), text, 'white', font)
  return image


def create_writer(folder: str) -> Callable[[str, Sequence[api.Face]], None]:
  """Creates a folder, and what writes an image with its faces drawn into it.

  An image is named as its file; of equal names the later are numbered.
  """
  pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  used: set[str] = set()

  def write(path, faces):
    stem = pathlib.Path(path).stem
    names = itertools.chain([stem], (f'{stem}_{n}' for n in itertools.count(2)))
    name = next(name for name in names if name not in used)
    used.add(name)
    # Its faces are known, so its size is within data.max_megapixels.
    image = draw(photos.decode(path, max_megapixels=math.inf), faces)
    image.save(pathlib.Path(folder, f'{name}.jpg'), quality=92)

  return write
