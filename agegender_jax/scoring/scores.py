"""Scores of a table of predictions and of pairs of them, with bounds."""

import collections
import math
from collections.abc import Mapping, Sequence

import numpy as np

from agegender_jax import schema
from agegender_jax.scoring import bootstrap, metrics


def score(table: Mapping[str, np.ndarray], num_samples: int) -> dict[str, float]:
  """Scores predictions, each score with the bounds of its 95 % interval.

  The interval is the percentile bootstrap over examples (Efron 1979).

  Args:
    table: columns [N]: labels `age` (years), `age_group`, `gender`, and those
      that the model gives of `age_pred` (years), `age_group_pred`,
      `gender_prob` (probability of FEMALE). UNKNOWN and NaN are unknown.
    num_samples: bootstrap resamples; 0 leaves the bounds out.

  Returns:
    Name of a metric -> value, and `<name>_low`, `<name>_high`. A
    score that the labels leave undefined is left out: all of those without
    any known label; of one gender alone the balanced accuracy and the AUC;
    kappa where all labels and predictions are one group.
  """
  views = {
    name: view
    for name, metric in metrics.METRICS.items()
    if (view := metrics.view(table, metric))
  }
  count = len(next(iter(table.values())))
  result = {}
  found = bootstrap.evaluate(views, count, num_samples)
  for name, (value, samples) in found.items():
    result[name] = value
    low, high = bootstrap.bounds(samples)
    if np.isfinite(low):
      result[f'{name}_low'], result[f'{name}_high'] = low, high
  return result


def majority_baseline(train_labels, labels) -> dict[str, float]:
  """Scores the predictor that knows nothing but the training labels.

  Args:
    train_labels: dict of `age` [N], years, `age_group` and `gender` [N].
    labels: the same of the examples to score.

  Returns:
    Scores as `score` gives them, of the median age, the commonest group and
    the share of females as everyone's P(female).
  """
  # Of a table's columns, age_low and age_high are a predicted interval.
  table = {key: np.asarray(labels[key]) for key in ('age', 'age_group', 'gender')}
  size = len(table['age'])
  for key, column, constant in (
    ('age', 'age_pred', np.median),
    ('age_group', 'age_group_pred', lambda known: np.bincount(known).argmax()),
    ('gender', 'gender_prob', lambda known: np.mean(known == schema.FEMALE)),
  ):
    known = train_labels[key][train_labels[key] != schema.UNKNOWN]
    if len(known):
      table[column] = np.full(size, constant(known))
  return score(table, num_samples=0)


def paired_difference(
  first: Mapping[str, Sequence],
  second: Mapping[str, Sequence],
  metric: str,
) -> dict[str, float]:
  """Compares two tables of predictions on the images that both scored.

  Args:
    first: see `score`; with a column `name` in both tables, rows of the same
      name belong together, without it rows of the same place. Names that are
      not unique are left out, and so are images whose labels differ.
    second: likewise.
    metric: key of metrics.METRICS.

  Returns:
    `value`, second minus first, `low`, `high`, its 95 % interval (NaN where
    undefined), and `count`, the shared images with a known label.
  """
  chosen = metrics.METRICS[metric]
  columns, label = chosen.needs, chosen.label
  result = {'value': math.nan, 'low': math.nan, 'high': math.nan, 'count': 0}
  if not set(columns) <= first.keys() & second.keys():
    return result
  tables = [
    {column: np.asarray(table[column])[rows] for column in columns}
    for table, rows in zip((first, second), _shared(first, second), strict=True)
  ]
  same = tables[0][label] == tables[1][label]
  for table in tables:
    for column in columns:
      same = same & metrics.is_known(table[column], column)
  views = {
    index: view
    for index, table in enumerate(tables)
    if (view := metrics.view(table, chosen, same))
  }
  result['count'] = int(same.sum())
  found = bootstrap.evaluate(views, len(same))
  if len(found) == 2:
    result['value'] = found[1][0] - found[0][0]
    result['low'], result['high'] = bootstrap.bounds(found[1][1] - found[0][1])
  return result


def _shared(first, second):
  """Returns the rows of each table whose names are unique and in both."""
  if 'name' not in first or 'name' not in second:
    return slice(None), slice(None)
  rows = []
  for table in (first, second):
    counts = collections.Counter(table['name'])
    unique = {name: row for row, name in enumerate(table['name']) if counts[name] == 1}
    rows.append(unique)
  names = [name for name in rows[0] if name in rows[1]]
  return tuple(np.array([row[n] for n in names], np.int64) for row in rows)
