"""Which examples belong together: by gender, by age, by the data's columns."""

from collections.abc import Mapping, Sequence

import numpy as np

from agegender_jax import schema
from agegender_jax.scoring import measures

# Columns of the data with more values than this are no groups of people.
MAX_VALUES = 12


def split(
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
  """Splits by measures.AGE_BINS, by age groups where no years are known."""
  if 'age' in table and (known := measures.is_known(table['age'], 'age')).any():
    row = np.where(known, measures.age_bin(table['age']), schema.UNKNOWN)
    names = measures.age_bin_names()
  else:
    row, names = np.asarray(table['age_group']), group_names
  return [(name, row == index) for index, name in enumerate(names)]


def _by_value(values):
  """Returns pairs (name, bool [N]), none where they are no groups."""
  values = np.array(list(values), object)
  known = np.array([
    value not in (schema.UNKNOWN, None, '') and value == value
    for value in values
  ], bool)  # fmt: skip
  distinct = sorted(set(values[known]))
  if not 2 <= len(distinct) <= MAX_VALUES:
    return []
  return [(str(value), known & (values == value)) for value in distinct]
