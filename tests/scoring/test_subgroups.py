"""The groups, gaps, confusions and calibration curves behind the scores."""

import json
import time

import numpy as np
import pytest
from sklearn import calibration
from sklearn import metrics as oracle

from agegender_jax import schema, scoring
from agegender_jax.scoring import subgroups

NAMES = schema.age_group_names('adience')
AGES = np.array([5.0, 9, 25, 25, 84, -1])
TABLE = {
  'age': AGES,
  'age_pred': np.array([7.0, 9, 20, 26, 80, 33]),
  'age_group': np.array([1, 2, 4, 4, 7, -1]),
  'age_group_pred': np.array([1, 1, 3, 4, 7, 5]),
  'gender': np.array([0, 1, 0, 1, 0, -1]),
  'gender_prob': np.array([0.1, 0.4, 0.6, 0.95, 0.2, 0.5]),
}
EXTRAS = {
  'race': ['0', '1', '0', '1', '0', ''],
  'fold': [-1, 3, 3, 3, 3, -1],
}


def large(count=1008, seed=0):
  random = np.random.default_rng(seed)
  age = random.integers(0, 95, count).astype(float)
  gender = random.integers(0, 2, count)
  group = schema.group_of_interval(age, age, 'adience')
  return {
    'age': age,
    'age_pred': age + random.normal(0, 6, count),
    'age_group': group,
    'age_group_pred': random.integers(0, 8, count),
    'gender': gender,
    'gender_prob': np.clip(gender + random.normal(0, 0.5, count), 0, 1),
  }, {'race': random.integers(0, 5, count).tolist()}


def rows_of(found, **keys):
  return [row for row in found if keys.items() <= row.items()]


def test_groups_say_who_is_in_them():
  found = subgroups.split_groups(TABLE, EXTRAS, NAMES)
  named = {
    column: {name: np.flatnonzero(chosen).tolist() for name, chosen in parts}
    for column, parts in found.items()
  }
  assert named == {
    'gender': {'male': [0, 2, 4], 'female': [1, 3]},
    'age': {'0-9': [0, 1], '20-29': [2, 3], '80+': [4]},
    'gender x age': {
      'male, 0-9': [0], 'male, 20-29': [2], 'male, 80+': [4],
      'female, 0-9': [1], 'female, 20-29': [3],
    },
    # One value alone ("fold") makes no groups.
    'race': {'0': [0, 2, 4], '1': [1, 3]},
  }  # fmt: skip


@pytest.mark.parametrize('values, expected', [
  (list(range(12)), 12), (list(range(13)), 0), ([1, 1], 0), ([1, 2], 2),
  ([1, 2, -1, None, '', float('nan')], 2), ([], 0),
])  # fmt: skip
def test_extra_columns_of_2_to_12_values_are_groups(values, expected):
  size = max(len(values), 1)
  labels = {key: np.zeros(size, int) for key in ('age', 'age_group', 'gender')}
  values = values or [-1]
  found = subgroups.split_groups(labels, {'extra': values}, NAMES)
  assert len(found.get('extra', [])) == expected


def test_age_groups_stand_in_where_no_years_are_known():
  unknown = {**TABLE, 'age': np.full(6, -1)}
  found = rows_of(scoring.details(unknown, {}, NAMES, 0)['groups'], column='age')
  assert [(row['group'], row['count']) for row in found] == [
    ('4-6', 1), ('8-12', 1), ('25-32', 2), ('60+', 1),
  ]  # fmt: skip
  assert all('age_mae' not in row['scores'] for row in found)


def test_group_scores_match_hand_computed_values():
  found = scoring.details(TABLE, EXTRAS, NAMES, 200)
  (male,) = rows_of(found['groups'], column='gender', group='male')
  assert male['count'] == 3
  values = {name: row['value'] for name, row in male['scores'].items()}
  assert values == pytest.approx({
    'age_mae': (2 + 5 + 4) / 3, 'age_bias': (2 - 5 - 4) / 3,
    'age_group_accuracy': 2 / 3, 'age_group_one_off': 1,
    'gender_accuracy': 2 / 3,
  })  # fmt: skip
  assert all(row['count'] == 3 for row in male['scores'].values())
  assert male['scores']['age_mae']['low'] == 2
  assert male['scores']['age_mae']['high'] == 5
  (child,) = rows_of(found['groups'], column='age', group='0-9')
  assert child['scores']['age_mae']['value'] == 1 and child['count'] == 2


