"""How sure a prediction is: age intervals and gender probabilities.

One rule: fitted on one named split whose images are neither trained on nor
scored, stored with the run as calibration.json, and used or absent. Training
fits it at its end; `--mode=evaluate --config.data.calibration_split=NAME` fits
it on another split.

Ages get split-conformal intervals (Vovk, Gammerman & Shafer 2005; Lei et al.
2018): of exchangeable images at least the level's share lies within, whatever
the network. Mondrian conformal prediction (Vovk 2005, section 4.5) makes that
so within each bin of predicted age, and the width follows the error there.
Probabilities of gender get one temperature (Guo et al. 2017).
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy  # Loads optimize and stats when they are used: two seconds.

from agegender_jax import config as config_lib
from agegender_jax import errors as errors_lib
from agegender_jax import files, schema
from agegender_jax.scoring import metrics

LEVELS = tuple(level / 100 for level in metrics.INTERVALS)
SHOWN_LEVEL = 0.9  # Of age_low and age_high.
# A bin's coverage strays by sqrt(level (1 - level) / count), 2 points at 90 %
# with so many, and exceeds the level by 1 / count at most.
MIN_PER_BIN = 200
MAX_BINS = 10
TEMPERATURES = (0.05, 20.0)


def conformal_quantile(errors: np.ndarray, level: float) -> float:
  """Returns the ceil((n + 1) level)-th smallest of n errors, inf past n.

  Lei et al. 2018, algorithm 2: an exchangeable new error is at most this with
  a probability of at least `level`.

  Args:
    errors: float [n], not negative.
    level: in (0, 1).
  """
  # Rounded first: 0.9 * 10 is a hair above 9 in binary.
  rank = int(np.ceil(round((len(errors) + 1) * level, 9)))
  return float(np.sort(errors)[rank - 1]) if rank <= len(errors) else np.inf


def fit_ages(age: np.ndarray, age_pred: np.ndarray) -> dict | None:
  """Fits intervals to held-out ages.

  Args:
    age: float [N], years; UNKNOWN is left out.
    age_pred: float [N], years.

  Returns:
    `edges` between the bins of predicted age, ascending (a prediction on an
    edge is in the upper bin), `counts` by bin, and `levels`: level -> half
    width in years by bin. None with too few known ages for every level.
  """
  known = age != schema.UNKNOWN
  predicted = np.asarray(age_pred[known], np.float64)
  error = np.abs(predicted - age[known])
  if not np.isfinite(conformal_quantile(error, max(LEVELS))):
    return None
  num_bins = int(np.clip(len(error) // MIN_PER_BIN, 1, MAX_BINS))
  edges = np.quantile(predicted, np.arange(1, num_bins) / num_bins)
  bins = np.searchsorted(edges, predicted, side='right')
  counts = np.bincount(bins, minlength=num_bins)
  if counts.min() < MIN_PER_BIN // 2:  # Most predictions are alike.
    edges, bins, counts = edges[:0], np.zeros_like(bins), np.array([len(error)])
  return {
    'edges': edges.tolist(),
    'counts': counts.tolist(),
    'levels': {
      str(level): [
        conformal_quantile(error[bins == row], level) for row in range(len(counts))
      ]
      for level in LEVELS
    },
  }


def age_interval(
  fitted: Mapping, age_pred: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the ends, float [N] years, never below 0, of each interval.

  Args:
    fitted: see `fit_ages`.
    age_pred: float [N], years.
    level: one of LEVELS.
  """
  age_pred = np.asarray(age_pred, np.float64)
  half = np.asarray(fitted['levels'][str(level)])
  half = half[np.searchsorted(fitted['edges'], age_pred, side='right')]
  low, high = age_pred - half, age_pred + half
  return np.maximum(low, 0.0), np.maximum(high, 0.0)


def negative_log_likelihood(
  logit: np.ndarray, female: np.ndarray, temperature: float
) -> float:
  """Returns the mean of -log P(true gender); logit [N], female bool [N]."""
  sign = np.where(female, -1.0, 1.0)
  return float(np.logaddexp(0.0, sign * logit / temperature).mean())


