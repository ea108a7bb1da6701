"""What is behind the scores: confusions, groups, gaps and calibration."""

import dataclasses
import math

import numpy as np

from agegender_jax import scoring
from agegender_jax.report import stored
from agegender_jax.scoring import metrics

BOOTSTRAP_SAMPLES = 1000

# How far P(female) can be taken at its word; less of each is better.
GENDER_SCORES = ('gender_ece', 'gender_brier', 'gender_nll')


@dataclasses.dataclass(frozen=True)
class Details:
  """What details.json says; empty where a part of it is absent.

  An estimate is a dict of `value`, `low` and `high`, NaN where not known.

  Attributes:
    confusion: task -> (names, int [K, K] counts, rows actual).
    groups: a dict a group: `column`, `name`, `count`, and an estimate with its
      own `count` for each of metrics.by_group().
    gaps: a dict a gap: `column`, `metric`, `group`, `reference`, estimate.
    reliability: `raw` or `calibrated` -> bins of P(female), dicts of `low`,
      `high`, `count`, `mean_prob` and `share` (of women).
    gender_scores: `raw` or `calibrated` -> `gender_ece`, `gender_brier` and
      `gender_nll`, as far as they are known.
    intervals: a dict a level and group: `level`, `column`, `name`,
      `coverage` (an estimate, fractions), `width` (years), `count`.
    fitted: the calibration.json that all this was computed with, {} without
      one; None where the file, an older version's, does not say.
  """

  confusion: dict = dataclasses.field(default_factory=dict)
  groups: list = dataclasses.field(default_factory=list)
  gaps: list = dataclasses.field(default_factory=list)
  reliability: dict = dataclasses.field(default_factory=dict)
  gender_scores: dict = dataclasses.field(default_factory=dict)
  intervals: list = dataclasses.field(default_factory=list)
  fitted: dict | None = None

  def groups_of(self, column) -> list:
    """Returns the groups of a column that are not empty."""
    return [
      group for group in self.groups if group['column'] == column and group['count']
    ]


def read(path, predictions, group_names) -> Details:
  """Reads details.json, or computes from predictions what it would say.

  Args:
    path: of the file.
    predictions: the Predictions of the same folder, or None.
    group_names: name of each age group.

  Returns:
    The Details, empty where both files are absent.

  Raises:
    errors.UserError: the file is damaged.
  """
  if not path.is_file() and predictions is not None and predictions.name:
    table = predictions.table
    del table['name']
    content = scoring.details(table, predictions.extra, group_names, BOOTSTRAP_SAMPLES)
    scores = scoring.score(table, num_samples=0)
    content['calibration']['gender_scores'] = {'raw': scores}
    return _parse(content)
  content = stored.read_json(path)
  try:
    return _parse(content)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise stored.damaged(path, f'{type(error).__name__}: {error}') from None


def _parse(content):
  calibration = content.get('calibration') or {}
  return Details(
    confusion={
      task: (list(entry['labels']), np.array(entry['counts'], np.int64))
      for task, entry in (content.get('confusion') or {}).items()
    },
    groups=[_group(entry) for entry in content.get('groups') or []],
    gaps=[_gap(entry) for entry in content.get('disparities') or []],
    reliability={
      kind: bins
      for kind, rows in (calibration.get('gender') or {}).items()
      if kind in ('raw', 'calibrated')
      and (bins := [_bin(row) for row in rows if row['count']])
    },
    gender_scores={
      kind: {
        key: float(scores[key]) for key in GENDER_SCORES if scores.get(key) is not None
      }
      for kind, scores in (calibration.get('gender_scores') or {}).items()
    },
    intervals=[_interval(row) for row in calibration.get('intervals') or []],
    fitted=calibration.get('fitted'),
  )


def group_name(column, group) -> str:
  """Returns a group's name; a bare code is told apart by its column."""
  group = str(group)
  return f'{column} {group}' if group.isdecimal() else group


def estimate(entry, key='value') -> dict:
  """Returns {'value', 'low', 'high'}, NaN where `entry` says null or nothing.

  Args:
    entry: a dict of numbers.
    key: of the value.
  """
  return {
    name: _float(entry.get(key_of))
    for name, key_of in (('value', key), ('low', 'low'), ('high', 'high'))
  }


def _float(value):
  return math.nan if value is None else float(value)


def _group(entry):
  scores = entry.get('scores') or {}
  result = {
    'column': str(entry['column']),
    'name': group_name(entry['column'], entry['group']),
    'count': int(entry['count']),
  }
  for metric in [metric.name for metric in metrics.by_group()]:
    score = scores.get(metric) or {}
    result[metric] = estimate(score)
    known = np.isfinite(result[metric]['value'])
    count = int(score.get('count') or 0) if 'count' in score else entry['count']
    result[metric]['count'] = count if known else 0
  return result


def _gap(entry):
  column = str(entry['column'])
  return {
    'column': column,
    'metric': str(entry['metric']),
    'group': group_name(column, entry['group']),
    'reference': group_name(column, entry['reference']),
  } | estimate(entry)


def _bin(entry):
  return {key: _float(entry[key]) for key in ('low', 'high', 'mean_prob',
                                              'share')} | {
    'count': int(entry['count'])
  }  # fmt: skip


def _interval(entry):
  column = str(entry.get('column') or '')
  group = entry.get('group')
  return {
    'level': float(entry['level']),
    'column': column,
    'name': group_name(column, group) if column else 'all',
    'coverage': estimate(entry, 'coverage'),
    'width': _float(entry.get('width')),
    'count': int(entry.get('count') or 0),
  }
