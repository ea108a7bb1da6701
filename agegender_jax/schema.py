"""The contract of examples and batches: keys, codes, age groups.

A batch is a dict of NumPy arrays:
  image: uint8 [B, H, W, 3], RGB.
  age: float32 [B], years, UNKNOWN where not known.
  age_low, age_high: int32 [B], first and last year that the label allows, in
    [0, LAST_YEAR]: one year where the age is known, else a group's span.
  age_group: int32 [B], row of AGE_GROUPS[...], UNKNOWN where not known.
  gender: int32 [B], MALE, FEMALE or UNKNOWN.
  mask: float32 [B], 1 for an example, 0 for padding.
  row: int32 [B], the example's row in its split (names stay on the host).

A train step also finds, the same on every device:
  known: float32 [5], of how many examples of the global batch each of LABELS
    is known.
and, where the run has teachers, `teacher_<task>`: float32 [B, K], probabilities.
"""

import numpy as np

UNKNOWN = -1
MALE, FEMALE = 0, 1
GENDERS = ('male', 'female')

# How the licence of data begins that fill a data set's layout with others.
STAND_IN = 'a stand-in'

LAST_YEAR = 116  # UTKFace's oldest; an open-ended group ends here.
LABELS = ('age', 'age_group', 'gender', 'age_low', 'age_high')
BATCH_KEYS = ('image', *LABELS, 'mask', 'row')
# Of predictions.csv, before the columns that a data set has of its own.
PREDICTION_COLUMNS = (
  'name', 'age', 'age_pred', 'age_low', 'age_high', 'age_group',
  'age_group_pred', 'gender', 'gender_prob',
)  # fmt: skip

# First and last year of each group; the last group is open-ended.
AGE_GROUPS = {
  # Eidinger, Enbar & Hassner 2014, as the data set's label files have them.
  'adience': (
    (0, 2), (4, 6), (8, 12), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100),
  ),
  # Karkkainen & Joo 2021.
  'fairface': (
    (0, 2), (3, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 59), (60, 69),
    (70, 120),
  ),
}  # fmt: skip


def known(batch, label: str):
  """Returns float32 [B]: 1 where an example has the label, 0 elsewhere.

  Args:
    batch: of NumPy arrays or of JAX's.
    label: one of LABELS.
  """
  return batch['mask'] * (batch[label] != UNKNOWN)


def age_group_names(groups: str) -> list[str]:
  """Returns the names of the age groups, such as `8-12` and `60+`."""
  rows = AGE_GROUPS[groups]
  return [f'{low}-{high}' for low, high in rows[:-1]] + [f'{rows[-1][0]}+']


def years_of_label(
  age: np.ndarray, intervals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the first and last year that each label allows.

  Args:
    age: float [B], years; UNKNOWN where not known.
    intervals: int [B, 2], the years where only they are known, else UNKNOWN;
      one that ends at 100 or later, as groups are written, is open-ended.

  Returns:
    Two int32 [B] in [0, LAST_YEAR], UNKNOWN where neither is known.
  """
  low, high = np.asarray(intervals).T
  high = np.where(high >= 100, LAST_YEAR, high)
  years = np.floor(age)
  first, last = (
    np.minimum(np.where(age == UNKNOWN, end, years), LAST_YEAR).astype(np.int32)
    for end in (low, high)
  )
  return first, last


def group_of_interval(low: np.ndarray, high: np.ndarray, groups: str) -> np.ndarray:
  """Maps ages given as intervals to the group that covers half of their years.

  Years are whole and both ends count: (8, 23) has sixteen, of which no group
  of Adience covers eight. One rule reads odd labels, such as (38, 48), and one
  data set's groups as another's. Nothing is ever read as a single age.

  Args:
    low: [B], first year, whose fraction is cut off; UNKNOWN stays unknown.
    high: [B], last year likewise, at least the first.
    groups: key of AGE_GROUPS.

  Returns:
    int32 [B], row of AGE_GROUPS[groups]; UNKNOWN where none covers half, or
    two cover exactly half each.
  """
  low, high = np.asarray(low, np.int64), np.asarray(high, np.int64)
  first, last = np.asarray(AGE_GROUPS[groups]).T
  last = np.append(last[:-1], np.iinfo(np.int32).max)
  covered = np.minimum(high[..., None], last) - np.maximum(low[..., None], first) + 1
  years = (high - low + 1)[..., None]
  fits = (covered > 0) & (2 * covered >= years)
  is_known = (low != UNKNOWN) & (high != UNKNOWN) & (fits.sum(-1) == 1)
  return np.where(is_known, fits.argmax(-1), UNKNOWN).astype(np.int32)


def group_of_prediction(age, groups: str):
  """Maps predicted years to the nearest group, in NumPy or in JAX.

  Args:
    age: float [B], years.
    groups: key of AGE_GROUPS.

  Returns:
    int32 [B], row of AGE_GROUPS[groups]; of two equally near the younger.
  """
  low, high = np.asarray(AGE_GROUPS[groups], np.float32).T
  between = (high[:-1] + low[1:]) / 2
  return (age[:, None] > between[None]).sum(axis=1).astype(np.int32)
