"""The canvas that faces are drawn on: curves, pose and layers.

Points are in head units (see synthetic_traits): x to the viewer's right, y
down, the skull at y = -1 and the chin at y = +1.
"""

import functools

import numpy as np
from PIL import Image, ImageDraw

NEUTRAL = 128  # Of the shading layers: neither darker nor lighter.
_SAMPLES = 5  # Points per control point of a smooth curve.
BACKGROUND, CLOTH, SKIN, HAIR = 0, 64, 128, 255  # What a pixel shows.


@functools.cache
def _spline(points: int, closed: bool) -> np.ndarray:
  """Returns the Catmull-Rom matrix from control points to curve points."""
  t = np.arange(_SAMPLES) / _SAMPLES
  weights = 0.5 * np.stack(
    [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3,
     t**3 - t**2], axis=-1,
  )  # fmt: skip
  segments = points if closed else points - 1
  matrix = np.zeros((segments * _SAMPLES + (not closed), points))
  for segment in range(segments):
    for tap in range(4):
      at = segment + tap - 1
      at = at % points if closed else min(max(at, 0), points - 1)
      rows = slice(segment * _SAMPLES, (segment + 1) * _SAMPLES)
      matrix[rows, at] += weights[:, tap]
  if not closed:
    matrix[-1, -1] = 1
  return matrix


def smooth(control, closed: bool = True) -> np.ndarray:
  """Returns a smooth curve [N, 2] through control points [K, 2]."""
  return _spline(len(control), closed) @ np.asarray(control)


class Canvas:
  """Four layers under one pose.

  Attributes:
    colour: RGB picture, twice the final size.
    lines: sharp shading (wrinkles), twice the final size.
    matter: BACKGROUND, CLOTH, SKIN or HAIR, the final size.
    relief: soft shading (hollows and bulges), half the final size.
  """

  def __init__(self, background: Image.Image, size: int, pose: dict):
    self.colour = background
    self.lines = Image.new('L', background.size, NEUTRAL)
    self.matter = Image.new('L', (size, size), BACKGROUND)
    self.relief = Image.new('L', (size // 2, size // 2), NEUTRAL)
    self._size = size
    self._pose = pose
    self._pens = {}
    for name in ('colour', 'lines', 'matter', 'relief'):
      image = getattr(self, name)
      self._pens[name] = (ImageDraw.Draw(image), image.size[0] / size)

  def project(self, points, flat: bool = False) -> np.ndarray:
    """Turns head units [N, 2] into pixels [N, 2] of the final picture.

    Yaw and pitch move a point by its depth on an ellipsoid; `flat` points
    (neck, shoulders, hair behind the head) have none.
    """
    x, y = np.asarray(points, np.float64).T
    pose = self._pose
    if not flat:
      depth = 1 - (x / 0.9) ** 2 - (y / 1.15) ** 2
      depth = 0.6 * np.sqrt(np.maximum(depth, 0))
      x = x * pose['cos_yaw'] + depth * pose['sin_yaw']
      y = y + depth * pose['sin_pitch']
    scale = pose['scale'] * self._size
    cos, sin = pose['cos_roll'] * scale, pose['sin_roll'] * scale
    pixels = np.empty((len(x), 2))
    pixels[:, 0] = cos * x - sin * y + pose['x'] * self._size
    pixels[:, 1] = sin * x + cos * y + pose['y'] * self._size
    return pixels

  def fill(self, points, value, layer='colour', flat=False, matter=None):
    """Fills a polygon; `matter` says what now covers all beneath."""
    pixels = self.project(points, flat)
    pen, factor = self._pens[layer]
    pen.polygon((pixels * factor).ravel().tolist(), fill=ink(value))
    if matter is not None:
      pen, factor = self._pens['matter']
      pen.polygon((pixels * factor).ravel().tolist(), fill=matter)
      pen, factor = self._pens['lines']
      pen.polygon((pixels * factor).ravel().tolist(), fill=NEUTRAL)

  def stroke(self, points, value, width, layer='colour', flat=False):
    """Draws a line `width` head units wide, at least one pixel."""
    pen, factor = self._pens[layer]
    pixels = self.project(points, flat) * factor
    width = width * self._pose['scale'] * self._size * factor
    pen.line(pixels.ravel().tolist(), ink(value), max(1, round(width)), 'curve')

  def tint(self, points, colour, opacity, flat=False):
    """Blends a soft-edged polygon into the picture."""
    pixels = self.project(points, flat) / 2
    corner = np.floor(pixels.min(axis=0)).astype(int) - 1
    width, height = np.ceil(pixels.max(axis=0)).astype(int) + 2 - corner
    small = Image.new('L', (int(width), int(height)), 0)
    ImageDraw.Draw(small).polygon(
      (pixels - corner).ravel().tolist(), fill=round(255 * opacity)
    )
    mask = small.resize((4 * small.width, 4 * small.height), Image.Resampling.BILINEAR)
    x, y = (4 * corner).tolist()
    self.colour.paste(ink(colour), (x, y, x + mask.width, y + mask.height), mask)


def ink(value):
  """Clips a colour [3] or a grey value to 0..255, as Pillow wants it."""
  if isinstance(value, (np.ndarray, list)):
    return tuple(int(min(max(c, 0), 255)) for c in value)
  return int(min(max(value, 0), 255))


@functools.cache
def _circle(points: int) -> np.ndarray:
  """Returns points on the unit circle, float64 [points, 2]."""
  angle = np.arange(points) * (2 * np.pi / points)
  return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def ellipse(x, y, width, height, points: int = 14) -> np.ndarray:
  """Returns a polygon [points, 2] with the given half-axes."""
  return _circle(points) * [width, height] + [x, y]


def mirror(right) -> np.ndarray:
  """Closes a right half [K, 2], listed from top to bottom."""
  right = np.asarray(right)
  return np.concatenate([right, right[::-1] * [-1, 1]])
