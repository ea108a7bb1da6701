"""How well a calibration holds on the pictures scored: NumPy and SciPy only."""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy

from agegender_jax import schema
from agegender_jax.scoring import calibration


def predicted_age_bins(
  fitted: Mapping, age_pred: np.ndarray
) -> list[tuple[str, np.ndarray]]:
  """Lists the bins of predicted age within which the coverage is promised.

  Args:
    fitted: see calibration.fit_ages.
    age_pred: float [N], years.

  Returns:
    (name, such as `24.1 to 29.0`, bool [N]) of each bin.
  """
  edges = [f'{edge:.1f}' for edge in fitted['edges']]
  names = ['all']
  if edges:
    between = map('{} to {}'.format, edges, edges[1:])
    names = [f'below {edges[0]}', *between, f'from {edges[-1]}']
  rows = np.searchsorted(fitted['edges'], age_pred, side='right')
  return [(name, rows == row) for row, name in enumerate(names)]


def measure(
  fitted: Mapping,
  age: np.ndarray,
  age_pred: np.ndarray,
  columns: Mapping[str, Sequence[tuple[str, np.ndarray]]],
) -> list[dict]:
  """Measures how often the intervals hold the true age, and how wide they are.

  Args:
    fitted: see calibration.fit_ages.
    age: float [N], years; UNKNOWN is left out.
    age_pred: float [N], years.
    columns: name -> (group's name, bool [N]) of each group.

  Returns:
    For each level a row of all examples, then one a group that has any:
    `level`, `column` and `group` ('' of all), `count`, `coverage` with the
    bounds `low` and `high` of its 95 % interval (Wilson 1927) and the mean
    `width`, years.
  """
  known = age != schema.UNKNOWN
  parts = [('', '', known)]
  for column, groups in columns.items():
    parts += [(column, name, known & chosen) for name, chosen in groups]
  result = []
  for level in calibration.LEVELS:
    low, high = calibration.age_interval(fitted, age_pred, level)
    inside = (low <= age) & (age <= high)
    for column, group, rows in parts:
      count, hits = int(rows.sum()), int(inside[rows].sum())
      if not count:
        continue
      bounds = scipy.stats.binomtest(hits, count).proportion_ci(method='wilson')
      result.append({
        'level': level, 'column': column, 'group': group, 'count': count,
        'coverage': hits / count,
        'low': float(bounds.low), 'high': float(bounds.high),
        'width': float((high - low)[rows].mean()),
      })  # fmt: skip
  return result
