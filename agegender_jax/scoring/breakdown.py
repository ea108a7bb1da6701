"""What is behind the scores: confusion, groups, gaps, calibration."""

from collections.abc import Mapping, Sequence

import numpy as np

from agegender_jax import schema
from agegender_jax.scoring import bootstrap, groups, measures

# Scores of a group: those that a few examples can tell.
GROUP_METRICS = (
  'age_mae', 'age_bias', 'age_group_accuracy', 'age_group_one_off',
  'gender_accuracy',
)  # fmt: skip


def details(
  table: Mapping[str, np.ndarray],
  extras: Mapping[str, Sequence],
  group_names: Sequence[str],
  num_samples: int,
  seed: int = 0,
) -> dict:
  """Computes what is behind the scores: confusion, groups, gaps, calibration.

  Args:
    table: see scores.score.
    extras: the data's own columns, see groups.split.
    group_names: name of each age group.
    num_samples: bootstrap resamples of all examples, shared by all groups.
    seed: of the resampling.

  Returns:
    For JSON, None for what is not known:
    `confusion`: `gender` and `age_group` -> `labels`, `counts` (rows true).
    `groups`: rows `column`, `group`, `count` and `scores`: GROUP_METRICS ->
      `value`, `low`, `high` and the `count` of known labels.
    `gaps`: rows `column`, `metric`, `group`, `reference` (the column's largest
      group), `value` (group minus reference), `low`, `high`; by gender and
      by each extra column.
    `age_bins`: rows `name`, `count` and the scores.
    `calibration`: `gender` -> `raw`, see `calibration_curve`.
  """
  columns = groups.split(table, extras, group_names)
  views = {
    (column, group, metric): measures.view(table, metric, chosen)
    for column, found in columns.items()
    for group, chosen in found
    for metric in GROUP_METRICS
  }
  views = {key: view for key, view in views.items() if view}
  count = len(next(iter(table.values())))
  found = bootstrap.evaluate(views, count, num_samples, seed)
  rows = []
  for column, parts in columns.items():
    for group, chosen in parts:
      scores = {
        metric: _estimate(*found[key]) | {'count': len(views[key].rows)}
        for metric in GROUP_METRICS
        if (key := (column, group, metric)) in found
      }
      rows.append({
        'column': column, 'group': group, 'count': int(chosen.sum()),
        'scores': scores,
      })  # fmt: skip
  result = {
    'confusion': _confusion(table, group_names),
    'groups': rows,
    'gaps': _gaps(columns, found),
    'age_bins': [
      {'name': row['group'], 'count': row['count'], **row['scores']}
      for row in rows
      if row['column'] == 'age'
    ],
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


def _gaps(columns, found):
  """Compares each group with the largest one of its column."""
  rows = []
  for column, parts in columns.items():
    if column in ('age', 'gender x age'):
      continue
    reference = max(parts, key=lambda part: part[1].sum())[0]
    for metric in GROUP_METRICS:
      for group, _ in parts:
        keys = (column, group, metric), (column, reference, metric)
        if group == reference or not all(key in found for key in keys):
          continue
        value, samples = (
          np.subtract(*pair) for pair in zip(*map(found.get, keys), strict=True)
        )
        rows.append({
          'column': column, 'metric': metric, 'group': group,
          'reference': reference, **_estimate(float(value), samples),
        })  # fmt: skip
  return rows


def _confusion(table, group_names):
  """Counts true classes against predicted ones."""
  names = {'gender': schema.GENDERS, 'age_group': group_names}
  result = {}
  for label, labels in names.items():
    view = measures.view(table, f'{label}_accuracy')
    if view:
      predicted = view.predicted
      if label == 'gender':
        predicted = predicted > 0.5
      size = len(labels)
      cells = view.true.astype(int) * size + predicted.astype(int)
      counts = np.bincount(cells, minlength=size * size).reshape(size, size)
      result[label] = {'labels': list(labels), 'counts': counts.tolist()}
  return result


def calibration_curve(gender: np.ndarray, gender_prob: np.ndarray) -> list:
  """Compares P(female) with the share of females, bin by bin.

  Args:
    gender: int [N], UNKNOWN where not known.
    gender_prob: float [N], P(female).

  Returns:
    For each bin (low, high] of measures.PROB_EDGES a row `low`, `high`,
    `count`, `mean_prob` and `share` (of females), the last two None of none.
  """
  table = {'gender': gender, 'gender_prob': gender_prob}
  view = measures.view(table, 'gender_ece')
  row = measures.prob_bin(view.predicted) if view else np.zeros(0, int)
  edges = measures.PROB_EDGES
  result = []
  for index, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
    inside = row == index
    count = int(inside.sum())
    result.append({
      'low': float(low), 'high': float(high), 'count': count,
      'mean_prob': float(view.predicted[inside].mean()) if count else None,
      'share': float(view.true[inside].mean()) if count else None,
    })  # fmt: skip
  return result