def fit_gender(gender: np.ndarray, logit: np.ndarray) -> dict | None:
  """Fits the temperature to held-out genders.

  Args:
    gender: int [N]; UNKNOWN is left out.
    logit: float [N], log odds of FEMALE as the network gives them.

  Returns:
    `temperature`, `count`, and the mean negative log-likelihood at
    temperature 1, `nll_before`, and at the fitted one, `nll_after`. None where
    no answer is wrong or none is right: then no temperature is best.
  """
  known = gender != schema.UNKNOWN
  logit = np.asarray(logit[known], np.float64)
  female = gender[known] == schema.FEMALE
  right = (logit > 0) == female
  if right.all() or not right.any():
    return None
  found = scipy.optimize.minimize_scalar(
    lambda x: negative_log_likelihood(logit, female, np.exp(x)),
    bounds=np.log(TEMPERATURES),
    method='bounded',
    options={'xatol': 1e-6},
  )
  temperature = float(np.exp(found.x))
  return {
    'temperature': temperature,
    'count': int(known.sum()),
    'nll_before': negative_log_likelihood(logit, female, 1.0),
    'nll_after': negative_log_likelihood(logit, female, temperature),
  }


def draw_ages(distribution: np.ndarray, spans: np.ndarray) -> np.ndarray:
  """Draws the years of ages that are known only as a group.

  From the network's own distribution within the group: where that shape is
  wrong, so are the intervals that are fitted to these ages.

  Args:
    distribution: float [N, K], the probability of each year from 0 on.
    spans: int [N, 2], first and last year of each group; UNKNOWN stays so.

  Returns:
    float [N], years; the same for the same arguments.
  """
  years = np.arange(distribution.shape[1])
  inside = (years >= spans[:, :1]) & (years <= spans[:, 1:])
  mass = np.cumsum(distribution * inside + 1e-12 * inside, axis=1, dtype=np.float64)
  draws = np.random.default_rng(0).random((len(mass), 1)) * mass[:, -1:]
  drawn = np.argmax(mass > draws, axis=1)
  return np.where(spans[:, 0] == schema.UNKNOWN, schema.UNKNOWN, drawn).astype(float)


