"""Scores as formulas of weighted examples: NumPy only.

One formula serves the value (every weight 1) and all bootstrap resamples
(how often each drew the example) at once. Its arguments are
  weights: float64 [N, R], a column a resample,
  true: float64 [N], labels, all known,
  predicted: float64 [N], predictions,
and it returns float64 [R], NaN where a resample leaves the score undefined.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping

import numpy as np

from agegender_jax import schema

# First year of each bin of labelled ages; the last is open-ended.
AGE_BINS = (0, 10, 20, 30, 40, 50, 60, 70, 80)
# Equal-width bins of P(female).
PROB_EDGES = np.linspace(0, 1, 11)
# A float32 probability is no nearer to 1 than this, so none counts as nearer
# to 0 or 1 either: a saturated mistake costs 15.9 nats, not infinity.
EPSILON = float(np.finfo(np.float32).eps)


def age_bin(age: np.ndarray) -> np.ndarray:
  """Returns the row of AGE_BINS of known ages, float [N], years."""
  return np.searchsorted(AGE_BINS, age, side='right') - 1


def age_bin_names() -> list[str]:
  """Returns the names of AGE_BINS, such as `10-19` and `80+`."""
  last = AGE_BINS[-1]
  return [f'{low}-{low + 9}' for low in AGE_BINS[:-1]] + [f'{last}+']


def prob_bin(probability: np.ndarray) -> np.ndarray:
  """Returns the bin (low, high] of PROB_EDGES; the first one holds 0 too."""
  return np.searchsorted(PROB_EDGES[1:-1], probability)


def _divide(sums, counts):
  """Divides; NaN where nothing was counted."""
  with np.errstate(divide='ignore', invalid='ignore'):
    return np.where(counts == 0, np.nan, sums / counts)


def _mean(of, weights, true, predicted):
  """Averages `of(true, predicted)`, a value an example."""
  return _divide(of(true, predicted) @ weights, weights.sum(axis=0))


def _rmse(weights, true, predicted):
  """Computes the root of the mean squared error."""
  squares = _mean(lambda t, p: (p - t) ** 2, weights, true, predicted)
  return np.sqrt(squares)


def _macro_mae(weights, true, predicted):
  """Averages the mean absolute errors of the AGE_BINS that have examples."""
  member = np.arange(len(AGE_BINS))[:, None] == age_bin(true)
  counts = member.astype(float) @ weights
  sums = (member * np.abs(predicted - true)) @ weights
  means = np.where(counts > 0, _divide(sums, counts), 0.0)
  return _divide(means.sum(axis=0), (counts > 0).sum(axis=0))


def _quadratic_kappa(weights, true, predicted):
  """Computes Cohen's kappa with quadratic weights (Cohen 1968).

  One minus the mean squared distance of the groups' rows, over that of
  independent labels and predictions with the same margins; by moments the
  latter needs no table. Undefined where all are of one and the same row.
  """
  total = weights.sum(axis=0)
  observed = (predicted - true) ** 2 @ weights
  squares = (true**2 + predicted**2) @ weights
  # Whole numbers, so that "undefined" is an exact zero.
  expected = squares * total - 2 * (true @ weights) * (predicted @ weights)
  return 1 - _divide(observed * total, expected)


def _balanced_accuracy(weights, true, predicted):
  """Averages the accuracies of both genders; undefined if one is absent."""
  hit = _is_right(true, predicted)
  recalls = [
    _divide((hit * (true == gender)) @ weights, (true == gender) @ weights)
    for gender in (schema.MALE, schema.FEMALE)
  ]
  return np.mean(recalls, axis=0)


def _auc(weights, true, predicted):
  """Computes the chance that a female's P(female) exceeds a male's.

  Equal probabilities count one half (Mann & Whitney 1947): the area under
  the ROC curve. Undefined if a gender is absent.
  """
  order = np.argsort(predicted, kind='stable')
  starts = np.flatnonzero(np.diff(predicted[order], prepend=np.nan) != 0)
  female = (true[order] == schema.FEMALE)[:, None]
  weights = weights[order]
  females = np.add.reduceat(weights * female, starts, axis=0)
  males = np.add.reduceat(weights * ~female, starts, axis=0)
  below = np.cumsum(males, axis=0) - males
  won = (females * (below + males / 2)).sum(axis=0)
  return _divide(won, females.sum(axis=0) * males.sum(axis=0))


def _calibration_error(weights, true, predicted):
  """Computes the expected calibration error of P(female).

  Over 10 bins of equal width (`prob_bin`): the distance of the mean P(female)
  from the share of females, averaged by the bins' counts (Naeini, Cooper &
  Hauskrecht 2015, for the positive class, not for the likelier one). Chance
  can only raise it, in resamples once more: its bounds lean upwards.
  """
  member = np.arange(len(PROB_EDGES) - 1)[:, None] == prob_bin(predicted)
  distances = np.abs((member * (predicted - true)) @ weights)
  return _divide(distances.sum(axis=0), weights.sum(axis=0))


def _is_right(true, predicted):
  return (predicted > 0.5) == (true == schema.FEMALE)


def _log_loss(true, predicted):
  female = np.clip(predicted, EPSILON, 1 - EPSILON)
  return -np.log(np.where(true == schema.FEMALE, female, 1 - female))


class Measure(typing.NamedTuple):
  """A score: the columns that it compares, and its formula."""

  label: str
  prediction: str
  compute: Callable


def _means(label, prediction, formulas):
  return {
    name: Measure(label, prediction, functools.partial(_mean, of))
    for name, of in formulas.items()
  }


# Ages in years, accuracies as fractions, the negative log-likelihood in nats.
MEASURES = {
  **_means('age', 'age_pred', {
    'age_mae': lambda t, p: np.abs(p - t),
    'age_cs1': lambda t, p: np.abs(p - t) <= 1,
    'age_cs3': lambda t, p: np.abs(p - t) <= 3,
    'age_cs5': lambda t, p: np.abs(p - t) <= 5,
    'age_cs10': lambda t, p: np.abs(p - t) <= 10,
    'age_bias': lambda t, p: p - t,
  }),
  'age_rmse': Measure('age', 'age_pred', _rmse),
  'age_mae_macro': Measure('age', 'age_pred', _macro_mae),
  **_means('age_group', 'age_group_pred', {
    'age_group_accuracy': lambda t, p: t == p,
    'age_group_one_off': lambda t, p: np.abs(p - t) <= 1,
  }),
  'age_group_kappa': Measure('age_group', 'age_group_pred', _quadratic_kappa),
  **_means('gender', 'gender_prob', {'gender_accuracy': _is_right}),
  'gender_balanced_accuracy': Measure(
    'gender', 'gender_prob', _balanced_accuracy
  ),
  'gender_auc': Measure('gender', 'gender_prob', _auc),
  **_means('gender', 'gender_prob', {
    'gender_brier': lambda t, p: (p - t) ** 2,
    'gender_nll': _log_loss,
  }),
  'gender_ece': Measure('gender', 'gender_prob', _calibration_error),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class View:
  """A measure of the examples that it can judge, n of N.

  Attributes:
    rows: int [n], of the table.
    true, predicted: float64 [n].
    compute: the measure's formula.
  """

  rows: np.ndarray
  true: np.ndarray
  predicted: np.ndarray
  compute: Callable

  def __call__(self, weights: np.ndarray) -> np.ndarray:
    """Scores resamples: weights float64 [N, R] -> float64 [R]."""
    if len(self.rows) < len(weights):
      weights = weights[self.rows]
    return self.compute(weights, self.true, self.predicted)


def is_known(column: np.ndarray, name: str) -> np.ndarray:
  """Says where a column has a value, bool [N]; years predicted may be -1."""
  column = np.asarray(column, np.float64)
  return np.isfinite(column) & ((column != schema.UNKNOWN) | (name == 'age_pred'))


def view(table: Mapping[str, np.ndarray], name: str, chosen=True) -> View | None:
  """Restricts a measure to the chosen examples that it can judge.

  Args:
    table: columns [N], see scoring.score.
    name: key of MEASURES.
    chosen: bool [N], or True for all.

  Returns:
    The view, None if there is no such example or a column is absent.
  """
  measure = MEASURES[name]
  pair = (measure.label, measure.prediction)
  if any(column not in table for column in pair):
    return None
  for column in pair:
    chosen = chosen & is_known(table[column], column)
  rows = np.flatnonzero(chosen)
  if not len(rows):
    return None
  true, predicted = (np.asarray(table[column], np.float64)[rows] for column in pair)
  return View(rows, true, predicted, measure.compute)
