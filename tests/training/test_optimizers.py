import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.training import optimizers


def config(**fields):
  result = config_lib.default_config().optimizer
  result.update(fields)
  return result


def schedule(num_steps=1000, steps_per_epoch=10.0, **fields):
  return optimizers.create_schedule(config(**fields), num_steps, steps_per_epoch)


def test_step_decay_by_steps_is_the_papers():
  rate = schedule(schedule='step_decay', decay_every_steps=100)
  for step, expected in [(0, 1e-3), (99, 1e-3), (100, 1e-4), (250, 1e-5)]:
    assert float(rate(step)) == pytest.approx(expected), step


def test_step_decay_by_epochs_is_the_seeds():
  rate = schedule(schedule='step_decay', decay_every_epochs=3.0)
  for step in (0, 15, 19, 20, 49, 50, 80):
    expected = 1e-3 * 0.1 ** ((1 + step // 10) // 3)
    assert float(rate(step)) == pytest.approx(expected), step


def test_time_decay_is_keras_decay():
  rate = schedule(schedule='time_decay', decay_every_steps=100)
  for step in (0, 1, 50, 100, 900):
    # The legacy optimizers' rate / (1 + decay * iterations), decay 0.01.
    expected = 1e-3 / (1 + 0.01 * step)
    assert float(rate(step)) == pytest.approx(expected), step


def test_time_decay_by_epochs_halves_after_as_many():
  rate = schedule(schedule='time_decay', decay_every_epochs=3.0)
  for epoch, expected in [(0, 1e-3), (1.5, 2e-3 / 3), (3, 5e-4), (9, 2.5e-4)]:
    assert float(rate(round(10 * epoch))) == pytest.approx(expected), epoch


def test_cosine_with_warmup_hits_its_corners():
  rate = schedule(schedule='cosine', warmup_epochs=10.0)
  assert float(rate(0)) == 0
  assert float(rate(50)) == pytest.approx(5e-4)
  assert float(rate(100)) == pytest.approx(1e-3)
  assert float(rate(550)) == pytest.approx(5e-4)
  assert float(rate(1000)) == pytest.approx(0, abs=1e-9)


def test_constant_is_constant():
  assert float(schedule()(0)) == float(schedule()(999)) == np.float32(1e-3)


def step(params, gradients, **fields):
  fields = {'schedule': 'constant', **fields}
  optimizer = optimizers.create_optimizer(config(**fields), schedule(**fields))
  changes, _ = optimizer.update(gradients, optimizer.init(params), params)
  return changes


def test_first_steps_match_their_formulas():
  # As steps has them: behind an axis of the device.
  params = {'kernel': jnp.ones((1, 1, 1)), 'bias': jnp.ones((1, 1))}
  gradients = {
    'kernel': jnp.full((1, 1, 1), 3.0), 'bias': jnp.full((1, 1), -4.0)
  }  # fmt: skip
  adam = step(params, gradients, name='adam', learning_rate=0.1)
  np.testing.assert_allclose(adam['kernel'], -0.1, rtol=1e-4)
  np.testing.assert_allclose(adam['bias'], 0.1, rtol=1e-4)
  sgd = step(params, gradients, name='sgd', learning_rate=0.1,
             weight_decay=0.5)  # fmt: skip
  np.testing.assert_allclose(sgd['kernel'], -0.35, rtol=1e-5)
  np.testing.assert_allclose(sgd['bias'], 0.4, rtol=1e-5)
  adamw = step(params, gradients, name='adamw', learning_rate=0.1,
               weight_decay=0.5)  # fmt: skip
  np.testing.assert_allclose(adamw['kernel'], -0.15, rtol=1e-4)
  clipped = step(params, gradients, name='sgd', learning_rate=1.0,
                 clip_norm=1.0)  # fmt: skip
  np.testing.assert_allclose(clipped['kernel'], -0.6, rtol=1e-5)
  np.testing.assert_allclose(clipped['bias'], 0.8, rtol=1e-5)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'schedule': 'steps'}, 'unknown optimizer.schedule'),
    ({'schedule': 'step_decay'}, 'exactly one of'),
    ({'schedule': 'time_decay'}, 'exactly one of'),
    ({'warmup_steps': 1, 'warmup_epochs': 1.0}, 'exactly one of'),
  ],
)
def test_a_wrong_schedule_is_refused(fields, message):
  with pytest.raises(errors.UserError, match=message):
    schedule(**fields)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'name': 'adm'}, 'unknown optimizer.name'),
    ({'learning_rate': 0.0}, 'not positive'),
    ({'weight_decay': 0.1}, 'adamw'),
  ],
)
def test_a_wrong_optimizer_is_refused(fields, message):
  with pytest.raises(errors.UserError, match=message):
    optimizers.create_optimizer(config(**fields), lambda count: 0.1)
