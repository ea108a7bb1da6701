"""Draws the parts of a face: body, head, eyes, brows, nose and mouth.

Every function takes a synthetic_canvas.Canvas and synthetic_traits.Traits `t`.
"""

import numpy as np

from agegender_jax.data.synthetic_faces import canvas as shapes
from agegender_jax.data.synthetic_faces import traits

_SIDES = (-1, 1)
_NEUTRAL = shapes.NEUTRAL


def head_outline(t: traits.Traits) -> np.ndarray:
  """Returns the skull, cheeks, jaw and chin as a closed curve [N, 2]."""
  w = t.half_width
  cheek = 0.96 + 0.08 * (1 - t.growth)
  return shapes.smooth(
    shapes.mirror(
      [(0.3 * w, -0.985), (0.68 * w, -0.84), (0.94 * w, -0.5), (w, -0.1),
       (cheek * w, 0.3), ((t.jaw + 0.1 * t.sag) * w, 0.62),
       ((t.chin + 0.05 * t.sag) * w, 0.91), (0.5 * t.chin * w, 1.0)]
    )
  )  # fmt: skip


def draw_body(canvas: shapes.Canvas, t, cloth) -> None:
  """Draws neck and shoulders, with the shadow under the chin."""
  n, w = t.neck * t.half_width, t.half_width
  slope = 0.9 + 0.9 * t.neck
  canvas.fill(
    [(n, 0.4), (n * 1.02, 1.2), (n * 1.25, 1.5), (-n * 1.25, 1.5),
     (-n * 1.02, 1.2), (-n, 0.4)], t.skin * 0.93, flat=True, matter=shapes.SKIN,
  )  # fmt: skip
  canvas.fill(
    shapes.ellipse(0, 1.1, w * t.jaw, 0.18),
    _NEUTRAL * 0.66,
    'relief',
    flat=True,
  )
  canvas.fill(
    shapes.smooth(
      shapes.mirror([(n * 0.8, 1.36), (n * 1.15, 1.22), (w * slope, 1.38),
              (w * slope * 1.35, 1.7), (w * slope * 1.4, 3.2)])
    ), cloth, flat=True, matter=shapes.CLOTH,
  )  # fmt: skip


def draw_head(canvas: shapes.Canvas, t, earring) -> None:
  """Draws ears and head; `earring` is a colour or None."""
  for side in _SIDES:
    x, y = side * t.half_width * 1.0, t.eye_y + 0.16
    canvas.fill(shapes.ellipse(x, y, 0.1, t.ear), t.skin * 0.94, matter=shapes.SKIN)
    canvas.fill(shapes.ellipse(x, y, 0.05, t.ear * 0.6), t.skin * 0.8)
    if earring is not None:
      canvas.fill(shapes.ellipse(x * 1.03, y + t.ear, 0.035, 0.045), earring)
  canvas.fill(head_outline(t), t.skin, matter=shapes.SKIN)


def draw_eye(canvas: shapes.Canvas, t, side: int, gaze: float) -> None:
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
      shapes.ellipse(x, y - 0.6 * h, 1.15 * w, 1.2 * h),
      [70, 50, 80],
      t.eye_shadow,
    )
  canvas.fill(shapes.smooth(place + flip * np.concatenate([upper, lower])), [238] * 3)
  radius = 0.092 + 0.005 * (1 - t.growth)
  radius = min(radius, 0.95 * h + 0.02)
  middle = (x + gaze * w * 0.35, y - 0.02)
  canvas.fill(shapes.ellipse(*middle, radius, radius), t.iris)
  canvas.fill(shapes.ellipse(*middle, 0.45 * radius, 0.45 * radius), [16] * 3)
  canvas.fill(shapes.ellipse(middle[0] + 0.03, y - 0.05, 0.018, 0.018, 6), [250] * 3)
  # The lid covers the top of the iris.
  arch = shapes.smooth(upper, closed=False)
  cover = np.concatenate([arch, arch[::-1] - [0, 0.6 * h + 0.04]])
  canvas.fill(place + flip * cover, t.skin * 0.95)
  dark = np.minimum(t.skin * 0.45, 90)
  canvas.stroke(
    place + flip * shapes.smooth([upper[0], *lower[::-1], upper[-1]], False),
    t.skin * 0.62, 0.012,
  )  # fmt: skip
  canvas.stroke(place + flip * arch, dark * 0.6, 0.015 + 0.034 * t.lash)
  if t.lash > 0.6:
    for step in range(5):
      root = upper[2] + (upper[4] - upper[2]) * step / 4 + [0, -0.1 * h]
      tip = root + [0.02 + 0.01 * step, -0.03 - 0.03 * t.lash]
      canvas.stroke(place + flip * [root, tip], dark * 0.7, 0.008)
  crease = place + flip * (arch * [1.05, 1.1] - [0, 0.35 * h + 0.01])
  canvas.stroke(crease, _NEUTRAL * (0.8 - 0.25 * t.lid), 0.02, 'lines')


