import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax.models import tasks
from agegender_jax.training import step_metrics


def batch(**columns):
  result = {
    'age': jnp.array([10.0, 20, -1, 40]),
    'age_group': jnp.array([2, -1, 4, 5]),
    'gender': jnp.array([0, 1, 1, -1]),
    'mask': jnp.array([1.0, 1, 1, 0]),
  }
  return {**result, **columns}


def sums_of(logits, batch, **kinds):
  config = config_lib.default_config()
  for name in ('age', 'gender'):
    config.tasks[name].kind = kinds.get(name, '')
  found = tasks.create_tasks(config.tasks, 'adience')
  result = step_metrics.batch_sums(found, logits, batch)
  return {key: tuple(map(float, pair)) for key, pair in result.items()}


def test_sums_count_known_labels_of_unpadded_rows():
  logits = {
    'age': jnp.array([[13.0], [18.0], [50.0], [0.0]]),
    'gender': jnp.array([[-2.0], [-1.0], [3.0], [1.0]]),
  }
  found = sums_of(logits, batch(), age='mse', gender='binary')
  # The third age is unknown, the fourth row is padding.
  assert found['age_mae'] == (3 + 2, 2)
  assert found['gender_accuracy'] == (2, 3)


def test_sums_of_age_groups_count_hits():
  rows = jnp.array([2, 3, 1, 5])
  logits = {'age': jnp.eye(8)[rows]}
  found = sums_of(logits, batch(), age='group')
  assert found == {'age_group_accuracy': (1, 2)}


def test_sums_without_any_label_are_zero():
  unknown = batch(gender=jnp.full(4, -1))
  logits = {'gender': jnp.ones((4, 1))}
  assert sums_of(logits, unknown, gender='binary') == {'gender_accuracy': (0, 0)}


def test_means_weigh_steps_by_their_counts():
  rows = [
    {'age_mae': (np.float32(6), np.float32(2)), 'loss': (5.0, 1.0)},
    {'age_mae': (np.float32(0), np.float32(1)), 'loss': (1.0, 3.0)},
  ]
  assert step_metrics.mean_metrics(rows) == pytest.approx(
    {'train/age_mae': 2, 'train/loss': 1.5}
  )


def test_means_leave_out_what_no_step_counted():
  rows = [{'age_mae': (0.0, 0.0), 'loss': (2.0, 1.0)}]
  assert step_metrics.mean_metrics(rows) == {'train/loss': 2}
