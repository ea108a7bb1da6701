import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax import errors
from agegender_jax.runtime import checkpoint
from agegender_jax.training import steps


def train_state(step, size=2):
  return steps.TrainState(
    step=jnp.asarray(step, jnp.int32),
    params={'dense': {'kernel': jnp.full((size, size), float(step))}},
    batch_stats={},
    opt_state=(jnp.asarray(step), {'mu': jnp.full(size, -float(step))}),
  )


def open_at(path):
  return checkpoint.Checkpoints(str(path), [('validation/age_mae', -1)])


def test_latest_and_best_are_kept_and_come_back(tmp_path):
  checkpoints = open_at(tmp_path)
  for step, value in [(1, 9.0), (2, 5.0), (3, 7.0), (4, 8.0)]:
    checkpoints.save(train_state(step), {'validation/age_mae': value})
  checkpoints.wait()
  assert checkpoints.latest_step() == 4
  assert checkpoints.best_step() == 2
  assert checkpoints.steps() == [2, 3, 4]
  with pytest.raises(errors.UserError, match='can be 2, 3, 4'):
    checkpoints.check_step(1)
  restored = checkpoints.restore(2, train_state(0))
  expected = train_state(2)
  assert jax.tree.structure(restored) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, restored, expected)
  checkpoints.close()
  again = open_at(tmp_path)
  assert (again.latest_step(), again.best_step()) == (4, 2)
  again.close()


def test_the_state_may_change_at_once(tmp_path):
  checkpoints = open_at(tmp_path)
  value = train_state(5)
  checkpoints.save(value, {'validation/age_mae': 1.0})
  jax.tree.map(lambda leaf: leaf.delete(), value)
  restored = checkpoints.restore(5, train_state(0))
  np.testing.assert_array_equal(
    restored.params['dense']['kernel'], np.full((2, 2), 5.0)
  )
  checkpoints.close()


def test_another_network_is_refused_by_its_first_leaf(tmp_path):
  checkpoints = open_at(tmp_path)
  checkpoints.save(train_state(1), {'validation/age_mae': 1.0})
  checkpoints.wait()
  with pytest.raises(errors.UserError, match=r'params/dense/kernel is \(2, 2\)'):
    checkpoints.restore(1, train_state(0, size=3))
  checkpoints.close()


def test_an_empty_workdir_has_no_step(tmp_path):
  checkpoints = open_at(tmp_path)
  assert checkpoints.latest_step() is None
  assert checkpoints.best_step() is None
  checkpoints.close()