def fit(table: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Fits what a table's columns allow.

  Args:
    table: columns [N] of held-out images: the labels `age`, `gender` and,
      as far as the network gives them, `age_pred` and `gender_logit`; with
      `age_distribution` and `age_span` ages known only as a group count as well,
      see `draw_ages`.

  Returns:
    `num_examples`, `age` as `fit_ages` returns it, with `num_drawn`, of how many
    ages the year was drawn; `gender` as `fit_gender` does; either is None where
    it cannot be fitted.
  """
  age = gender = None
  if 'age_pred' in table:
    ages, only_group = table['age'], np.zeros(len(table['age']), bool)
    if 'age_distribution' in table and 'age_span' in table:
      drawn = draw_ages(table['age_distribution'], table['age_span'])
      only_group = (ages == schema.UNKNOWN) & (drawn != schema.UNKNOWN)
      ages = np.where(only_group, drawn, ages)
    age = fit_ages(ages, table['age_pred'])
    if age:
      age['num_drawn'] = int(only_group.sum())
  if 'gender_logit' in table:
    gender = fit_gender(table['gender'], table['gender_logit'])
  return {'num_examples': len(table['age']), 'age': age, 'gender': gender}


def describe(fitted: Mapping, table: Mapping[str, np.ndarray]) -> str:
  """Returns in one line what was fitted, and why the rest was not."""
  parts = []
  if fitted['age']:
    half = np.asarray(fitted['age']['levels'][str(SHOWN_LEVEL)])
    parts.append(
      f'{SHOWN_LEVEL:.0%} age intervals of +-{half.min():.1f} to {half.max():.1f} '
      f'years in {len(half)} bins of predicted age'
    )
    if fitted['age'].get('num_drawn'):
      drawn = fitted['age']['num_drawn']
      parts[-1] += f' ({drawn} ages drawn within their group)'
  elif 'age_pred' in table:
    parts.append('no age intervals, too few known ages')
  elif 'age_group_pred' in table:
    parts.append('no age intervals, a network of groups gives no years')
  if fitted['gender']:
    parts.append(f'gender at temperature {fitted["gender"]["temperature"]:.2f}')
  elif 'gender_prob' in table:
    parts.append('gender as it is, since none or all of them are wrong')
  return (
    f'calibrated on {fitted["num_examples"]} images of '
    f'"{fitted["split"]}": {"; ".join(parts)}'
  )


def apply(fitted: Mapping, columns: Mapping[str, np.ndarray]) -> dict:
  """Computes what a calibration says of predictions.

  Args:
    fitted: see `fit`.
    columns: [N], `age_pred` and `gender_logit` as far as there are any.

  Returns:
    The ends of the age intervals (years, columns of metrics.INTERVALS) and the
    calibrated `gender_prob`, float [N], as far as they were fitted.
  """
  result: dict[str, np.ndarray] = {}
  if fitted['age'] and 'age_pred' in columns:
    for level, names in metrics.INTERVALS.items():
      ends = age_interval(fitted['age'], columns['age_pred'], level / 100)
      result |= dict(zip(names, ends, strict=True))
  if fitted['gender'] and 'gender_logit' in columns:
    temperature = fitted['gender']['temperature']
    logit = np.asarray(columns['gender_logit'], np.float64)
    result['gender_prob'] = scipy.special.expit(logit / temperature)
  return result


def predicted_age_bins(
  fitted: Mapping, age_pred: np.ndarray
) -> list[tuple[str, np.ndarray]]:
  """Lists the bins of predicted age that each have intervals of their own.

  Args:
    fitted: see `fit_ages`.
    age_pred: float [N], years.

  Returns:
    (name, such as `24.1 to 29.0`, bool [N]) of each bin.
  """
  edges = [f'{edge:.1f}' for edge in fitted['edges']]
  names = ['all']
  if edges:
    between = map('{} to {}'.format, edges, edges[1:])
    names = [f'below {edges[0]}', *between, f'from {edges[-1]}']
  rows = np.searchsorted(fitted['edges'], age_pred, side='right')
  return [(name, rows == row) for row, name in enumerate(names)]


def coverage(
  fitted: Mapping,
  age: np.ndarray,
  age_pred: np.ndarray,
  columns: Mapping[str, Sequence[tuple[str, np.ndarray]]],
) -> list[dict]:
  """Measures how often the intervals hold the true age, and how wide they are.

  Args:
    fitted: see `fit_ages`.
    age: float [N], years; UNKNOWN is left out.
    age_pred: float [N], years.
    columns: name -> (group's name, bool [N]) of each group.

  Returns:
    For each level a row of all examples, then one per group that has any:
    `level`, `column` and `group` ('' of all), `count`, `coverage` with the
    bounds `low` and `high` of its 95 % interval (Wilson 1927) and the mean
    `width`, years.
  """
  known = age != schema.UNKNOWN
  parts = [('', '', known)]
  for column, groups in columns.items():
    parts += [(column, name, known & chosen) for name, chosen in groups]
  result = []
  for level in LEVELS:
    low, high = age_interval(fitted, age_pred, level)
    inside = (low <= age) & (age <= high)
    for column, group, rows in parts:
      count, hits = int(rows.sum()), int(inside[rows].sum())
      if not count:
        continue
      bounds = scipy.stats.binomtest(hits, count).proportion_ci(method='wilson')
      row = {'level': level, 'column': column, 'group': group, 'count': count}
      row |= {'coverage': hits / count, 'low': bounds.low, 'high': bounds.high}
      result.append(row | {'width': float((high - low)[rows].mean())})
  return result


def read(path: str | os.PathLike) -> dict:
  """Returns the calibration in a file, {} where there is no such file.

  Raises:
    errors_lib.UserError: the file is damaged.
  """
  fitted = files.read_json(path, {})
  try:
    probe = {'age_pred': np.array([30.0]), 'gender_logit': np.ones(1)}
    found = apply(fitted, probe) if fitted else {}
    is_usable = all(np.isfinite(value).all() for value in found.values())
    for key, kind in (('step', int), ('split', str), ('fingerprint', str)):
      is_usable &= not fitted or isinstance(fitted[key], kind)
  except (LookupError, TypeError, ValueError, AttributeError):
    is_usable = False
  if not is_usable:
    raise errors_lib.UserError(
      f'{path} is damaged: delete it and evaluate the run again'
    )
  return fitted


def variant(config, workdir: str) -> str:
  """Names what an evaluation has otherwise than its run, '' for nothing.

  Over-sampling gives other predictions and so another calibration: files of
  both lie side by side.
  """
  if config.data.oversample == config_lib.load_config(workdir).data.oversample:
    return ''
  return '_oversample' if config.data.oversample else '_single_view'


def path(config, workdir: str) -> pathlib.Path:
  """Returns where the calibration of a run lies."""
  return pathlib.Path(workdir) / f'calibration{variant(config, workdir)}.json'
