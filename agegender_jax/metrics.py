"""Metrics: sums on the device for training, scores with bounds on the host.

Every score is a mean of means over examples with known labels, so one
weighted mean serves the value and each bootstrap resample alike.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from agegender_jax import schema, tasks

# Metrics that can choose the best checkpoint, in the order of preference, and
# whether more (1) or less (-1) is better.
BEST_METRICS = {
  'age_mae': -1,
  'age_group_accuracy': 1,
  'gender_accuracy': 1,
}
RESAMPLES_AT_ONCE = 100


def batch_sums(
  batch_tasks: Sequence[tasks.Task],
  logits: dict[str, jax.Array],
  batch: dict[str, jax.Array],
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Computes training metrics of a shard as sums and counts.

  Args:
    batch_tasks: the tasks.
    logits: task name -> float32 [B, K].
    batch: see schema.

  Returns:
    Metric name -> (sum, count), both float32 [].
  """
  decoded = {}
  for task in batch_tasks:
    decoded |= task.decode(logits[task.name])
  values = {}
  if 'age' in decoded:
    values['age_mae'] = ('age', jnp.abs(decoded['age'] - batch['age']))
  if 'age_group' in decoded:
    hit = decoded['age_group'] == batch['age_group']
    values['age_group_accuracy'] = ('age_group', hit)
  if 'gender_prob' in decoded:
    female = decoded['gender_prob'] > 0.5
    hit = female == (batch['gender'] == schema.FEMALE)
    values['gender_accuracy'] = ('gender', hit)
  result = {}
  for name, (label, value) in values.items():
    known = batch['mask'] * (batch[label] != schema.UNKNOWN)
    result[name] = ((value * known).sum(), known.sum())
  return result


def mean_metrics(rows: list[dict]) -> dict[str, float]:
  """Joins steps' metrics {name: (sum, count)} into `train/<name>` means."""
  result = {}
  for name in rows[0]:
    total = sum(float(row[name][0]) for row in rows)
    count = sum(float(row[name][1]) for row in rows)
    if count:
      result[f'train/{name}'] = total / count
  return result


def _terms(table: Mapping[str, np.ndarray]):
  """Returns score name -> parts (values [N], known [N]); it is their mean."""
  terms = {}
  if 'age_pred' in table:
    known = table['age'] != schema.UNKNOWN
    error = table['age_pred'] - table['age']
    terms['age_mae'] = [(np.abs(error), known)]
    for years in (1, 3, 5, 10):
      terms[f'age_cs{years}'] = [(np.abs(error) <= years, known)]
    terms['age_bias'] = [(error, known)]
  if 'age_group_pred' in table:
    known = table['age_group'] != schema.UNKNOWN
    distance = np.abs(table['age_group_pred'] - table['age_group'])
    terms['age_group_accuracy'] = [(distance == 0, known)]
    terms['age_group_one_off'] = [(distance <= 1, known)]
  if 'gender_prob' in table:
    gender = table['gender']
    hit = (table['gender_prob'] > 0.5) == (gender == schema.FEMALE)
    terms['gender_accuracy'] = [(hit, gender != schema.UNKNOWN)]
    terms['gender_balanced_accuracy'] = [
      (hit, gender == schema.MALE),
      (hit, gender == schema.FEMALE),
    ]
  return terms


def _mean_of_means(weights, parts):
  """Averages parts under each row of weights [R, N]; NaN where one is empty."""
  with np.errstate(invalid='ignore'):
    means = [
      (weights @ np.where(known, values, 0.0)) / (weights @ known.astype(float))
      for values, known in parts
    ]
  return np.mean(means, axis=0)


def score(
  table: Mapping[str, np.ndarray], num_samples: int, seed: int = 0
) -> dict[str, float]:
  """Scores predictions, each with the bounds of its 95 % interval.

  The interval is the percentile bootstrap over examples (Efron 1979).

  Args:
    table: columns [N]: labels `age` (years), `age_group`, `gender` with
      UNKNOWN for unknown, and those that the model gives of `age_pred`
      (years), `age_group_pred`, `gender_prob` (probability of FEMALE).
    num_samples: bootstrap resamples; 0 leaves the bounds out.
    seed: of the resampling.

  Returns:
    Score name -> value, and `<name>_low`, `<name>_high`. Accuracies are
    fractions, ages years. A score without any known label is left out.
  """
  count = len(table['age'])
  terms = _terms(table)
  values = {
    name: _mean_of_means(np.ones((1, count)), parts)[0]
    for name, parts in terms.items()
  }
  terms = {k: v for k, v in terms.items() if np.isfinite(values[k])}
  samples = {name: [] for name in terms}
  random = np.random.default_rng(seed)
  for start in range(0, num_samples, RESAMPLES_AT_ONCE):
    rows = min(RESAMPLES_AT_ONCE, num_samples - start)
    picks = random.integers(0, count, (rows, count))
    picks += np.arange(rows)[:, None] * count
    weights = np.bincount(picks.ravel(), minlength=rows * count)
    weights = weights.reshape(rows, count).astype(float)
    for name, parts in terms.items():
      samples[name].append(_mean_of_means(weights, parts))
  result = {}
  for name in terms:
    result[name] = float(values[name])
    if num_samples:
      # A resample can lack a class altogether: its mean is left out.
      low, high = np.nanpercentile(np.concatenate(samples[name]), [2.5, 97.5])
      result[f'{name}_low'], result[f'{name}_high'] = float(low), float(high)
  return result


def trivial_scores(train_labels, labels) -> dict[str, float]:
  """Scores the predictor that knows the training labels only.

  Args:
    train_labels: dict of `age` [N], years, and `gender` [N].
    labels: the same of the examples to score.

  Returns:
    Scores as `score` gives them, of the median age and the majority gender.
  """
  age, gender = train_labels['age'], train_labels['gender']
  table = {key: np.asarray(value) for key, value in labels.items()}
  size = len(table['age'])
  if (age != schema.UNKNOWN).any():
    median = np.median(age[age != schema.UNKNOWN])
    table['age_pred'] = np.full(size, median)
  groups = train_labels['age_group']
  if (groups != schema.UNKNOWN).any():
    majority = np.bincount(groups[groups != schema.UNKNOWN]).argmax()
    table['age_group_pred'] = np.full(size, majority)
  if (gender != schema.UNKNOWN).any():
    females = (gender == schema.FEMALE).sum()
    majority = float(females > (gender == schema.MALE).sum())
    table['gender_prob'] = np.full(size, majority)
  return score(table, num_samples=0)
