"""Scores with their bounds, majority baseline and paired differences."""

import json
import time

import numpy as np
import pytest
import score_tables
from scipy import stats
from sklearn import metrics as oracle

from agegender_jax import scoring
from agegender_jax.scoring import metrics


def test_score_leaves_out_what_no_label_tells():
  unknown = np.full(5, -1)
  scores = scoring.score(score_tables.table(gender=unknown), num_samples=20)
  assert not any(name.startswith('gender') for name in scores)
  assert 'age_mae' in scores
  all_unknown = score_tables.table(age=unknown, age_group=unknown, gender=unknown)
  assert scoring.score(all_unknown, num_samples=20) == {}
  nobody = {key: column[:0] for key, column in score_tables.table().items()}
  assert scoring.score(nobody, num_samples=20) == {}
  missing = {'age': np.full(5, np.nan), 'age_pred': np.ones(5)}
  assert scoring.score(missing, num_samples=20) == {}


def test_no_bound_is_nan_where_resamples_lack_a_gender():
  pair = {
    'gender': np.array([0, 1]), 'gender_prob': np.array([0.2, 0.9])
  }  # fmt: skip
  for num_samples in range(8):
    scores = scoring.score(pair, num_samples)
    assert np.isfinite(list(scores.values())).all()
    json.dumps(scores, allow_nan=False)


def test_interval_has_the_width_of_the_standard_error():
  random = np.random.default_rng(1)
  count = 2000
  error = random.normal(0, 4, count)
  labels = np.full(count, 50.0)
  scores = scoring.score({'age': labels, 'age_pred': labels + error}, 1000)
  width = scores['age_bias_high'] - scores['age_bias_low']
  expected = 2 * 1.96 * error.std() / np.sqrt(count)
  assert width == pytest.approx(expected, rel=0.1)
  assert scores['age_bias_low'] < scores['age_bias'] < scores['age_bias_high']


@pytest.mark.parametrize(
  'name, statistic',
  [
    ('age_rmse', oracle.root_mean_squared_error),
    ('age_group_kappa', lambda t, p: oracle.cohen_kappa_score(
      t, p, labels=range(8), weights='quadratic')),
    ('gender_auc', oracle.roc_auc_score),
  ],
)  # fmt: skip
def test_bounds_are_scipys_within_sampling_error(name, statistic):
  predictions = score_tables.random_table(150, seed=5, unknown=0)
  measure = metrics.METRICS[name]
  data = [predictions[column] for column in measure.needs]
  expected = stats.bootstrap(
    data, statistic, paired=True, vectorized=False, n_resamples=800,
    method='percentile', rng=np.random.default_rng(2),
  )  # fmt: skip
  scores = scoring.score(predictions, num_samples=1000)
  # A 2.5 % quantile of R samples strays by 2.67 errors / sqrt(R) (normal).
  tolerance = 4 * 2.67 * expected.standard_error * (1 / 800 + 1 / 1000) ** 0.5
  for end in ('low', 'high'):
    bound = getattr(expected.confidence_interval, end)
    assert abs(scores[f'{name}_{end}'] - bound) < tolerance


def test_interval_is_the_same_every_time():
  assert scoring.score(score_tables.table(), 150) == scoring.score(
    score_tables.table(), 150
  )


def test_majority_baseline_are_median_majority_and_share():
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
  scores = scoring.majority_baseline(train, labels)
  assert scores['age_mae'] == 5
  assert scores['age_group_accuracy'] == 0.5
  assert scores['gender_accuracy'] == 0.5
  assert scores['gender_balanced_accuracy'] == 0.5
  assert scores['gender_auc'] == 0.5
  assert scores['gender_brier'] == pytest.approx((1 / 9 + 4 / 9) / 2)


def test_majority_baseline_without_labels_are_none():
  unknown = {key: np.full(3, -1) for key in ('age', 'age_group', 'gender')}
  assert scoring.majority_baseline(unknown, unknown) == {}


def test_paired_difference_matches_names_and_labels():
  first = {
    'name': ['a', 'b', 'twice', 'twice', 'other', 'relabelled', 'blank'],
    'age': np.array([10.0, 20, 1, 1, 50, 40, np.nan]),
    'age_pred': np.array([11.0, 24, 9, 9, 9, 9, 9]),
  }
  second = {
    'name': ['b', 'a', 'twice', 'relabelled', 'new', 'blank'],
    'age': np.array([20.0, 10, 1, 41, 60, np.nan]),
    'age_pred': np.array([21.0, 7, 1, 9, 9, 9]),
  }
  found = scoring.paired_difference(first, second, 'age_mae')
  assert found['count'] == 2
  assert found['value'] == (3 + 1) / 2 - (1 + 4) / 2
  # The images' own differences are 2 (a) and -3 (b).
  assert (found['low'], found['high']) == (-3, 2)


def test_pairing_narrows_the_interval_as_its_variance_says():
  random = np.random.default_rng(4)
  count = 1500
  age = np.full(count, 40.0)
  error = random.exponential(6, count)
  gain = random.normal(0.5, 1, count)
  first = {'age': age, 'age_pred': age + error + 20}
  second = {'age': age, 'age_pred': age + error + 20 - gain}
  found = scoring.paired_difference(first, second, 'age_mae')
  assert found['value'] == pytest.approx(-gain.mean())
  width = 2 * 1.96 * gain.std() / np.sqrt(count)
  assert found['high'] - found['low'] == pytest.approx(width, rel=0.1)


def test_paired_difference_of_any_score_is_the_scores_difference():
  first = score_tables.random_table(300, seed=1)
  second = {
    **first,
    'gender_prob': score_tables.random_table(300, seed=9)['gender_prob'],
  }
  found = scoring.paired_difference(first, second, 'gender_auc')
  scores = [scoring.score(one, 0)['gender_auc'] for one in (first, second)]
  assert found['value'] == pytest.approx(scores[1] - scores[0])
  assert found['low'] < found['value'] < found['high'] < 0


@pytest.mark.parametrize('change', [
  {'age': np.full(5, -1)}, {'name': ['v', 'w', 'x', 'y', 'z']},
])  # fmt: skip
def test_nothing_to_compare_is_nan_of_none(change):
  first = score_tables.table(name=list('abcde'))
  found = scoring.paired_difference(first, {**first, **change}, 'age_mae')
  assert found['count'] == 0
  assert np.isnan([found[key] for key in ('value', 'low', 'high')]).all()
  without = {key: first[key] for key in ('name', 'age')}
  assert scoring.paired_difference(first, without, 'age_mae')['count'] == 0


def test_scoring_a_thousand_examples_is_quick():
  predictions = score_tables.random_table(1008)
  start = time.thread_time()
  scoring.score(predictions, 1000)
  assert time.thread_time() - start < 3
