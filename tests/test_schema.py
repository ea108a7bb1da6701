import itertools

import numpy as np
import pytest

from agegender_jax import schema


@pytest.mark.parametrize(
  'years, group',
  [(0, 0), (2, 0), (2.9, 0), (3, -1), (4, 1), (7, -1), (12, 2), (14, -1),
   (21, -1), (25, 4), (59, -1), (60, 7), (100, 7), (116, 7), (-1, -1)],
)  # fmt: skip
def test_years_in_a_gap_are_in_no_group(years, group):
  age = np.array([years])
  assert schema.group_of_interval(age, age, 'adience')[0] == group


@pytest.mark.parametrize(
  'years, group',
  [(-3.0, 0), (2.9, 0), (3.0, 0), (3.1, 1), (7.2, 2), (21.0, 3), (23.0, 4),
   (200.0, 7)],
)  # fmt: skip
def test_group_of_prediction_takes_the_nearest(years, group):
  assert schema.group_of_prediction(np.array([years]), 'adience')[0] == group


def test_years_of_label_are_one_year_or_the_groups():
  age = np.array([26.7, -1, -1, 120, -1, -1])
  intervals = np.full((6, 2), -1)
  intervals[[1, 2, 5]] = (3, 9), (70, 120), (60, 100)
  low, high = schema.years_of_label(age, intervals)
  assert low.dtype == np.int32
  assert low.tolist() == [26, 3, 70, 116, -1, 60]
  assert high.tolist() == [26, 9, 116, 116, -1, 116]


@pytest.mark.parametrize(
  'low, high, group',
  [(0, 2, 0), (25, 32, 4), (60, 100, 7), (38, 48, 5), (38, 42, 5), (27, 32, 4),
   (8, 23, -1), (35, 35, -1), (42, 42, 5), (13, 13, -1), (2, 2, 0),
   (-1, -1, -1), (-1, 5, -1), (60, -1, -1),
   # Half is enough, less is not; nothing is left of a group turned round.
   (0, 5, 0), (2, 3, 0), (0, 6, -1), (12, 15, -1), (32, 25, -1),
   # FairFace's groups.
   (3, 9, -1), (10, 19, 3), (20, 29, 4), (30, 39, -1), (40, 49, -1),
   (50, 59, -1), (60, 69, 7), (70, 120, 7)],
)  # fmt: skip
def test_group_of_interval_covers_half(low, high, group):
  found = schema.group_of_interval(np.array([low]), np.array([high]), 'adience')
  assert found.dtype == np.int32 and found.tolist() == [group]


def test_adience_in_the_groups_of_fairface():
  low, high = np.array(schema.AGE_GROUPS['adience']).T
  found = schema.group_of_interval(low, high, 'fairface')
  # 38-43: four of six years in 40-49; 60-100: thirty-one of 41 from 70 on.
  assert found.tolist() == [0, 1, 2, 2, 3, 5, 6, 8]


def test_interval_halved_between_two_groups_is_in_neither():
  found = schema.group_of_interval(np.array([8]), np.array([11]), 'fairface')
  assert found.tolist() == [-1]


@pytest.mark.parametrize('groups', schema.AGE_GROUPS)
def test_a_group_is_in_itself(groups):
  low, high = np.array(schema.AGE_GROUPS[groups]).T
  np.testing.assert_array_equal(
    schema.group_of_interval(low, high, groups), np.arange(len(low))
  )


@pytest.mark.parametrize('groups', schema.AGE_GROUPS)
def test_groups_ascend_and_have_names(groups):
  rows = schema.AGE_GROUPS[groups]
  for (_, high), (low, _) in itertools.pairwise(rows):
    assert high < low
  names = schema.age_group_names(groups)
  assert len(names) == len(rows)
  assert names[0] == '0-2' and names[-1].endswith('+')
