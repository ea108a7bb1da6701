import numpy as np
import pytest

from agegender_jax import schema


@pytest.mark.parametrize(
  'years, group',
  [(0, 0), (2, 0), (2.9, 0), (3, -1), (4, 1), (7, -1), (12, 2), (14, -1),
   (21, -1), (25, 4), (59, -1), (60, 7), (100, 7), (116, 7), (-1, -1)],
)  # fmt: skip
def test_group_of_label_leaves_gaps_unknown(years, group):
  assert schema.group_of_label(np.array([years]), 'adience')[0] == group


@pytest.mark.parametrize(
  'years, group',
  [(-3.0, 0), (2.9, 0), (3.0, 0), (3.1, 1), (7.2, 2), (21.0, 3), (23.0, 4),
   (200.0, 7)],
)  # fmt: skip
def test_group_of_prediction_takes_the_nearest(years, group):
  assert schema.group_of_prediction(np.array([years]), 'adience')[0] == group


@pytest.mark.parametrize('groups', schema.AGE_GROUPS)
def test_groups_ascend_and_have_names(groups):
  rows = schema.AGE_GROUPS[groups]
  for (_, high), (low, _) in zip(rows, rows[1:], strict=False):
    assert high < low
  names = schema.age_group_names(groups)
  assert len(names) == len(rows)
  assert names[0] == '0-2' and names[-1].endswith('+')
