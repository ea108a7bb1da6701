"""Who a drawn face is: random traits in which age and gender overlap.

No single trait settles a label. Gender moves a dozen shape traits by about
one and a half standard deviations each, less in children; age moves growth
(to 19 years) and then a dozen traits of wear, each with its own noise.
Lengths are in units of half the head's height: skull at y = -1, chin at +1.
"""

import types

import numpy as np

from agegender_jax import schema

# (weight, mean, standard deviation): a peak in the late twenties, a bump of
# small children and a long tail, as in face data sets collected from the web.
_AGE_MIXTURE = (
  (0.09, 3.0, 3.0),
  (0.09, 11.0, 5.0),
  (0.46, 28.0, 7.0),
  (0.23, 45.0, 11.0),
  (0.13, 66.0, 12.0),
)
FIRST_AGE, LAST_AGE = 1, 90

# Mean of adults between the genders; what childhood, wear and masculinity
# (each 0 to 1, the last -1 to 1 with noise of its own) add; standard
# deviation of further noise; lower bound.
_SHAPE = {
  'half_width': (0.72, 0.2, 0.0, 0.012, 0.02, 0.5),  # Of the head.
  'jaw': (0.79, 0.07, 0.08, 0.05, 0.0, 0.5),  # Half-width at the mouth, of half_width.
  'chin': (0.43, 0.06, 0.0, 0.06, 0.0, 0.2),  # Half-width above it, likewise.
  'neck': (0.61, -0.3, 0.0, 0.075, 0.0, 0.25),  # Half-width, likewise.
  'ear': (0.19, 0.0, 0.11, 0.0, 0.015, 0.1),  # Half-length.
  'eye_y': (-0.02, 0.38, -0.03, 0.0, 0.015, -0.2),
  'eye_width': (0.155, 0.07, -0.01, -0.007, 0.006, 0.1),
  'eye_height': (0.07, 0.1, -0.018, -0.01, 0.006, 0.025),
  'eye_gap': (0.46, 0.01, 0.0, 0.0, 0.015, 0.38),  # Centre to pupil, of half_width.
  'lash': (0.45, -0.1, 0.0, -0.35, 0.0, 0.1),  # Thickness of the line of lashes.
  'brow_width': (0.05, -0.022, -0.01, 0.02, 0.0, 0.014),  # Thickness.
  'brow_lift': (0.135, 0.02, -0.02, -0.028, 0.0, 0.03),  # Distance from the eye.
  'brow_arch': (0.04, 0.0, 0.0, -0.025, 0.0, 0.0),
  'nose_length': (0.42, -0.22, 0.09, 0.018, 0.0, 0.15),
  'nose_width': (0.155, -0.03, 0.035, 0.014, 0.0, 0.08),
  'mouth_gap': (0.225, -0.06, 0.03, 0.0, 0.012, 0.12),  # From the nose.
  'mouth_width': (0.27, -0.07, 0.0, 0.012, 0.02, 0.12),
  'lip': (0.066, 0.0, -0.042, -0.016, 0.003, 0.018),  # Fullness.
}
# Strength at full wear, and the wear at which the mark sets in.
_MARKS = {
  'sag': (1.0, 0.3),  # Jowls.
  'lid': (0.9, 0.2),  # Drooping of the upper lids.
  'forehead': (1.1, 0.05),  # Lines across it.
  'frown': (1.0, 0.1),  # Lines between the brows.
  'crow': (1.2, 0.05),  # Crow's feet.
  'bags': (1.1, 0.0),  # Under the eyes.
  'folds': (1.2, 0.0),  # Nasolabial and marionette lines.
  'spots': (1.0, 0.4),
  'mottle': (1.0, 0.05),  # Unevenness of the skin.
  'hollow': (1.0, 0.1),  # Under the cheekbones.
}


def sample_age(rng: np.random.Generator) -> int:
  """Draws an age in whole years, FIRST_AGE to LAST_AGE."""
  weights = [row[0] for row in _AGE_MIXTURE]
  _, mean, deviation = _AGE_MIXTURE[rng.choice(len(weights), p=weights)]
  while True:
    age = int(np.floor(rng.normal(mean, deviation)))
    if FIRST_AGE <= age <= LAST_AGE:
      return age


def sample_traits(rng: np.random.Generator) -> types.SimpleNamespace:
  """Draws a person.

  Args:
    rng: source of every random choice.

  Returns:
    The traits, as attributes: those below, of _SHAPE and of _MARKS. Relative amounts
    are 0 (none) to about 1 (a lot).
  """
  gender = int(rng.integers(2))
  male = gender == schema.MALE
  age = sample_age(rng)
  apparent = age * np.exp(rng.normal(0, 0.05)) + rng.normal(0, 0.8)
  apparent = max(0.5, apparent)
  growth = float(np.clip(apparent / 19, 0, 1) ** 0.85)
  wear = float(np.clip((apparent - 20) / 60, 0, 1.15))
  contrast = (1 if male else -1) * (0.55 + 0.45 * growth)
  smooth = rng.uniform(0.45, 0.75) if rng.random() < 0.1 else 1.0
  greying = 1 / (1 + np.exp(-(apparent - rng.normal(52, 6.5)) / 5))

  shape = {}
  for name, (adult, child, worn, masculine, noise, least) in _SHAPE.items():
    value = adult + child * (1 - growth) + worn * wear + rng.normal(0, noise)
    value += masculine * (contrast + rng.normal(0, 0.6))
    shape[name] = max(least, value)
  marks = {}
  for name, (scale, onset) in _MARKS.items():
    mark = wear - onset + rng.normal(0, 0.055) * (growth >= 1)
    marks[name] = max(0.0, scale * smooth * mark)
  # Some lines of expression are there at any age.
  marks['folds'] += 0.06
  return types.SimpleNamespace(
    age=float(age),  # Years.
    gender=gender,
    growth=growth,  # 0 newborn to 1 adult.
    smile=rng.uniform(-0.25, 1.0),
    open_mouth=bool(rng.random() < 0.3),
    glasses=bool(rng.random() < 0.16),
    earrings=bool(rng.random() < 0.06),
    **shape,
    **marks,
    **sample_hair(rng, male, age, wear),
    **sample_beard(rng, male, age),
    **sample_colours(rng, male, age, growth, wear, greying),
  )


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
  """Draws skin, hair, iris and lips, RGB in 0..255; lipstick knows the gender."""
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
    'hair_end': end,  # Its y; -1 where it ends at the ears.
    'hair_volume': max(0.02, volume),
    # y of its middle.
    'hairline': -0.62 - 0.12 * min(recession, 1.2) + rng.normal(0, 0.04),
    'recession': recession,  # Of the temples.
    'bald': male and recession > rng.uniform(0.7, 1.1),
    'fringe': rng.random() < (0.15 if male else 0.3) * (1.3 - wear),
    'parting': rng.uniform(-0.4, 0.4),  # Its x.
    'curl': max(0.0, rng.normal(0.25, 0.4)),
  }


def sample_beard(rng, male, age) -> dict[str, object]:
  """Draws the beard: its opacity, stubble to full, in about half of the men."""
  kind = rng.random()
  opacity = 0.0
  if male and age > 16:
    if kind < 0.3:
      opacity = rng.uniform(0.15, 0.45)
    elif kind < 0.52:
      opacity = rng.uniform(0.6, 0.95)
  return {'beard': opacity, 'moustache_only': rng.random() < 0.2}
