import numpy as np
import pytest

from agegender_jax import metrics


def table(**columns):
  result = {
    'age': np.array([10.0, 20, 30, 40, -1], np.float32),
    'age_pred': np.array([11.0, 18, 36, 40, 99], np.float32),
    'age_group': np.array([2, 3, 4, 5, -1]),
    'age_group_pred': np.array([2, 4, 6, 5, 0]),
    'gender': np.array([0, 0, 0, 1, -1]),
    'gender_prob': np.array([0.1, 0.2, 0.9, 0.8, 0.5]),
  }
  return {**result, **columns}


def test_score_matches_hand_computed_values():
  scores = metrics.score(table(), num_samples=0)
  expected = {
    'age_mae': (1 + 2 + 6 + 0) / 4,
    'age_bias': (1 - 2 + 6 + 0) / 4,
    'age_cs1': 2 / 4,
    'age_cs3': 3 / 4,
    'age_cs5': 3 / 4,
    'age_cs10': 1.0,
    'age_group_accuracy': 2 / 4,
    'age_group_one_off': 3 / 4,
    'gender_accuracy': 3 / 4,
    'gender_balanced_accuracy': (2 / 3 + 1) / 2,
  }
  assert scores.keys() == expected.keys()
  for name, value in expected.items():
    assert scores[name] == pytest.approx(value), name


def test_score_leaves_out_what_no_label_tells():
  unknown = np.full(5, -1)
  scores = metrics.score(table(gender=unknown), num_samples=20)
  assert not any(name.startswith('gender') for name in scores)
  one_class = metrics.score(
    table(gender=np.array([0, 0, 0, 0, -1])), num_samples=0
  )
  assert 'gender_accuracy' in one_class
  assert 'gender_balanced_accuracy' not in one_class


def test_interval_has_the_width_of_the_standard_error():
  random = np.random.default_rng(1)
  count = 2000
  error = random.normal(0, 4, count)
  labels = np.full(count, 50.0)
  scores = metrics.score({'age': labels, 'age_pred': labels + error}, 1000)
  width = scores['age_bias_high'] - scores['age_bias_low']
  expected = 2 * 1.96 * error.std() / np.sqrt(count)
  assert width == pytest.approx(expected, rel=0.1)
  assert scores['age_bias_low'] < scores['age_bias'] < scores['age_bias_high']


def test_interval_is_the_same_every_time():
  assert metrics.score(table(), 150) == metrics.score(table(), 150)


def test_trivial_scores_are_median_and_majority():
  train = {
    'age': np.array([10.0, 20, 90, -1]),
    'age_group': np.array([2, 3, 3, -1]),
    'gender': np.array([1, 1, 0, -1]),
  }
  labels = {
    'age': np.array([20.0, 30]),
    'age_group': np.array([3, 4]),
    'gender': np.array([1, 0]),
  }
  scores = metrics.trivial_scores(train, labels)
  assert scores['age_mae'] == 5
  assert scores['age_group_accuracy'] == 0.5
  assert scores['gender_accuracy'] == 0.5
  assert scores['gender_balanced_accuracy'] == 0.5
