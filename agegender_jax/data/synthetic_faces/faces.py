"""Procedurally drawn faces: age and gender can be seen, not read off a pixel.

Every face is a function of (seed, index) alone. A person is drawn from
overlapping traits (person), painted on layers (painting) and photographed here:
light, blur, noise, colour cast, JPEG.
"""

import io
import math
import typing

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from agegender_jax.data.synthetic_faces import painting, person


class Face(typing.NamedTuple):
  """A drawn face and its labels."""

  image: np.ndarray  # uint8 [size, size, 3], RGB.
  age: float  # Whole years.
  gender: int  # schema.MALE or schema.FEMALE.
  quality: int  # Of the JPEG file.


def _background(rng: np.random.Generator, size: int) -> Image.Image:
  """Draws a blurred background, [2 * size, 2 * size]."""
  base = rng.uniform(30, 230) + rng.normal(0, 16, 3)
  cells = base + rng.normal(0, rng.uniform(2, 30), (4, 4, 1))
  cells = np.clip(cells + rng.normal(0, 10, (4, 4, 3)), 0, 255)
  small = Image.fromarray(cells.astype(np.uint8))
  small = small.resize((64, 64), Image.Resampling.BICUBIC)
  pen = ImageDraw.Draw(small)
  for _ in range(rng.integers(6)):
    x, y, w, h = rng.uniform([-20, -20, 4, 4], [64, 64, 40, 60])
    colour = painting.ink(base + rng.normal(0, 32, 3))
    draw = pen.ellipse if rng.random() < 0.3 else pen.rectangle
    draw((x, y, x + w, y + h), fill=colour)
  return small.resize((2 * size, 2 * size), Image.Resampling.BILINEAR)


def _pose(rng: np.random.Generator) -> dict[str, float]:
  """Draws where the head is and where it looks."""
  yaw, pitch, roll = rng.normal(0, [0.2, 0.09, 0.1]).clip(-0.45, 0.45)
  # Python floats: NumPy's would turn the float32 layers into float64.
  return {
    'cos_yaw': math.cos(yaw),
    'sin_yaw': math.sin(yaw),
    'sin_pitch': math.sin(pitch),
    'cos_roll': math.cos(roll),
    'sin_roll': math.sin(roll),
    'scale': rng.uniform(0.33, 0.4),
    'x': 0.5 + rng.normal(0, 0.02),
    'y': 0.51 + rng.normal(0, 0.02),
  }


def _paint(rng, traits, size: int, pose: dict) -> painting.Canvas:
  """Paints a person from the back to the front."""
  canvas = painting.Canvas(_background(rng, size), size, pose)
  cloth = rng.uniform(20, 235, 3)
  jewel = rng.uniform(120, 250, 3) if traits.earrings else None
  brow = np.minimum(traits.hair * 0.8, traits.skin * 0.75)
  gaze, light = rng.normal(0, 0.2), rng.normal()
  painting.draw_back_hair(canvas, traits, rng)
  painting.draw_body(canvas, traits, cloth)
  painting.draw_head(canvas, traits, jewel)
  painting.draw_beard(canvas, traits, rng)
  painting.draw_nose(canvas, traits, light)
  painting.draw_mouth(canvas, traits)
  painting.draw_relief(canvas, traits)
  painting.draw_wrinkles(canvas, traits, rng)
  for side in (-1, 1):
    painting.draw_eye(canvas, traits, side, gaze)
    painting.draw_brow(canvas, traits, side, brow)
  painting.draw_front_hair(canvas, traits, rng)
  painting.draw_glasses(canvas, traits, rng)
  return canvas


def _grid(size: int, pose: dict) -> tuple[np.ndarray, np.ndarray]:
  """Returns x, float32 [1, size], and y, [size, 1], of pixels in head units."""
  grid = (np.arange(size, dtype=np.float32) + 0.5) / size
  x = (grid[None, :] - pose['x']) / pose['scale']
  return x, (grid[:, None] - pose['y']) / pose['scale']


def _light(rng, size: int, pose: dict) -> tuple[np.ndarray, np.ndarray]:
  """Returns frontal and slanting light on a head, float32 [size, size]."""
  x, y = _grid(size, pose)
  radius = np.sqrt((x / 0.95) ** 2 + (y / 1.25) ** 2)
  inside = np.maximum(radius, 1)
  depth = np.sqrt(np.maximum(1.0 - radius**2, 0))
  side, up = rng.normal(0, 0.2), rng.normal(0.1, 0.12)
  slope = (side * x - up * y) / inside
  return 0.84 + 0.18 * depth, slope


