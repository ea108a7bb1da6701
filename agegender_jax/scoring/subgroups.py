"""Behind the scores: subgroups, disparities, confusion, calibration curve."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from agegender_jax import schema
from agegender_jax.scoring import bootstrap, metrics

# Columns of the data with more values than this are no groups of people.
MAX_VALUES = 12


def split_groups(
  table: Mapping[str, np.ndarray],
  extras: Mapping[str, Sequence],
  group_names: Sequence[str],
) -> dict[str, list[tuple[str, np.ndarray]]]:
  """Splits examples into groups, in several ways.

  Args:
    table: columns [N]: the labels `age` (years), `age_group`, `gender`.
    extras: the data's own columns, N values each; UNKNOWN, NaN, None and ''
      are unknown.
    group_names: name of each age group.

  Returns:
    `gender`, `age` (see `by_age`), `gender x age`, and each extra column with
    2 to MAX_VALUES known values -> pairs (name, bool [N]) of the groups that
    are not empty. A way without any group is left out.
  """
  genders = [
    (name, np.asarray(table['gender']) == code)
    for code, name in enumerate(schema.GENDERS)
  ]
  ages = by_age(table, group_names)
  result = {
    'gender': genders,
    'age': ages,
    'gender x age': [
      (f'{gender}, {age}', of_gender & of_age)
      for gender, of_gender in genders
      for age, of_age in ages
    ],
  }
  for column, values in extras.items():
    result[column] = _by_value(values)
  filled = {
    column: [(name, chosen) for name, chosen in groups if chosen.any()]
    for column, groups in result.items()
  }
  return {column: groups for column, groups in filled.items() if groups}


def by_age(table, group_names) -> list[tuple[str, np.ndarray]]:
  """Splits by metrics.AGE_BINS, by age groups where no years are known."""
  if 'age' in table and (known := metrics.is_known(table['age'], 'age')).any():
    row = np.where(known, metrics.age_bin(table['age']), schema.UNKNOWN)
    names = metrics.age_bin_names()
  else:
    row, names = np.asarray(table['age_group']), group_names
  return [(name, row == index) for index, name in enumerate(names)]


def _by_value(values):
  """Returns pairs (name, bool [N]), none where they are no groups."""
  values = np.array(list(values), object)
  nothing = (schema.UNKNOWN, None, '')
  known = np.array([v not in nothing and v == v for v in values], bool)
  distinct = sorted(set(values[known]))
  if not 2 <= len(distinct) <= MAX_VALUES:
    return []
  return [(str(value), known & (values == value)) for value in distinct]


def details(
  table: Mapping[str, np.ndarray],
  extras: Mapping[str, Sequence],
  group_names: Sequence[str],
  num_samples: int,
) -> dict:
  """Computes what is behind the scores of all examples.

  Args:
    table: see scores.score.
    extras: the data's own columns, see split_groups.
    group_names: name of each age group.
    num_samples: bootstrap resamples of all examples, shared by all groups.

  Returns:
    For JSON, None for what is not known:
    `confusion`: `gender` and `age_group` -> `labels`, `counts` (rows true).
    `groups`: rows `column`, `group`, `count` and `scores`: metric ->
      `value`, `low`, `high` and the `count` of known labels.
    `disparities`: rows `column`, `metric`, `group`, `reference` (the column's largest
      group), `value` (group minus reference), `low`, `high`; by gender and
      by each extra column.
    `calibration`: `gender` -> `raw`, see `calibration_curve`.
  """
  columns = split_groups(table, extras, group_names)
  views = {
    (column, group, metric.name): view
    for column, found in columns.items()
    for group, chosen in found
    for metric in metrics.by_group()
    if (view := metrics.view(table, metric, chosen))
  }
  count = len(next(iter(table.values())))
  values = bootstrap.evaluate(views, count, num_samples)
  rows = []
  for column, parts in columns.items():
    for group, chosen in parts:
      scores = {
        metric.name: _estimate(*values[key]) | {'count': len(views[key].rows)}
        for metric in metrics.by_group()
        if (key := (column, group, metric.name)) in values
      }
      row = {'column': column, 'group': group, 'count': int(chosen.sum())}
      rows.append(row | {'scores': scores})
  result = {
    'confusion': _confusion(table, group_names),
    'groups': rows,
    'disparities': _disparities(columns, values),
    'calibration': {},
  }
  if 'gender_prob' in table:
    curve = calibration_curve(table['gender'], table['gender_prob'])
    result['calibration'] = {'gender': {'raw': curve}}
  return result


def _estimate(value, samples):
  """Returns a value with its bounds, None where there are none."""
  bounds = bootstrap.bounds(samples)
  low, high = (bound if np.isfinite(bound) else None for bound in bounds)
  return {'value': value, 'low': low, 'high': high}


def _disparities(columns, found):
  """Compares each group with the largest one of its column."""
  rows = []
  for column, parts in columns.items():
    if column in ('age', 'gender x age'):
      continue
    reference = max(parts, key=lambda part: part[1].sum())[0]
    for name in [metric.name for metric in metrics.by_group()]:
      for group, _ in parts:
        keys = (column, group, name), (column, reference, name)
        if group == reference or not all(key in found for key in keys):
          continue
        value, samples = (
          np.subtract(*pair) for pair in zip(*map(found.get, keys), strict=True)
        )
        row = {'column': column, 'metric': name, 'group': group, 'reference': reference}
        rows.append(row | _estimate(float(value), samples))
  return rows


def _confusion(table, group_names):
  """Counts true classes against predicted ones."""
  names = {'gender': schema.GENDERS, 'age_group': group_names}
  result = {}
  for label, labels in names.items():
    view = metrics.view(table, metrics.METRICS[f'{label}_accuracy'])
    if view:
      true, predicted = view.columns
      if label == 'gender':
        predicted = predicted > 0.5
      size = len(labels)
      cells = true.astype(int) * size + predicted.astype(int)
      counts = np.bincount(cells, minlength=size * size).reshape(size, size)
      result[label] = {'labels': list(labels), 'counts': counts.tolist()}
  return result


def calibration_curve(gender: np.ndarray, gender_prob: np.ndarray) -> list:
  """Compares P(female) with the share of females, bin by bin.

  Args:
    gender: int [N], UNKNOWN where not known.
    gender_prob: float [N], P(female).

  Returns:
    For each bin (low, high] of metrics.PROB_EDGES a row `low`, `high`,
    `count`, `mean_prob` and `share` (of females), the last two None of none.
  """
  table = {'gender': gender, 'gender_prob': gender_prob}
  view = metrics.view(table, metrics.METRICS['gender_ece'])
  true, predicted = view.columns if view else np.zeros((2, 0))
  row = metrics.prob_bin(predicted)
  edges = metrics.PROB_EDGES
  result = []
  for index, (low, high) in enumerate(itertools.pairwise(edges)):
    inside = row == index
    found: dict = {'low': float(low), 'high': float(high)}
    found['count'] = int(inside.sum())
    for name, values in (('mean_prob', predicted), ('share', true)):
      found[name] = float(values[inside].mean()) if inside.any() else None
    result.append(found)
  return result
