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


def step(params, gradients, **fields):
  optimizer = optimizers.create_optimizer(
    config(**fields), lambda step: fields['learning_rate']
  )
  changes, _ = optimizer.update(gradients, optimizer.init(params), params)
  return changes


def test_first_steps_match_their_formulas():
  params = {'kernel': jnp.ones((1, 1)), 'bias': jnp.ones(1)}
  gradients = {'kernel': jnp.full((1, 1), 3.0), 'bias': jnp.full(1, -4.0)}
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
    ({'name': 'adm'}, 'unknown optimizer.name'),
    ({'learning_rate': 0.0}, 'not positive'),
    ({'weight_decay': 0.1}, 'adamw'),
  ],
)
def test_a_wrong_optimizer_is_refused(fields, message):
  with pytest.raises(errors.UserError, match=message):
    optimizers.create_optimizer(config(**fields), lambda count: 0.1)
