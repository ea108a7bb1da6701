"""Every score against scikit-learn and numbers worked out by hand."""

import numpy as np
import pytest
import score_tables
from sklearn import calibration
from sklearn import metrics as oracle

from agegender_jax import schema, scoring
from agegender_jax.scoring import bootstrap, metrics

ONE_GENDER_LACKS = ('gender_balanced_accuracy', 'gender_auc')


def expected_scores(table, weights=None):
  """Scores by scikit-learn; those that it cannot define are left out."""
  size = len(table['age'])
  weights = np.ones(size) if weights is None else weights
  result = {}

  def known(label):
    rows = (table[label] != schema.UNKNOWN) & (weights > 0)
    prediction = {'gender': 'gender_prob'}.get(label, f'{label}_pred')
    return table[label][rows], table[prediction][rows], weights[rows]

  true, predicted, weight = known('age')
  if len(true):
    predicted = predicted.astype(float)
    pair = (true, predicted)
    mae = oracle.mean_absolute_error
    result['age_mae'] = mae(*pair, sample_weight=weight)
    rmse = oracle.root_mean_squared_error(*pair, sample_weight=weight)
    result['age_rmse'] = rmse
    result['age_bias'] = np.average(predicted - true, weights=weight)
    for years in (1, 3, 5, 10):
      near = np.abs(predicted - true) <= years
      result[f'age_cs{years}'] = oracle.accuracy_score(
        np.ones(len(true)), near, sample_weight=weight
      )
    decade = np.minimum(true // 10, 8)
    result['age_mae_macro'] = np.mean([
      mae(true[rows], predicted[rows], sample_weight=weight[rows])
      for rows in (decade == value for value in np.unique(decade))
    ])  # fmt: skip
  true, predicted, weight = known('age_group')
  if len(true):
    distance = np.abs(predicted - true)
    for name, most in (('accuracy', 0), ('one_off', 1)):
      result[f'age_group_{name}'] = oracle.accuracy_score(
        np.ones(len(true)), distance <= most, sample_weight=weight
      )
    if len(set(true) | set(predicted)) > 1:
      result['age_group_kappa'] = oracle.cohen_kappa_score(
        true, predicted, labels=range(8), weights='quadratic',
        sample_weight=weight,
      )  # fmt: skip
  true, prob, weight = known('gender')
  if len(true):
    of = {'sample_weight': weight}
    result['gender_accuracy'] = oracle.accuracy_score(true, prob > 0.5, **of)
    result['gender_brier'] = oracle.brier_score_loss(true, prob, **of)
    result['gender_nll'] = oracle.log_loss(true, prob, labels=[0, 1], **of)
    repeats = weight.astype(int)
    result['gender_ece'] = calibration_error(
      np.repeat(true, repeats), np.repeat(prob, repeats)
    )
    if len(set(true)) == 2:
      recall = oracle.balanced_accuracy_score(true, prob > 0.5, **of)
      result['gender_balanced_accuracy'] = recall
      result['gender_auc'] = oracle.roc_auc_score(true, prob, **of)
  return result


def calibration_error(true, prob):
  """Expected calibration error by scikit-learn's curve of 10 equal bins."""
  share, mean = calibration.calibration_curve(true, prob, n_bins=10)
  edges = np.linspace(0, 1, 11)
  counts = np.histogram(-prob.astype(float), -edges[::-1])[0][::-1]
  return np.average(np.abs(share - mean), weights=counts[counts > 0])


def check(found, expected):
  assert found.keys() == expected.keys(), 'expected_scores lacks a metric, or has more'
  for name, value in expected.items():
    assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name


def test_score_matches_hand_computed_values():
  expected = {
    'age_mae': (1 + 2 + 6 + 0) / 4,
    'age_rmse': ((1 + 4 + 36) / 4) ** 0.5,
    'age_bias': (1 - 2 + 6 + 0) / 4,
    'age_mae_macro': (1 + 2 + 6 + 0) / 4,
    'age_cs1': 2 / 4,
    'age_cs3': 3 / 4,
    'age_cs5': 3 / 4,
    'age_cs10': 1.0,
    'age_group_accuracy': 2 / 4,
    'age_group_one_off': 3 / 4,
    # Squared distances 0 1 4 0, over those of all 16 pairs of the margins.
    'age_group_kappa': 1 - 5 / (sum(
      (a - b) ** 2 for a in (2, 3, 4, 5) for b in (2, 4, 6, 5)
    ) / 4),
    'gender_accuracy': 3 / 4,
    'gender_balanced_accuracy': (2 / 3 + 1) / 2,
    'gender_auc': 2 / 3,
    'gender_brier': (0.01 + 0.04 + 0.81 + 0.04) / 4,
    'gender_nll': -np.log([0.9, 0.8, 0.1, 0.8]).mean(),
    'gender_ece': (0.1 + 0.2 + 0.9 + 0.2) / 4,
  }  # fmt: skip
  found = scoring.score(score_tables.table(), num_samples=0)
  check({name: found[name] for name in expected}, expected)


@pytest.mark.parametrize('steps', [0, 4], ids=['distinct', 'ties'])
@pytest.mark.parametrize('count', [3, 40, 1500])
def test_score_equals_scikit_learn(count, steps):
  for seed in range(5):
    predictions = score_tables.random_table(count, seed, steps=steps)
    check(scoring.score(predictions, 0), expected_scores(predictions))


@pytest.mark.parametrize(
  'name', [n for n, m in metrics.METRICS.items() if len(m.needs) == 2]
)
def test_a_resample_scores_as_scikit_learn_weighs_it(name):
  predictions = score_tables.random_table(60, seed=3, steps=10)
  view = metrics.view(predictions, metrics.METRICS[name])
  weights = np.concatenate(list(bootstrap.resamples(60, 130, seed=1)), axis=1)
  assert weights.shape == (60, 130)
  found = view(weights)
  for column in (0, 1, 99, 100, 129):
    expected = expected_scores(predictions, weights[:, column])[name]
    assert found[column] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_saturated_probabilities_cost_what_scikit_learn_says():
  gender = np.array([0, 1, 0, 1])
  prob = np.array([0, 1, 1, 0], np.float32)
  scores = scoring.score({'gender': gender, 'gender_prob': prob}, 0)
  expected = oracle.log_loss(gender, prob)
  assert scores['gender_nll'] == pytest.approx(expected, rel=1e-6)
  assert scores['gender_nll'] == pytest.approx(np.log(2**23) / 2, rel=1e-6)


@pytest.mark.parametrize('gender', [0, 1])
def test_one_gender_alone_leaves_out_what_compares_two(gender):
  predictions = score_tables.table(gender=np.array([gender] * 4 + [-1]))
  scores = scoring.score(predictions, 0)
  assert not set(ONE_GENDER_LACKS) & scores.keys()
  check(scores, expected_scores(predictions))


@pytest.mark.parametrize('row', range(5))
def test_one_example(row):
  one = {key: column[row : row + 1] for key, column in score_tables.table().items()}
  scores = scoring.score(one, num_samples=0)
  check(scores, expected_scores(one))
  if row < 4:
    bounded = scoring.score(one, num_samples=20)
    assert bounded['age_mae_low'] == bounded['age_mae_high'] == scores['age_mae']


def test_equal_predictions_rank_nobody():
  predictions = score_tables.table(
    gender_prob=np.full(5, 0.7), age_group_pred=np.full(5, 3)
  )
  scores = scoring.score(predictions, 0)
  assert scores['gender_auc'] == 0.5
  assert scores['age_group_kappa'] == 0
  check(scores, expected_scores(predictions))


def test_cumulative_scores_count_errors_of_exactly_their_years():
  error = np.array([1.0, -3, 5, -10, 10.5])
  age = np.full(5, 40.0)
  scores = scoring.score({'age': age, 'age_pred': age + error}, 0)
  shares = [scores[f'age_cs{years}'] for years in (1, 3, 5, 10)]
  assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_macro_average_weighs_decades_alike():
  age = np.array([5.0, 5, 5, 85, 95])
  error = np.array([1.0, 2, 3, 10, 20])
  scores = scoring.score({'age': age, 'age_pred': age - error}, 0)
  assert scores['age_mae_macro'] == (2 + 15) / 2
  assert scores['age_mae'] == 36 / 5


def test_kappa_of_one_group_is_undefined():
  same = np.full(5, 4)
  scores = scoring.score(score_tables.table(age_group=same, age_group_pred=same), 10)
  assert scores['age_group_accuracy'] == 1
  assert not any('kappa' in name for name in scores)


def test_a_prediction_of_minus_one_year_counts():
  scores = scoring.score(
    {'age': np.array([1.0, 3]), 'age_pred': np.array([-1.0, 3])}, 0
  )
  assert scores['age_mae'] == 1
