"""Draws the parts of a face on a canvas, from the back to the front.

Points are in head units (see synthetic_traits): x to the viewer's right, y
down, the skull at y = -1 and the chin at y = +1.
"""

import functools

import numpy as np
from PIL import Image, ImageDraw

from agegender_jax.data import synthetic_traits

NEUTRAL = 128  # Of the shading layers: neither darker nor lighter.
_SAMPLES = 5  # Points per control point of a smooth curve.
_SIDES = (-1, 1)
BACKGROUND, SKIN, HAIR = 0, 128, 255


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
    matter: BACKGROUND, SKIN or HAIR, the final size.
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
    mask = small.resize(
      (4 * small.width, 4 * small.height), Image.Resampling.BILINEAR
    )
    x, y = (4 * corner).tolist()
    self.colour.paste(
      ink(colour), (x, y, x + mask.width, y + mask.height), mask
    )


def ink(value):
  """Rounds a colour [3] or a grey value for Pillow."""
  if isinstance(value, (np.ndarray, list)):
    return tuple(int(min(max(c, 0), 255)) for c in value)
  return int(min(max(value, 0), 255))


@functools.cache
def _circle(points: int) -> np.ndarray:
  angle = np.arange(points) * (2 * np.pi / points)
  return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def ellipse(x, y, width, height, points: int = 14) -> np.ndarray:
  """Returns a polygon [points, 2] with the given half-axes."""
  return _circle(points) * [width, height] + [x, y]


def mirror(right) -> np.ndarray:
  """Closes a right half [K, 2], listed from top to bottom."""
  right = np.asarray(right)
  return np.concatenate([right, right[::-1] * [-1, 1]])


def head_outline(t: synthetic_traits.Traits) -> np.ndarray:
  """Returns the skull, cheeks, jaw and chin as a closed curve [N, 2]."""
  w = t.half_width
  cheek = 0.96 + 0.08 * (1 - t.growth)
  return smooth(
    mirror(
      [(0.3 * w, -0.985), (0.68 * w, -0.84), (0.94 * w, -0.5), (w, -0.1),
       (cheek * w, 0.3), ((t.jaw + 0.06 * t.sag) * w, 0.62),
       ((t.chin + 0.05 * t.sag) * w, 0.91), (0.5 * t.chin * w, 1.0)]
    )
  )  # fmt: skip


def draw_body(canvas: Canvas, t, cloth) -> None:
  """Draws neck and shoulders, with the shadow under the chin."""
  n, w = t.neck * t.half_width, t.half_width
  slope = 0.9 + 0.9 * t.neck
  canvas.fill(
    [(n, 0.4), (n * 1.02, 1.2), (n * 1.25, 1.5), (-n * 1.25, 1.5),
     (-n * 1.02, 1.2), (-n, 0.4)], t.skin * 0.93, flat=True, matter=SKIN,
  )  # fmt: skip
  canvas.fill(
    ellipse(0, 1.1, w * t.jaw, 0.18), NEUTRAL * 0.66, 'relief', flat=True
  )
  canvas.fill(
    smooth(
      mirror([(n * 0.8, 1.36), (n * 1.15, 1.22), (w * slope, 1.38),
              (w * slope * 1.35, 1.7), (w * slope * 1.4, 3.2)])
    ), cloth, flat=True, matter=SKIN,
  )  # fmt: skip


def draw_head(canvas: Canvas, t, earring) -> None:
  """Draws ears and head; `earring` is a colour or None."""
  for side in _SIDES:
    x, y = side * t.half_width * 1.0, t.eye_y + 0.16
    canvas.fill(ellipse(x, y, 0.1, t.ear), t.skin * 0.94, matter=SKIN)
    canvas.fill(ellipse(x, y, 0.05, t.ear * 0.6), t.skin * 0.8)
    if earring is not None:
      canvas.fill(ellipse(x * 1.03, y + t.ear, 0.035, 0.045), earring)
  canvas.fill(head_outline(t), t.skin, matter=SKIN)


