"""Metrics of training, as sums on the device.

`scoring` scores finished predictions on the host.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from agegender_jax import schema
from agegender_jax.models import tasks


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
    known = schema.known(batch, label)
    result[name] = ((value * known).sum(), known.sum())
  return result


def mean_metrics(rows: list[dict]) -> dict[str, float]:
  """Joins steps' {name: (sums, counts)} into `train/<name>` means."""
  result = {}
  for name in rows[0]:
    total = sum(np.sum(row[name][0], dtype=np.float64) for row in rows)
    count = sum(np.sum(row[name][1], dtype=np.float64) for row in rows)
    if count:
      result[f'train/{name}'] = float(total / count)
  return result
