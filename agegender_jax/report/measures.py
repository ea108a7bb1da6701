"""Names and units of the keys of scores.json."""

import re

NAMES = {
  'age_mae': 'Age error (MAE)',
  'age_mae_macro': 'Age error, mean of age bins',
  'age_rmse': 'Age error (RMSE)',
  'age_bias': 'Age bias',
  'age_group_accuracy': 'Age group exact',
  'age_group_one_off': 'Age group one-off',
  'age_group_kappa': 'Age group kappa, quadratic',
  'gender_accuracy': 'Gender accuracy',
  'gender_balanced_accuracy': 'Gender balanced acc.',
  'gender_auc': 'Gender AUC',
  'gender_brier': 'Gender Brier score',
  'gender_nll': 'Gender log loss',
  'gender_ece': 'Gender calibration error (ECE)',
  'age_loss': 'Age loss',
  'gender_loss': 'Gender loss',
  'loss': 'Loss',
}
_PATTERNS = (
  (r'age_cs(\d+)', r'Within \1 years (CS@\1)'),
  (r'age_coverage(\d+)', r'Coverage of \1 % intervals'),
  (r'age_width(\d+)', r'Width of \1 % intervals'),
)
_DRAWN = (
  ('age_mae', 'Age error (years)', 1),
  ('age_group_accuracy', 'Age group exact (%)', 100),
  ('gender_accuracy', 'Gender accuracy (%)', 100),
)
_TWINS = '_without_twins'
# What a run is, rather than how good.
_FACTS = (
  'data', 'split', 'num_examples', 'step', 'num_twins', 'num_trained_on',
  'age_groups', 'oversample',
)  # fmt: skip


def name(key) -> str:
  """Returns what to call a score."""
  base = key.removesuffix(_TWINS)
  text = NAMES.get(base)
  for pattern, shown in _PATTERNS:
    if text is None and re.fullmatch(pattern, base):
      text = re.sub(pattern, shown, base).replace('Within 1 years',
                                                  'Within 1 year')  # fmt: skip
  if text is None:
    text = base.replace('_', ' ')
  return f'{text}, without twins' if base != key else text


def unit(key) -> str:
  """Returns `%` of a fraction, `years`, or '' of what has no unit."""
  base = key.removesuffix(_TWINS)
  if re.search(r'accuracy|one_off|cs\d+$|coverage|_ece$|share', base):
    return '%'
  return 'years' if re.match(r'age_(mae|rmse|bias|width)', base) else ''


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
  found = [row for row in _DRAWN if any(group[row[0]]['count'] for group in groups)]
  if any(key == 'age_mae' for key, *_ in found):
    found = [row for row in found if row[0] != 'age_group_accuracy']
  return found
