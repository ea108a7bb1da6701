"""Draws colours, haircuts and beards at random for synthetic_traits."""

import numpy as np

# From light to dark, and from black to white.
_SKIN = np.array(
  [[238, 206, 186], [226, 182, 152], [206, 156, 120], [150, 102, 72],
   [92, 60, 46]], np.float32,
)  # fmt: skip
_HAIR = np.array(
  [[26, 22, 22], [56, 38, 28], [92, 64, 44], [132, 98, 66], [196, 164, 112]],
  np.float32,
)
_IRIS = np.array(
  [[60, 38, 24], [104, 72, 40], [84, 104, 62], [88, 120, 150]], np.float32
)


def _ramp(table: np.ndarray, position: float) -> np.ndarray:
  """Interpolates the colours of `table` at a position in 0..1."""
  place = np.clip(position, 0, 1) * (len(table) - 1)
  low = min(int(place), len(table) - 2)
  return table[low] + (place - low) * (table[low + 1] - table[low])


def sample_colours(rng, male, age, growth, wear, grey) -> dict[str, object]:
  """Draws skin, hair, iris and lips; only lipstick knows the gender."""
  melanin = rng.beta(1.1, 1.6)
  skin = _ramp(_SKIN, melanin) + rng.normal(0, [5, 4, 5])
  # Older skin is paler and less red.
  skin = skin + (skin.mean() - skin) * 0.35 * max(0.0, wear + rng.normal(0, 0.2))
  dark = rng.random() < 0.25 + 0.9 * melanin
  hair = _ramp(_HAIR, rng.uniform(0, 0.3 if dark else 1.0))
  hair = hair * rng.uniform(0.75, 1.1)
  if rng.random() < 0.06:
    hair = hair * 0.4 + np.array([84, 40, 18])
  dyed = rng.random() < (0.06 if male else 0.3)
  if dyed:
    hair = hair * np.array([1.15, 0.95, 0.9])
    grey = grey * rng.uniform(0, 0.35)
  grey_colour = rng.uniform(150, 225) * np.array([1.0, 0.99, 0.97])
  hair = hair + (grey_colour - hair) * 0.85 * grey
  iris = _ramp(_IRIS, rng.uniform(0, 0.4 if dark else 1.0))
  redness = rng.uniform(0.1, 0.4) + (0.0 if male else 0.12)
  made_up = not male and age > 15 and rng.random() < 0.4
  rouge = np.array([176, 52, 66]) + rng.normal(0, [18, 14, 14])
  if made_up:
    redness = rng.uniform(0.5, 0.95)
  lips = skin * np.array([0.9, 0.7, 0.7])
  lips = lips + redness * (rouge * (0.6 + skin.mean() / 510) - lips)
  shadow = rng.uniform(0.2, 0.7) if made_up and rng.random() < 0.7 else 0.0
  return {
    'skin': np.clip(skin, 20, 250), 'hair': np.clip(hair, 12, 240),
    'iris': iris, 'lips': np.clip(lips, 20, 240), 'eye_shadow': shadow,
    'grey': float(np.clip(grey, 0, 1)),
    'blush': rng.uniform(0, 0.3) + 0.4 * (1 - growth) + 0.15 * made_up,
  }  # fmt: skip


def sample_hair(rng, male, age, wear) -> dict[str, object]:
  """Draws a haircut: mostly long in women and short in men, not always."""
  old = age > 55
  if male:
    share = (0.84, 0.09, 0.07)
  else:
    share = (0.38, 0.36, 0.26) if old else (0.2, 0.24, 0.56)
  if age < 3:
    share = (0.8, 0.15, 0.05) if male else (0.5, 0.35, 0.15)
  cut = rng.choice(3, p=share)
  end = (-1.0, rng.uniform(0.3, 0.95), rng.uniform(1.0, 2.2))[cut]
  volume = 0.06 + 0.05 * cut + abs(rng.normal(0, 0.05)) - 0.02 * wear
  loss = 1.3 * wear + rng.normal(0, 0.25) - 0.15
  recession = max(0.0, loss if male else 0.25 * loss)
  if age < 2 and rng.random() < 0.6:
    volume = 0.02
  return {
    'hair_end': end,
    'hair_volume': max(0.02, volume),
    'hairline': -0.62 - 0.12 * min(recession, 1.2) + rng.normal(0, 0.04),
    'recession': recession,
    'bald': male and recession > rng.uniform(0.7, 1.1),
    'fringe': rng.random() < (0.15 if male else 0.3) * (1.3 - wear),
    'parting': rng.uniform(-0.4, 0.4),
    'curl': max(0.0, rng.normal(0.25, 0.4)),
  }


def sample_beard(rng, male, age) -> dict[str, object]:
  """Draws the beard: stubble to full, in about half of the men."""
  kind = rng.random()
  opacity = 0.0
  if male and age > 16:
    if kind < 0.3:
      opacity = rng.uniform(0.15, 0.45)
    elif kind < 0.52:
      opacity = rng.uniform(0.6, 0.95)
  return {'beard': opacity, 'moustache_only': rng.random() < 0.2}
