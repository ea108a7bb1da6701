"""Paints a person: a canvas of layers under one pose, and the parts of a face.

Points are in head units (see person): x to the viewer's right, y down, the
skull at y = -1 and the chin at y = +1. The functions that draw take a Canvas
and the traits `t` of a person.
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
    colour: RGB image, twice the final size.
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
    """Turns head units [N, 2] into pixels [N, 2] of the final image.

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

  def tint(self, points, colour, opacity):
    """Blends a soft-edged polygon into the image."""
    pixels = self.project(points) / 2
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


_SIDES = (-1, 1)


def head_outline(t) -> np.ndarray:
  """Returns the skull, cheeks, jaw and chin as a closed curve [N, 2]."""
  w = t.half_width
  cheek = 0.96 + 0.08 * (1 - t.growth)
  return smooth(
    mirror(
      [(0.3 * w, -0.985), (0.68 * w, -0.84), (0.94 * w, -0.5), (w, -0.1),
       (cheek * w, 0.3), ((t.jaw + 0.1 * t.sag) * w, 0.62),
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
    ellipse(0, 1.1, w * t.jaw, 0.18),
    NEUTRAL * 0.66,
    'relief',
    flat=True,
  )
  canvas.fill(
    smooth(
      mirror([(n * 0.8, 1.36), (n * 1.15, 1.22), (w * slope, 1.38),
              (w * slope * 1.35, 1.7), (w * slope * 1.4, 3.2)])
    ), cloth, flat=True, matter=CLOTH,
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
      ellipse(x, y - 0.6 * h, 1.15 * w, 1.2 * h),
      [70, 50, 80],
      t.eye_shadow,
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
  canvas.fill(ellipse(0, y + gap + 0.12, 0.5 * w, 0.04), NEUTRAL * 0.8, 'relief')


def _crease(canvas, points, amount: float, width: float = 0.026) -> None:
  """Draws a fold of the skin: a dark line above a light one."""
  amount = min(amount, 1.2)
  curve = smooth(points, closed=False)
  light = NEUTRAL * (1 + 0.2 * amount)
  dark = NEUTRAL * (1 - 0.46 * amount)
  canvas.stroke(curve + [0, 0.022], light, width, 'lines')
  canvas.stroke(curve, dark, width * (0.8 + 0.6 * amount), 'lines')


def draw_wrinkles(canvas, t, rng) -> None:
  """Draws lines and spots of age as far as the traits have them."""
  w = t.half_width
  brow = t.eye_y - t.eye_height - t.brow_lift
  for line in range(4):
    amount = t.forehead * 1.25 - 0.16 * line
    if amount > 0.06:
      y = brow - 0.13 - 0.1 * line + rng.normal(0, 0.01)
      half = w * (0.35 + 0.25 * min(amount, 1))
      wave = rng.normal(0, 0.018, 5) - [0, 0.015, 0.02, 0.015, 0]
      x = np.linspace(-half, half, 5) + rng.normal(0, 0.03)
      _crease(canvas, np.stack([x, y + wave], -1), amount)
  for side in _SIDES:
    _wrinkle_side(canvas, t, np.array([side, 1]))
  for _ in range(int(12 * t.spots)):
    x, y = rng.uniform(-0.8, 0.8) * w, rng.uniform(-0.75, 0.75)
    spot = ellipse(x, y, rng.uniform(0.015, 0.04), 0.02, 8)
    canvas.fill(spot, NEUTRAL * rng.uniform(0.65, 0.85), 'lines')


def _wrinkle_side(canvas, t, flip) -> None:
  """Draws the lines that both halves of a face have; `flip` is [+-1, 1]."""
  brow = t.eye_y - t.eye_height - t.brow_lift
  nose = t.eye_y + t.nose_length
  mouth, corner = nose + t.mouth_gap, t.mouth_width
  if t.frown > 0.06:
    frown = [(0.05, brow - 0.06), (0.06, brow + 0.02), (0.05, brow + 0.09)]
    _crease(canvas, frown * flip, t.frown)
  x = t.eye_gap * t.half_width
  for line in range(4):
    amount = t.crow - 0.08 * line
    if amount > 0.05:
      slope = (-0.1, 0.09, -0.02, 0.16)[line]
      reach = 0.07 + 0.13 * min(amount, 1)
      start = np.array([x + t.eye_width + 0.025, t.eye_y + 0.4 * slope])
      fan = start + [(0, 0), (0.5 * reach, 0.4 * slope), (reach, slope)]
      _crease(canvas, fan * flip, amount, 0.02)
  if t.bags > 0.04:
    y = t.eye_y + t.eye_height
    bag = [(x - 0.14, y), (x - 0.05, y + 0.075), (x + 0.07, y + 0.075),
           (x + 0.14, y + 0.02)]  # fmt: skip
    _crease(canvas, bag * flip, t.bags)
  fold = [(t.nose_width + 0.02, nose - 0.06), (t.nose_width + 0.1, nose + 0.06),
          (corner + 0.07, mouth - 0.05),
          (corner + 0.08, mouth + 0.08 * min(t.folds, 1))]  # fmt: skip
  _crease(canvas, fold * flip, t.folds, 0.032)
  if t.folds > 0.45:
    drop = [(corner + 0.02, mouth + 0.05), (corner + 0.05, mouth + 0.14),
            (corner + 0.04, mouth + 0.22)]  # fmt: skip
    _crease(canvas, drop * flip, t.folds - 0.4)
  if t.sag > 0.05:
    neck = np.array([(0.12, 1.05), (0.16, 1.25), (0.1, 1.45)])
    dark = NEUTRAL * (1 - 0.4 * t.sag)
    canvas.stroke(neck * flip, dark, 0.03, 'lines', flat=True)


def draw_relief(canvas, t) -> None:
  """Draws the hollows and bulges of the cheeks and eyes, and the blush."""
  w, grey = t.half_width, NEUTRAL
  for side in _SIDES:
    if t.sag > 0.05:
      jowl = ellipse(side * 0.72 * t.jaw * w, 0.74, 0.06, 0.13)
      canvas.fill(jowl, grey * (1 - 0.35 * t.sag), 'relief')
    cheek = ellipse(side * 0.55 * w, t.eye_y + 0.3, 0.16, 0.1)
    canvas.fill(cheek, grey * 1.14, 'relief')
    hollow = ellipse(side * 0.62 * w, 0.55, 0.13, 0.2)
    canvas.fill(hollow, grey * (1.02 - 0.35 * t.hollow), 'relief')
    socket = ellipse(side * t.eye_gap * w, t.eye_y - 0.04, 0.2, 0.13)
    canvas.fill(socket, grey * (0.95 - 0.25 * min(t.bags, 1)), 'relief')
    rosy = ellipse(side * 0.55 * w, t.eye_y + 0.36, 0.17, 0.14)
    canvas.tint(rosy, t.skin * [1.02, 0.72, 0.7], t.blush)


def draw_back_hair(canvas, t, rng) -> None:
  """Draws the hair that hangs behind the neck."""
  if t.hair_end < 0:
    return
  w, v = t.half_width, t.hair_volume
  wide = w * (1.02 + v + rng.uniform(0.0, 0.22))
  ragged = rng.normal(0, 0.03 + 0.05 * t.curl, (2, 8))
  right = np.array(
    [(0.5 * w, -0.98 - v), (w * (1 + v), -0.6), (wide, -0.1),
     (wide * 1.03, 0.3 * t.hair_end), (wide * 1.03, 0.75 * t.hair_end),
     (0.9 * wide, t.hair_end), (0.4 * wide, t.hair_end)]
  )  # fmt: skip
  outline = mirror(right)
  outline[:, 0] += np.resize(ragged[0], len(outline))
  outline[:, 1] += np.resize(ragged[1], len(outline)) * (outline[:, 1] > 0)
  canvas.fill(smooth(outline), t.hair * 0.78, flat=True, matter=HAIR)


def _sides(canvas, t) -> None:
  """Draws the hair that a bald head keeps above its ears."""
  w, v = t.half_width, t.hair_volume
  for side in _SIDES:
    patch = np.array(
      [(0.93 * w, -0.55), (w * (1.03 + v), -0.4), (w * (1.04 + v), 0.0),
       (0.98 * w, 0.12), (0.93 * w, -0.1), (0.86 * w, -0.3)]
    )  # fmt: skip
    canvas.fill(smooth(patch * [side, 1]), t.hair, matter=HAIR)


def _locks(canvas, t, rng) -> None:
  """Draws the long hair that falls in front of the ears."""
  w, v, end = t.half_width, t.hair_volume, min(t.hair_end, 1.6)
  for side in _SIDES:
    cover = rng.uniform(0.78, 1.0)
    lock = [(0.7 * w, -0.75), (w * (1 + v), -0.5), (w * (1.1 + v), 0.1),
            (w * (1.12 + v), 0.9 * end), (w * 0.95, end),
            (w * (0.1 + 0.9 * cover), 0.5 * end), (w * cover, 0.0),
            (0.86 * w, -0.35)]  # fmt: skip
    lock = smooth(np.array(lock) * [side, 1])
    canvas.fill(lock, t.hair * 0.92, matter=HAIR)


def draw_front_hair(canvas, t, rng) -> None:
  """Draws the hair on top of the head and in front of the ears."""
  if t.bald:
    _sides(canvas, t)
    return
  w, v = t.half_width, t.hair_volume
  burn = 0.1 + 0.12 * rng.random()
  rough = 0.01 + 0.035 * t.curl
  outer = [(w * (1.0 + 0.4 * v), burn), (w * (1.01 + v), -0.2),
           (w * (1.0 + v), -0.52), (w * (0.76 + v), -0.85 - 0.5 * v),
           (0.36 * w, -1.0 - v), (0, -1.01 - v)]  # fmt: skip
  line, rec = t.hairline, min(t.recession, 1.2)
  temple = line + 0.12 - 0.34 * rec
  inner = [(0.62 * w * (1 - 0.2 * rec), max(temple, -0.93)),
           (0.86 * w, -0.36 - 0.1 * rec), (0.92 * w, -0.05),
           (0.95 * w, burn)]  # fmt: skip
  outer, inner = np.array(outer), np.array(inner)
  left, top = outer * [-1, 1], outer[::-1]
  rim = np.concatenate([left, top[1:]])
  rim = rim + rng.normal(0, rough, rim.shape)
  middle = line
  if t.fringe:
    middle = t.eye_y - t.eye_height - t.brow_lift - rng.uniform(0.0, 0.12)
    inner[0, 1] = inner[1, 1] = middle + 0.03
  across = np.linspace(0.5 * w, -0.5 * w, 5)
  height = middle + rng.normal(0, 0.02 + 0.02 * t.fringe, 5)
  if not t.fringe:
    # The hair rises at the parting.
    height = height - 0.07 * np.exp(-(((across - t.parting) / 0.15) ** 2))
  hairline = np.concatenate(
    [inner[::-1], np.stack([across, np.maximum(height, -0.93)], -1),
     inner * [-1, 1]]
  )  # fmt: skip
  outline = smooth(np.concatenate([rim, hairline]))
  canvas.fill(outline, t.hair, matter=HAIR)
  if t.hair_end > 0:
    _locks(canvas, t, rng)


def draw_beard(canvas, t, rng) -> None:
  """Draws a beard or a moustache under the mouth's place."""
  if not t.beard:
    return
  w = t.half_width
  nose = t.eye_y + t.nose_length
  mouth = nose + t.mouth_gap
  colour = t.hair * 0.85
  across = t.mouth_width * 1.3
  moustache = smooth(
    mirror(
      [(0.25 * across, nose + 0.05), (0.8 * across, mouth - 0.06),
       (across, mouth + 0.08), (0.6 * across, mouth)]
    )
  )  # fmt: skip
  canvas.tint(moustache, colour, t.beard)
  if t.moustache_only:
    return
  low = 1.02 + 0.15 * t.beard * rng.random()
  right = [(0.99 * w, 0.1), (t.jaw * w * 1.01, 0.64),
           (t.chin * w * 1.1, 0.94), (0.4 * t.chin * w, low)]  # fmt: skip
  upper = [(0.35 * across, mouth + 0.14), (across, mouth + 0.1),
           (0.8 * t.jaw * w, mouth - 0.12), (0.9 * w, 0.15)]  # fmt: skip
  right, upper = np.array(right), np.array(upper)
  outline = np.concatenate(
    [right, right[::-1] * [-1, 1], (upper * [-1, 1])[::-1], upper]
  )
  canvas.tint(smooth(outline), colour, t.beard)


def draw_glasses(canvas, t, rng) -> None:
  """Draws glasses, which say nothing about age or gender."""
  if not t.glasses:
    return
  colour = np.full(3, rng.uniform(15, 110)) + rng.normal(0, 12, 3)
  width = rng.uniform(0.018, 0.045)
  half, tall = rng.uniform(0.24, 0.29), rng.uniform(0.15, 0.23)
  power = rng.uniform(0.35, 1.0)
  angle = np.arange(17) * (2 * np.pi / 16)
  cos, sin = np.cos(angle), np.sin(angle)
  x = half * np.sign(cos) * np.abs(cos) ** power
  y = tall * np.sign(sin) * np.abs(sin) ** power
  gap = t.eye_gap * t.half_width
  for side in _SIDES:
    rim = np.stack([side * gap + x, t.eye_y + 0.03 + y], -1)
    canvas.stroke(rim, colour, width)
    arm = [
      (side * (gap + half), t.eye_y),
      (side * t.half_width, t.eye_y - 0.03),
    ]
    canvas.stroke(arm, colour, width)
  bridge = [(-gap + half, t.eye_y), (gap - half, t.eye_y)]
  canvas.stroke(bridge, colour, width)
