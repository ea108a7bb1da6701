"""The percentile bootstrap over examples (Efron 1979): NumPy only."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np

RESAMPLES_AT_ONCE = 100
Key = TypeVar('Key')


def resamples(count: int, num_samples: int, seed: int = 0) -> Iterator[np.ndarray]:
  """Yields how often each resample draws each example.

  Args:
    count: examples.
    num_samples: resamples.
    seed: of the drawing.

  Yields:
    float64 [count, R], a column per resample, num_samples columns in all.
  """
  random = np.random.default_rng(seed)
  for start in range(0, num_samples, RESAMPLES_AT_ONCE):
    columns = min(RESAMPLES_AT_ONCE, num_samples - start)
    picks = random.integers(0, count, (columns, count))
    cells = picks * columns + np.arange(columns)[:, None]
    weights = np.bincount(cells.ravel(), minlength=count * columns)
    yield weights.reshape(count, columns).astype(np.float64)


def evaluate(
  views: Mapping[Key, Callable], count: int, num_samples: int = 1000
) -> dict[Key, tuple[float, np.ndarray]]:
  """Computes scores of one table and of its resamples, the same for all.

  Args:
    views: key -> weights [count, R] -> scores [R], see metrics.View.
    count: examples of the table.
    num_samples: resamples.

  Returns:
    Key -> (value, samples float64 [num_samples]) of the scores that are
    defined on the table; a sample is NaN where its resample leaves the score
    undefined.
  """
  ones = np.ones((count, 1))
  values = {key: float(view(ones)[0]) for key, view in views.items()}
  values = {key: value for key, value in values.items() if np.isfinite(value)}
  samples = {key: [np.zeros(0)] for key in values}
  for weights in resamples(count, num_samples if values else 0):
    for key, parts in samples.items():
      parts.append(views[key](weights))
  return {key: (value, np.concatenate(samples[key])) for key, value in values.items()}


def bounds(samples: np.ndarray) -> tuple[float, float]:
  """Returns the 95 % percentile interval of samples, NaN of none.

  A resample can lack what a score needs, a gender say: it is left out.
  """
  samples = samples[np.isfinite(samples)]
  if not len(samples):
    return math.nan, math.nan
  low, high = np.percentile(samples, [2.5, 97.5])
  return float(low), float(high)
