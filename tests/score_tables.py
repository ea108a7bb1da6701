"""Tables of predictions for the tests of scores."""

import numpy as np

from agegender_jax import schema


def table(**columns):
  """Five examples; of the last one no label is known."""
  result = {
    'age': np.array([10.0, 20, 30, 40, -1], np.float32),
    'age_pred': np.array([11.0, 18, 36, 40, 99], np.float32),
    'age_group': np.array([2, 3, 4, 5, -1]),
    'age_group_pred': np.array([2, 4, 6, 5, 0]),
    'gender': np.array([0, 0, 0, 1, -1]),
    'gender_prob': np.array([0.1, 0.2, 0.9, 0.8, 0.5]),
  }
  return {**result, **columns}


def random_table(count, seed=0, unknown=0.2, steps=0):
  """Random predictions, better than chance; `steps` makes ties of P."""
  random = np.random.default_rng(seed)
  gender = random.integers(0, 2, count)
  prob = 1 / (1 + np.exp(-random.normal(2.0 * gender - 1, 2.0)))
  if steps:
    prob = np.round(prob * steps) / steps
  age = random.integers(0, 95, count).astype(float)
  group = random.integers(0, 8, count)
  shift = random.choice([-2, -1, 0, 0, 0, 1], count)
  result = {
    'age': age,
    'age_pred': (age + random.normal(1, 8, count)).astype(np.float32),
    'age_group': group,
    'age_group_pred': np.clip(group + shift, 0, 7),
    'gender': gender,
    'gender_prob': prob.astype(np.float32),
  }
  for label in ('age', 'age_group', 'gender'):
    hidden = random.random(count) < unknown
    result[label] = np.where(hidden, schema.UNKNOWN, result[label])
  return result
