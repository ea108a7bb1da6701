"""The one table of metrics: what a score is called, means and needs.

Pages, model card, comparison, sweeps, log line, CSV and the choice of the best
checkpoint filter METRICS: a metric added here appears in all of them.

A metric is one formula of weighted examples. It serves the value (every weight
1) and all bootstrap resamples (how often each drew the example) at once:
  weights: float64 [N, R], a column per resample.
  true: float64 [N], labels, all known.
  predicted: float64 [N] for each prediction that the metric needs.
It returns float64 [R], NaN where a resample leaves the score undefined.
"""

import dataclasses
import re
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


def _mean_of(of) -> Callable[..., np.ndarray]:
  """Returns what averages `of(true, *predicted)`, float [N], by the weights."""
  return lambda weights, *columns: _divide(of(*columns) @ weights, weights.sum(axis=0))


_mean_square = _mean_of(lambda t, p: (p - t) ** 2)


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


@dataclasses.dataclass(frozen=True)
class Metric:
  """A score of predictions.

  Attributes:
    name: its key in scores.json.
    title: what people read.
    unit: `years`, `%` (its values are fractions) or ''.
    direction: 1 where more is better, -1 where less is, 0 where neither.
    needs: the label's column and those of the predictions it compares.
    compute: weights, true, *predicted -> float64 [R], see above.
    headline: 0 for scores.json and the full tables alone, 1 also for cards,
      comparisons and sweeps, 2 also for log line, learning curves and the
      default choice of the best checkpoint, in the table's order.
    by_group: True if tables of subgroups and their disparities have it.
  """

  name: str
  title: str
  unit: str
  direction: int
  needs: tuple[str, ...]
  compute: Callable[..., np.ndarray]
  headline: int = 0
  by_group: bool = False

  @property
  def label(self) -> str:
    """The column of the label."""
    return self.needs[0]

  @property
  def factor(self) -> int:
    """What a value is multiplied by to be in `unit`."""
    return 100 if self.unit == '%' else 1

  @property
  def decimals(self) -> int:
    """The decimals that are shown of a value in `unit`."""
    return {'years': 2, '%': 1}.get(self.unit, 3)

  def text(self, value: float) -> str:
    """Returns a value with its unit, such as `91.2 %`."""
    return f'{value * self.factor:.{self.decimals}f} {self.unit}'.rstrip()


AGE = ('age', 'age_pred')
GROUP = ('age_group', 'age_group_pred')
GENDER = ('gender', 'gender_prob')
# Levels of the age intervals in percent, and the columns of their ends.
INTERVALS = {level: (f'age_low_{level}', f'age_high_{level}') for level in (50, 80)} | {
  90: ('age_low', 'age_high')
}


def _within(years: int) -> Metric:
  """Returns the cumulative score: the share of errors of at most `years`."""
  return Metric(
    name=f'age_cs{years}',
    title=f'Age within {years} year{"s" * (years > 1)} (CS@{years})',
    unit='%',
    direction=1,
    needs=AGE,
    compute=_mean_of(lambda t, p: np.abs(p - t) <= years),
    headline=int(years == 5),
  )


def _intervals(level: int) -> tuple[Metric, Metric]:
  """Returns coverage and mean width of the age intervals of a level."""
  needs = ('age', *INTERVALS[level])
  inside = _mean_of(lambda t, low, high: (low <= t) & (t <= high))
  width = _mean_of(lambda t, low, high: high - low)
  what = f'of {level} % age intervals'
  return (
    Metric(f'age_coverage{level}', f'Coverage {what}', '%', 0, needs, inside),
    Metric(f'age_width{level}', f'Width {what}', 'years', 0, needs, width),
  )


