"""Names and units of the keys of scores.json."""

import re

from agegender_jax import scoring
from agegender_jax.scoring import metrics

_LOSSES = {'age_loss': 'Age loss', 'gender_loss': 'Gender loss', 'loss': 'Loss'}
_TWINS = '_without_twins'
# What a run is, rather than how good.
_FACTS = (
  'data', 'split', 'num_examples', 'step', 'num_twins', 'num_trained_on',
  'age_groups', 'oversample',
)  # fmt: skip


def name(key) -> str:
  """Returns what to call a score."""
  metric = metrics.find(key)
  base = key.removesuffix(_TWINS)
  text = metric.title if metric else _LOSSES.get(base, base.replace('_', ' '))
  return f'{text}, without twins' if base != key else text


def unit(key) -> str:
  """Returns `%` of a fraction, `years`, or '' of what has no unit."""
  metric = metrics.find(key)
  return metric.unit if metric else ''


def listed(scores) -> list:
  """Returns the keys of a flat scores.json that are scores, in its order."""
  return [
    key
    for key, value in scores.items()
    if key not in _FACTS
    and isinstance(value, (int, float))
    and not re.search(r'_(low|high)$', key)
  ]


def drawn(groups) -> list:
  """Returns what to draw of groups: (key, label with unit, factor to it).

  Args:
    groups: see details.Details.

  Returns:
    The scores that any of them has; age groups only where years lack.
  """
  found = [
    (metric.name, f'{metric.title} ({metric.unit})', metric.factor)
    for metric in scoring.headlines(2)
    if any(metric.name in group and group[metric.name]['count'] for group in groups)
  ]
  if any(key == 'age_mae' for key, *_ in found):
    found = [row for row in found if row[0] != 'age_group_accuracy']
  return found