def draw_brow(canvas: shapes.Canvas, t, side: int, colour) -> None:
  """Draws one eyebrow, thick at the nose and thin at the temple."""
  x, y = side * t.eye_gap * t.half_width, t.eye_y - t.eye_height
  y, b, arch = y - t.brow_lift, t.brow_width, t.brow_arch
  length = 0.13 + 0.35 * t.eye_width
  inner, top, tail = -length, 0.25 * length, 1.1 * length
  right = shapes.smooth(
    [(inner, 0.5 * b), (inner, -0.5 * b), (top, -arch - 0.65 * b),
     (tail, 0.03 - 0.1 * b), (top, -arch + 0.4 * b)]
  )  # fmt: skip
  canvas.fill(np.array([x, y]) + right * [side, 1], colour)


def draw_nose(canvas: shapes.Canvas, t, light: float) -> None:
  """Draws the nose: nostrils and wings as lines, bridge and tip as relief."""
  y, w = t.eye_y + t.nose_length, t.nose_width
  dark = t.skin * 0.45
  for side in _SIDES:
    canvas.fill(shapes.ellipse(side * 0.42 * w, y, 0.24 * w, 0.022, 8), dark)
    wing = shapes.smooth(
      [(side * 0.75 * w, y - 0.1), (side * w, y - 0.03),
       (side * 0.8 * w, y + 0.02)], closed=False,
    )  # fmt: skip
    canvas.stroke(wing, _NEUTRAL * 0.6, 0.022, 'lines')
  shade = 1 if light < 0 else -1
  bridge = shapes.smooth(
    [(shade * 0.08, t.eye_y - 0.1), (shade * 0.05, t.eye_y + 0.08),
     (shade * 0.5 * w, y - 0.12)], closed=False,
  )  # fmt: skip
  canvas.stroke(bridge, _NEUTRAL * (0.84 - 0.08 * t.growth), 0.035, 'lines')
  canvas.fill(shapes.ellipse(0, y - 0.08, 0.4 * w, 0.05), _NEUTRAL * 1.25, 'relief')
  canvas.fill(shapes.ellipse(0, y + 0.06, 0.8 * w, 0.035), _NEUTRAL * 0.75, 'relief')


def draw_mouth(canvas: shapes.Canvas, t) -> None:
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
  canvas.fill(shapes.smooth(up + low), t.lips)
  line = [(-w, corner), (-0.4 * w, y), (0, y + 0.006), (0.4 * w, y)]
  line = line + [(w, corner)]
  if gap:
    inside = [(0.5 * w, y + gap * 0.9), (-0.5 * w, y + gap * 0.9)]
    canvas.fill(shapes.smooth(line + inside), [232, 226, 216])
    canvas.stroke(shapes.smooth(line + inside)[::4], t.lips * 0.5, 0.012)
  else:
    canvas.stroke(shapes.smooth(line, closed=False), t.lips * 0.5, 0.022)
  canvas.fill(
    shapes.ellipse(0, y + gap + 0.12, 0.5 * w, 0.04), _NEUTRAL * 0.8, 'relief'
  )