METRICS: dict[str, Metric] = {
  metric.name: metric
  for metric in (
    Metric('age_mae', 'Age error (MAE)', 'years', -1, AGE,
           _mean_of(lambda t, p: np.abs(p - t)), 2, True),
    *map(_within, (1, 3, 5, 10)),
    Metric('age_bias', 'Age bias', 'years', 0, AGE,
           _mean_of(lambda t, p: p - t), 0, True),
    Metric('age_rmse', 'Age error (RMSE)', 'years', -1, AGE,
           lambda *args: np.sqrt(_mean_square(*args))),
    Metric('age_mae_macro', 'Age error, mean of decades', 'years', -1, AGE,
           _macro_mae),
    *(metric for level in INTERVALS for metric in _intervals(level)),
    Metric('age_group_accuracy', 'Age group accuracy', '%', 1, GROUP,
           _mean_of(lambda t, p: t == p), 2, True),
    Metric('age_group_one_off', 'Age group one-off accuracy', '%', 1, GROUP,
           _mean_of(lambda t, p: np.abs(p - t) <= 1), 1, True),
    Metric('age_group_kappa', 'Age group kappa, quadratic', '', 1, GROUP,
           _quadratic_kappa),
    Metric('gender_accuracy', 'Gender accuracy', '%', 1, GENDER,
           _mean_of(_is_right), 2, True),
    Metric('gender_balanced_accuracy', 'Gender balanced accuracy', '%', 1,
           GENDER, _balanced_accuracy, 1),
    Metric('gender_auc', 'Gender AUC', '', 1, GENDER, _auc),
    Metric('gender_brier', 'Gender Brier score', '', -1, GENDER,
           _mean_square),
    Metric('gender_nll', 'Gender log loss', '', -1, GENDER, _mean_of(_log_loss)),
    Metric('gender_ece', 'Gender calibration error (ECE)', '%', -1, GENDER,
           _calibration_error),
  )
}  # fmt: skip


def headlines(level: int = 1) -> list[Metric]:
  """Returns the metrics of at least this headline level, in order."""
  return [metric for metric in METRICS.values() if metric.headline >= level]


def by_group() -> list[Metric]:
  """Returns the metrics that tables of subgroups show, in order."""
  return [metric for metric in METRICS.values() if metric.by_group]


def find(key: str) -> Metric | None:
  """Returns the metric that a key of scores.json is of.

  Args:
    key: a metric's name, maybe with `_low`, `_high` or `_without_near_duplicates`.

  Returns:
    None for what is no metric, such as a loss or a fact about the run.
  """
  return METRICS.get(re.sub('_(low|high|without_near_duplicates)$', '', key))


@dataclasses.dataclass(frozen=True)
class View:
  """A metric of the examples that it can judge, n of N.

  Attributes:
    rows: int [n], of the table.
    columns: float64 [n] each, as `Metric.needs` orders them.
    compute: the metric's formula.
  """

  rows: np.ndarray
  columns: tuple[np.ndarray, ...]
  compute: Callable[..., np.ndarray]

  def __call__(self, weights: np.ndarray) -> np.ndarray:
    """Scores resamples: weights float64 [N, R] -> float64 [R]."""
    if len(self.rows) < len(weights):
      weights = weights[self.rows]
    return self.compute(weights, *self.columns)

  def each(self) -> np.ndarray:
    """Scores every example alone, float64 [n]; NaN where that is undefined."""
    count, width = len(self.rows), 256
    alone = [np.eye(count, width, -start) for start in range(0, count, width)]
    return np.concatenate([self.compute(w, *self.columns) for w in alone])[:count]


def is_known(column: np.ndarray, name: str) -> np.ndarray:
  """Returns True, bool [N], where a column has a value; years may be -1."""
  column = np.asarray(column, np.float64)
  is_years = name.startswith(('age_pred', 'age_low', 'age_high'))
  return np.isfinite(column) & ((column != schema.UNKNOWN) | is_years)


def view(
  table: Mapping[str, np.ndarray], metric: Metric, chosen: np.ndarray | bool = True
) -> View | None:
  """Restricts a metric to the chosen examples that it can judge.

  Args:
    table: columns [N], see scores.score.
    metric: what to compute.
    chosen: bool [N], or True for all.

  Returns:
    The view, None if there is no such example or a column is absent.
  """
  if any(column not in table for column in metric.needs):
    return None
  for column in metric.needs:
    chosen = chosen & is_known(table[column], column)
  rows = np.flatnonzero(chosen)
  if not len(rows):
    return None
  columns = tuple(np.asarray(table[name], np.float64)[rows] for name in metric.needs)
  return View(rows, columns, metric.compute)
