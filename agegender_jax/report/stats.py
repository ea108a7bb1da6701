"""Numbers that the page computes from predictions.csv."""

import numpy as np

from agegender_jax import schema
from agegender_jax.report import run as run_lib

# First year of each bin of the error table; the last is open-ended.
AGE_BINS = (0, 10, 20, 30, 40, 50, 60, 70, 80)
BOOTSTRAP_SAMPLES = 1000
_DRAWS_AT_ONCE = 1_000_000


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple:
  """Returns the 95 % percentile interval of a mean.

  Args:
    values: float [N], one an example.
    seed: of the resampling.

  Returns:
    (low, high); NaN where N = 0.
  """
  count = len(values)
  if count == 0:
    return np.nan, np.nan
  generator = np.random.default_rng(seed)
  # Some resamples at a time: all of 100,000 examples would fill the memory.
  at_once = max(1, _DRAWS_AT_ONCE // count)
  means = []
  for start in range(0, BOOTSTRAP_SAMPLES, at_once):
    size = (min(at_once, BOOTSTRAP_SAMPLES - start), count)
    means.append(values[generator.integers(count, size=size)].mean(axis=1))
  low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
  return float(low), float(high)


def estimate(values: np.ndarray) -> dict:
  """Returns a mean with its interval and count.

  Args:
    values: float or bool [N].

  Returns:
    {'value', 'low', 'high', 'count'}; NaN where N = 0.
  """
  values = np.asarray(values, np.float64)
  low, high = bootstrap_interval(values)
  value = float(values.mean()) if len(values) else np.nan
  return {'value': value, 'low': low, 'high': high, 'count': len(values)}


def age_bins(predictions: run_lib.Predictions, group_names: list) -> list:
  """Splits the examples by true age, else by true age group.

  Args:
    predictions: N rows.
    group_names: name of each age group.

  Returns:
    Pairs (name, bool [N]) of the bins that are not empty.
  """
  if np.isnan(predictions.age).all():
    bins = [
      (name, predictions.age_group == row)
      for row, name in enumerate(group_names)
    ]
  else:
    ends = (*AGE_BINS[1:], np.inf)
    bins = [
      (
        f'{low}-{high - 1}' if np.isfinite(high) else f'{low}+',
        (predictions.age >= low) & (predictions.age < high),
      )
      for low, high in zip(AGE_BINS, ends, strict=True)
    ]
  return [(name, chosen) for name, chosen in bins if chosen.any()]


def errors_by_age(predictions: run_lib.Predictions, group_names: list) -> list:
  """Scores each age bin.

  Args:
    predictions: N rows.
    group_names: name of each age group.

  Returns:
    A dict a bin: `name`, `count`, and estimates `age_mae` and `age_bias`
    (years), `group_exact`, `group_one_off`, `gender_accuracy` (fractions).
  """
  error = predictions.age_pred - predictions.age
  offset = np.abs(predictions.age_group_pred - predictions.age_group)
  right = predictions.gender_pred == predictions.gender
  rows = []
  for name, chosen in age_bins(predictions, group_names):
    aged = error[chosen & predictions.age_known]
    grouped = offset[chosen & predictions.group_known]
    rows.append({
      'name': name,
      'count': int(chosen.sum()),
      'age_mae': estimate(np.abs(aged)),
      'age_bias': estimate(aged),
      'group_exact': estimate(grouped == 0),
      'group_one_off': estimate(grouped <= 1),
      'gender_accuracy': estimate(right[chosen & predictions.gender_known]),
    })  # fmt: skip
  return rows


def confusion(true: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
  """Counts pairs of classes.

  Args:
    true: int [N], UNKNOWN where not known.
    predicted: int [N], likewise.
    size: number of classes K.

  Returns:
    int [K, K], rows true, columns predicted.
  """
  known = (true != schema.UNKNOWN) & (predicted != schema.UNKNOWN)
  result = np.zeros((size, size), np.int64)
  np.add.at(result, (true[known], predicted[known]), 1)
  return result


def paired_difference(
  first: run_lib.Predictions, second: run_lib.Predictions
) -> dict:
  """Compares two runs on the pictures that both scored.

  Args:
    first: predictions of the run to compare with.
    second: predictions of the other.

  Returns:
    Estimates, second minus first: `age_error`, |error| in years (below 0: the
    second is better), and `gender_correct`, a fraction (above 0: the second is
    better). Pictures whose labels differ, or whose name is not unique, are
    left out.
  """
  rows = [_unique_rows(first.name), _unique_rows(second.name)]
  shared = [name for name in rows[0] if name in rows[1]]
  one = np.array([rows[0][name] for name in shared], np.int64)
  two = np.array([rows[1][name] for name in shared], np.int64)
  aged = first.age_known[one] & second.age_known[two]
  aged &= first.age[one] == second.age[two]
  error_one = np.abs(first.age_pred - first.age)[one][aged]
  error_two = np.abs(second.age_pred - second.age)[two][aged]
  known = first.gender_known[one] & second.gender_known[two]
  known &= first.gender[one] == second.gender[two]
  right_one = (first.gender_pred == first.gender)[one][known]
  right_two = (second.gender_pred == second.gender)[two][known]
  return {
    'age_error': estimate(error_two - error_one),
    'gender_correct': estimate(right_two * 1.0 - right_one),
  }


def _unique_rows(names):
  """Returns the row of each name that occurs once."""
  rows, again = {}, set()
  for row, name in enumerate(names):
    again.update([name] if name in rows else [])
    rows[name] = row
  return {name: row for name, row in rows.items() if name not in again}