def draw_eye(canvas: Canvas, t, side: int, gaze: float) -> None:
  """Draws one eye with its lid and lashes."""
  x, y = side * t.eye_gap * t.half_width, t.eye_y
  w, h = t.eye_width, t.eye_height
  droop = 1 - 0.45 * min(t.lid, 1)
  upper = np.array(
    [(-w, 0.15 * h), (-0.5 * w, -0.75 * h * droop), (0.1 * w, -h * droop),
     (0.65 * w, -0.6 * h * droop), (w, 0.05 * h)]
  )  # fmt: skip
  lower = np.array([(0.5 * w, 0.62 * h), (-0.3 * w, 0.66 * h)])
  place, flip = np.array([x, y]), np.array([side, 1])
  if t.eye_shadow:
    canvas.tint(
      ellipse(x, y - 0.6 * h, 1.15 * w, 1.2 * h), [70, 50, 80], t.eye_shadow
    )
  canvas.fill(smooth(place + flip * np.concatenate([upper, lower])), [238] * 3)
  radius = 0.092 + 0.005 * (1 - t.growth)
  radius = min(radius, 0.95 * h + 0.02)
  middle = (x + gaze * w * 0.35, y - 0.02)
  canvas.fill(ellipse(*middle, radius, radius), t.iris)
  canvas.fill(ellipse(*middle, 0.45 * radius, 0.45 * radius), [16] * 3)
  canvas.fill(ellipse(middle[0] + 0.03, y - 0.05, 0.018, 0.018, 6), [250] * 3)
  # The lid covers the top of the iris.
  arch = smooth(upper, closed=False)
  cover = np.concatenate([arch, arch[::-1] - [0, 0.6 * h + 0.04]])
  canvas.fill(place + flip * cover, t.skin * 0.95)
  dark = np.minimum(t.skin * 0.45, 90)
  canvas.stroke(
    place + flip * smooth([upper[0], *lower[::-1], upper[-1]], False),
    t.skin * 0.62, 0.012,
  )  # fmt: skip
  canvas.stroke(place + flip * arch, dark * 0.6, 0.015 + 0.034 * t.lash)
  if t.lash > 0.6:
    for step in range(5):
      root = upper[2] + (upper[4] - upper[2]) * step / 4 + [0, -0.1 * h]
      tip = root + [0.02 + 0.01 * step, -0.03 - 0.03 * t.lash]
      canvas.stroke(place + flip * [root, tip], dark * 0.7, 0.008)
  crease = place + flip * (arch * [1.05, 1.1] - [0, 0.35 * h + 0.01])
  canvas.stroke(crease, NEUTRAL * (0.8 - 0.25 * t.lid), 0.02, 'lines')


def draw_brow(canvas: Canvas, t, side: int, colour) -> None:
  """Draws one eyebrow, thick at the nose and thin at the temple."""
  x, y = side * t.eye_gap * t.half_width, t.eye_y - t.eye_height
  y, b, arch = y - t.brow_lift, t.brow_width, t.brow_arch
  length = 0.13 + 0.35 * t.eye_width
  inner, top, tail = -length, 0.25 * length, 1.1 * length
  right = smooth(
    [(inner, 0.5 * b), (inner, -0.5 * b), (top, -arch - 0.65 * b),
     (tail, 0.03 - 0.1 * b), (top, -arch + 0.4 * b)]
  )  # fmt: skip
  canvas.fill(np.array([x, y]) + right * [side, 1], colour)


def draw_nose(canvas: Canvas, t, light: float) -> None:
  """Draws the nose: nostrils and wings as lines, bridge and tip as relief."""
  y, w = t.eye_y + t.nose_length, t.nose_width
  dark = t.skin * 0.45
  for side in _SIDES:
    canvas.fill(ellipse(side * 0.42 * w, y, 0.24 * w, 0.022, 8), dark)
    wing = smooth(
      [(side * 0.75 * w, y - 0.1), (side * w, y - 0.03),
       (side * 0.8 * w, y + 0.02)], closed=False,
    )  # fmt: skip
    canvas.stroke(wing, NEUTRAL * 0.6, 0.022, 'lines')
  shade = 1 if light < 0 else -1
  bridge = smooth(
    [(shade * 0.08, t.eye_y - 0.1), (shade * 0.05, t.eye_y + 0.08),
     (shade * 0.5 * w, y - 0.12)], closed=False,
  )  # fmt: skip
  canvas.stroke(bridge, NEUTRAL * (0.84 - 0.08 * t.growth), 0.035, 'lines')
  canvas.fill(ellipse(0, y - 0.08, 0.4 * w, 0.05), NEUTRAL * 1.25, 'relief')
  canvas.fill(ellipse(0, y + 0.06, 0.8 * w, 0.035), NEUTRAL * 0.75, 'relief')


def draw_mouth(canvas: Canvas, t) -> None:
  """Draws the lips, and the teeth of an open mouth."""
  y = t.eye_y + t.nose_length + t.mouth_gap
  w = t.mouth_width * (1 + 0.15 * t.smile)
  corner, lip = y - 0.07 * t.smile, t.lip
  gap = 0.07 * max(t.smile, 0.2) if t.open_mouth else 0.0
  up = [(-w, corner), (-0.45 * w, y - 0.75 * lip), (-0.15 * w, y - lip),
        (0, y - 0.8 * lip), (0.15 * w, y - lip), (0.45 * w, y - 0.75 * lip),
        (w, corner)]  # fmt: skip
  low = [(0.5 * w, y + gap + 0.95 * lip), (0, y + gap + 1.35 * lip),
         (-0.5 * w, y + gap + 0.95 * lip)]  # fmt: skip
  canvas.fill(smooth(up + low), t.lips)
  line = [(-w, corner), (-0.4 * w, y), (0, y + 0.006), (0.4 * w, y)]
  line = line + [(w, corner)]
  if gap:
    inside = [(0.5 * w, y + gap * 0.9), (-0.5 * w, y + gap * 0.9)]
    canvas.fill(smooth(line + inside), [232, 226, 216])
    canvas.stroke(smooth(line + inside)[::4], t.lips * 0.5, 0.012)
  else:
    canvas.stroke(smooth(line, closed=False), t.lips * 0.5, 0.022)
  canvas.fill(
    ellipse(0, y + gap + 0.12, 0.5 * w, 0.04), NEUTRAL * 0.8, 'relief'
  )