def test_disparities_compare_with_the_largest_group():
  found = scoring.details(TABLE, EXTRAS, NAMES, 200)['disparities']
  assert {(row['column'], row['group'], row['reference']) for row in found} == {
    ('gender', 'female', 'male'), ('race', '1', '0')
  }  # fmt: skip
  (gap,) = rows_of(found, column='gender', metric='age_mae')
  assert gap['value'] == pytest.approx((0 + 1) / 2 - (2 + 5 + 4) / 3)
  assert gap['low'] <= gap['value'] <= gap['high']


def test_disparity_has_the_width_of_two_standard_errors():
  table, _ = large(4000)
  error = np.abs(table['age_pred'] - table['age'])
  parts = [error[table['gender'] == code] for code in (0, 1)]
  (gap,) = rows_of(
    scoring.details(table, {}, NAMES, 1000)['disparities'], metric='age_mae'
  )
  deviation = np.sqrt(sum(part.var() / len(part) for part in parts))
  assert gap['high'] - gap['low'] == pytest.approx(3.92 * deviation, rel=0.1)


def test_group_scores_are_the_scores_of_the_group_alone():
  table, extras = large()
  found = scoring.details(table, extras, NAMES, 0)['groups']
  chosen = (table['gender'] == 1) & (table['age'] // 10 == 3)
  alone = scoring.score({k: v[chosen] for k, v in table.items()}, 0)
  (row,) = rows_of(found, column='gender x age', group='female, 30-39')
  assert row['count'] == chosen.sum()
  assert row['scores'].keys() <= alone.keys()
  for name, estimate in row['scores'].items():
    assert estimate['value'] == pytest.approx(alone[name])
    assert estimate['low'] is None


@pytest.mark.parametrize('label', ['gender', 'age_group'])
def test_confusion_equals_scikit_learn(label):
  table, _ = large()
  table['gender'][:50] = schema.UNKNOWN
  predicted = {
    'gender': table['gender_prob'] > 0.5, 'age_group': table['age_group_pred'],
  }[label]  # fmt: skip
  known = table[label] != schema.UNKNOWN
  found = scoring.details(table, {}, NAMES, 0)['confusion'][label]
  size = len(found['labels'])
  expected = oracle.confusion_matrix(
    table[label][known], predicted[known], labels=range(size)
  )
  assert found['counts'] == expected.tolist()


def test_confusion_has_rows_of_true_labels():
  found = scoring.details(TABLE, {}, NAMES, 0)['confusion']
  assert found['gender'] == {
    'labels': ['male', 'female'], 'counts': [[2, 1], [1, 1]]
  }  # fmt: skip
  assert found['age_group']['counts'][2] == [0, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize('steps', [0, 10, 20], ids=['smooth', 'edges', 'half'])
def test_calibration_curve_equals_scikit_learn(steps):
  table, _ = large()
  prob = table['gender_prob']
  if steps:
    prob = np.round(prob * steps) / steps
  rows = scoring.calibration_curve(table['gender'], prob)
  share, mean = calibration.calibration_curve(table['gender'], prob, n_bins=10)
  filled = [row for row in rows if row['count']]
  assert [row['share'] for row in filled] == pytest.approx(share, abs=1e-9)
  assert [row['mean_prob'] for row in filled] == pytest.approx(mean, abs=1e-9)
  assert sum(row['count'] for row in rows) == len(prob)
  for row in filled:
    assert row['low'] <= row['mean_prob'] <= row['high'] + 1e-12


def test_calibration_curve_matches_hand_computed_values():
  rows = scoring.details(TABLE, {}, NAMES, 0)['calibration']['gender']['raw']
  found = {
    round(row['low'], 1): (row['count'], row['mean_prob'], row['share']) for row in rows
  }
  assert found[0.0] == (1, 0.1, 0)
  assert found[0.3] == (1, 0.4, 1)
  assert found[0.4] == (0, None, None)
  assert found[0.9] == (1, 0.95, 1)
  assert len(rows) == 10


def test_details_without_any_label_or_prediction_are_empty():
  unknown = {key: np.full(4, -1) for key in ('age', 'age_group', 'gender')}
  empty = {
    'confusion': {}, 'groups': [], 'disparities': [],
    'calibration': {},
  }  # fmt: skip
  assert scoring.details(unknown, {}, NAMES, 10) == empty
  predicted = {**unknown, 'gender_prob': np.full(4, 0.5)}
  bins = scoring.details(predicted, {}, NAMES, 10)['calibration']
  assert all(row['count'] == 0 for row in bins['gender']['raw'])


@pytest.mark.parametrize('count', [0, 1, 2, 30])
def test_details_are_strict_json(count):
  table, extras = large(count)
  found = scoring.details(table, extras, NAMES, 20)
  assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_details_are_quick():
  table, extras = large(4700)
  start = time.thread_time()
  scoring.details(table, extras, NAMES, 1000)
  assert time.thread_time() - start < 10
