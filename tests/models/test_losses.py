import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax.models import losses, tasks


def test_squared_and_absolute_error():
  logits, age = jnp.array([[30.0], [10.0]]), jnp.array([27.0, 14.0])
  np.testing.assert_allclose(losses.squared_error(logits, age), [9, 16])
  np.testing.assert_allclose(losses.absolute_error(logits, age), [3, 4])


def test_binary_cross_entropy_is_minus_log_probability():
  logits = jnp.log(jnp.array([[3.0], [3.0]]))  # P(1) = 3/4.
  loss = losses.binary_cross_entropy(logits, jnp.array([1, 0]))
  np.testing.assert_allclose(loss, -np.log([0.75, 0.25]), rtol=1e-6)


def test_cross_entropy_is_minus_log_probability():
  logits = jnp.log(jnp.array([[1.0, 2.0, 5.0]]))
  loss = losses.cross_entropy(logits, jnp.array([2]))
  np.testing.assert_allclose(loss, -np.log(5 / 8), rtol=1e-6)


def test_year_cross_entropy_clips_at_the_last_year():
  logits = jnp.zeros((2, 101))
  loss = losses.year_cross_entropy(logits, jnp.array([116.0, 26.7]))
  np.testing.assert_allclose(loss, np.log([101, 101]), rtol=1e-6)
  peaked = logits.at[:, 100].set(9.0)
  loss = losses.year_cross_entropy(peaked, jnp.array([116.0, 100.0]))
  np.testing.assert_allclose(loss[0], loss[1])


@pytest.mark.parametrize(
  'name, kind',
  [(name, kind) for name in tasks.TASKS for kind in tasks.TASKS[name]],
)
def test_every_task_is_finite_on_unknown_labels_and_decodes(name, kind):
  config = config_lib.default_config().tasks
  config.age.kind = config.gender.kind = ''
  config[name].kind = kind
  (task,) = tasks.create_tasks(config, 'adience')
  logits = jnp.ones((3, task.num_outputs))
  dtype = jnp.float32 if task.label == 'age' else jnp.int32
  label = jnp.array([-1, 0, 1], dtype)
  value, gradient = jax.value_and_grad(lambda x: task.loss(x, label).sum())(logits)
  assert np.isfinite(value) and np.isfinite(gradient).all()
  for output in task.decode(logits).values():
    assert output.shape == (3,)


def test_dex_decodes_the_expected_year():
  task_config = config_lib.default_config().tasks
  task_config.age.kind = 'dex'
  task = tasks.create_tasks(task_config, 'adience')[0]
  logits = jnp.full((1, 101), -jnp.inf).at[0, 20].set(0).at[0, 30].set(0)
  np.testing.assert_allclose(task.decode(logits)['age'], [25.0], rtol=1e-6)
