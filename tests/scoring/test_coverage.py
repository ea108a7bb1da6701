import numpy as np
import pytest

from agegender_jax import scoring
from agegender_jax.scoring import calibration, coverage

# Half widths of 2, 4, 6 years below 30 predicted years, ten times that above.
FITTED = {
  'edges': [30.0],
  'counts': [200, 200],
  'levels': {'0.5': [2.0, 20.0], '0.8': [4.0, 40.0], '0.9': [6.0, 60.0]},
}
PREDICTED = np.array([10.0, 10, 10, 10, 70, 70, 70])
AGE = np.array([10.0, 13, 15, 20, 40, 90, -1])


def rows_of(columns):
  rows = coverage.measure(FITTED, AGE, PREDICTED, columns)
  return {(row['level'], row['column'], row['group']): row for row in rows}


def test_coverage_and_width_match_hand_counts():
  females = np.array([1, 1, 0, 0, 0, 0, 1], bool)
  rows = rows_of({'gender': [('female', females), ('nobody', females & False)]})
  assert len(rows) == 6  # All and females, at three levels.
  # |error| of the known: 0, 3, 5, 10; 30, 20.
  for level, inside, of_females in [(0.5, 2, 1), (0.8, 4, 2), (0.9, 5, 2)]:
    row = rows[level, '', '']
    assert row['count'] == 6 and row['coverage'] == inside / 6
    row = rows[level, 'gender', 'female']
    assert row['count'] == 2 and row['coverage'] == of_females / 2
  assert rows[0.5, '', '']['width'] == pytest.approx((4 * 4 + 2 * 40) / 6)
  # 70 - 60 to 130 on one side, 10 - 6 to 16 on the other.
  assert rows[0.9, '', '']['width'] == pytest.approx((4 * 12 + 2 * 120) / 6)


def test_bounds_are_wilsons():
  row = rows_of({})[0.8, '', '']
  z, n, p = 1.959964, 6, 4 / 6
  centre = (p + z * z / (2 * n)) / (1 + z * z / n)
  half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
  assert row['low'] == pytest.approx(centre - half, abs=1e-6)
  assert row['high'] == pytest.approx(centre + half, abs=1e-6)


def test_scores_have_coverage_and_width_of_each_level():
  found = calibration.apply({'age': FITTED, 'gender': None}, {'age_pred': PREDICTED})
  scores = scoring.score({'age': AGE} | found, 100)
  assert scores['age_coverage80'] == 4 / 6
  assert scores['age_width50'] == pytest.approx(16)
  assert scores['age_coverage90_low'] < 5 / 6 < scores['age_coverage90_high']


def test_bins_of_predicted_age_are_named_and_disjoint():
  bins = coverage.predicted_age_bins(
    {'edges': [24.06, 30.0]}, np.array([3.0, 24.06, 29, 30, 90])
  )
  names = ['below 24.1', '24.1 to 30.0', 'from 30.0']
  assert [name for name, _ in bins] == names
  members = [chosen.astype(int).tolist() for _, chosen in bins]
  assert members == [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
  ((name, chosen),) = coverage.predicted_age_bins({'edges': []}, AGE)
  assert name == 'all' and chosen.all()