def _strands(rng, traits, size: int, pose: dict) -> np.ndarray:
  """Returns the texture of hair, float32 [size, size], about 0 +- 1."""
  if traits.curl > 0.6:
    cells = rng.integers(0, 256, (size // 4, size // 4), np.uint8)
    image = Image.fromarray(cells).resize((size, size))
    return np.asarray(image, np.float32) / 64 - 2
  # Strands start at the parting on the crown.
  x, y = _grid(size, pose)
  x, y = x - traits.parting, y + 1.3
  bins = 256
  place = (x / (np.abs(y) + 0.15) * 40 + bins // 2).astype(np.int32)
  noise = rng.standard_normal(bins, np.float32)
  return noise[place.clip(0, bins - 1)]


def _mottle(rng, traits, size: int) -> np.ndarray:
  """Returns the unevenness of the skin, float32 [size, size], about 0."""
  cells = rng.standard_normal((size * 5 // 16, size * 5 // 16), np.float32)
  image = Image.fromarray(cells * np.float32(0.15 * traits.mottle))
  return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _develop(rng, canvas, traits, size: int, pose: dict) -> np.ndarray:
  """Puts light and the camera's faults on a canvas; returns uint8 [size, size, 3]."""
  image = np.asarray(canvas.colour.reduce(2), np.float32)
  lines = np.asarray(canvas.lines.reduce(2), np.float32)
  relief = canvas.relief.filter(ImageFilter.GaussianBlur(size / 64))
  relief = relief.resize((size, size), Image.Resampling.BILINEAR)
  relief = np.asarray(relief, np.float32)
  matter = np.asarray(canvas.matter)
  bulge, slope = _light(rng, size, pose)
  relief = np.where(matter == painting.SKIN, relief / painting.NEUTRAL, 1)
  shade = np.where(matter == painting.BACKGROUND, 0.9, bulge) * relief
  shade = shade * (1 + (matter == painting.SKIN) * _mottle(rng, traits, size))
  shade = (shade + slope) * lines * np.float32(1 / painting.NEUTRAL)
  hair = matter == painting.HAIR
  spread = np.float32(0.1 + 0.3 * traits.grey * (1 - traits.grey))
  shade = shade * (1 + spread * hair * _strands(rng, traits, size, pose))
  gain = rng.uniform(0.8, 1.15) * (1 + rng.normal(0, 0.05, 3))
  image = image * shade[..., None] * gain.astype(np.float32)
  if rng.random() < 0.06:
    image = np.repeat(image.mean(-1, keepdims=True), 3, -1)
  noise = rng.standard_normal((size, size), np.float32)
  image = image + (noise * np.float32(rng.uniform(0, 7)))[..., None]
  image = np.clip(image, 0, 255).astype(np.uint8)
  blur = rng.uniform(-0.8, 1.1) * size / 128
  if blur > 0.2:
    image = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(blur)))
  return image


def draw_face(seed: int, index: int, size: int = 128) -> Face:
  """Draws the face with this number.

  Args:
    seed: of the set of faces, 0 to 2**64 - 1.
    index: of the face in the set, not negative.
    size: height and width in pixels, a multiple of 4.

  Returns:
    Face.
  """
  rng = np.random.Generator(np.random.Philox(key=[seed, index]))
  traits = person.sample_traits(rng)
  # Before the drawing, which draws more numbers for a larger image.
  quality = int(rng.integers(60, 96))
  pose = _pose(rng)
  canvas = _paint(rng, traits, size, pose)
  image = _develop(rng, canvas, traits, size, pose)
  return Face(image, traits.age, traits.gender, quality)


def draw_example(seed: int, index: int) -> dict[str, object]:
  """Draws a face: image (JPEG bytes), age (float, years), gender (int), name."""
  face, file = draw_face(seed, index), io.BytesIO()
  Image.fromarray(face.image).save(file, 'JPEG', quality=face.quality)
  return {
    'image': file.getvalue(),
    'age': face.age,
    'gender': face.gender,
    'name': f'synthetic_{seed}_{index:06d}.jpg',
  }
