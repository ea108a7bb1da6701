"""Draws what time and taste add to a face: wrinkles, hair, beard, glasses."""

import numpy as np

from agegender_jax.data.synthetic_faces import canvas as shapes

_SIDES = (-1, 1)


def _crease(canvas, points, amount: float, width: float = 0.026) -> None:
  """Draws a fold of the skin: a dark line above a light one."""
  amount = min(amount, 1.2)
  curve = shapes.smooth(points, closed=False)
  light = shapes.NEUTRAL * (1 + 0.2 * amount)
  dark = shapes.NEUTRAL * (1 - 0.46 * amount)
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
    spot = shapes.ellipse(x, y, rng.uniform(0.015, 0.04), 0.02, 8)
    canvas.fill(spot, shapes.NEUTRAL * rng.uniform(0.65, 0.85), 'lines')


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
    dark = shapes.NEUTRAL * (1 - 0.4 * t.sag)
    canvas.stroke(neck * flip, dark, 0.03, 'lines', flat=True)


def draw_relief(canvas, t) -> None:
  """Draws the hollows and bulges of the cheeks and eyes, and the blush."""
  w, grey = t.half_width, shapes.NEUTRAL
  for side in _SIDES:
    if t.sag > 0.05:
      jowl = shapes.ellipse(side * 0.72 * t.jaw * w, 0.74, 0.06, 0.13)
      canvas.fill(jowl, grey * (1 - 0.35 * t.sag), 'relief')
    cheek = shapes.ellipse(side * 0.55 * w, t.eye_y + 0.3, 0.16, 0.1)
    canvas.fill(cheek, grey * 1.14, 'relief')
    hollow = shapes.ellipse(side * 0.62 * w, 0.55, 0.13, 0.2)
    canvas.fill(hollow, grey * (1.02 - 0.35 * t.hollow), 'relief')
    socket = shapes.ellipse(side * t.eye_gap * w, t.eye_y - 0.04, 0.2, 0.13)
    canvas.fill(socket, grey * (0.95 - 0.25 * min(t.bags, 1)), 'relief')
    rosy = shapes.ellipse(side * 0.55 * w, t.eye_y + 0.36, 0.17, 0.14)
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
  outline = shapes.mirror(right)
  outline[:, 0] += np.resize(ragged[0], len(outline))
  outline[:, 1] += np.resize(ragged[1], len(outline)) * (outline[:, 1] > 0)
  canvas.fill(shapes.smooth(outline), t.hair * 0.78, flat=True, matter=shapes.HAIR)


def _sides(canvas, t) -> None:
  """Draws the hair that a bald head keeps above its ears."""
  w, v = t.half_width, t.hair_volume
  for side in _SIDES:
    patch = np.array(
      [(0.93 * w, -0.55), (w * (1.03 + v), -0.4), (w * (1.04 + v), 0.0),
       (0.98 * w, 0.12), (0.93 * w, -0.1), (0.86 * w, -0.3)]
    )  # fmt: skip
    canvas.fill(shapes.smooth(patch * [side, 1]), t.hair, matter=shapes.HAIR)


def _locks(canvas, t, rng) -> None:
  """Draws the long hair that falls in front of the ears."""
  w, v, end = t.half_width, t.hair_volume, min(t.hair_end, 1.6)
  for side in _SIDES:
    cover = rng.uniform(0.78, 1.0)
    lock = [(0.7 * w, -0.75), (w * (1 + v), -0.5), (w * (1.1 + v), 0.1),
            (w * (1.12 + v), 0.9 * end), (w * 0.95, end),
            (w * (0.1 + 0.9 * cover), 0.5 * end), (w * cover, 0.0),
            (0.86 * w, -0.35)]  # fmt: skip
    lock = shapes.smooth(np.array(lock) * [side, 1])
    canvas.fill(lock, t.hair * 0.92, matter=shapes.HAIR)


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
  outline = shapes.smooth(np.concatenate([rim, hairline]))
  canvas.fill(outline, t.hair, matter=shapes.HAIR)
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
  moustache = shapes.smooth(
    shapes.mirror(
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
  canvas.tint(shapes.smooth(outline), colour, t.beard)


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
