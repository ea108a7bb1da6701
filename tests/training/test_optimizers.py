import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, models
from agegender_jax.models import flops
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


def test_layers_decay_from_the_branches_to_the_stem():
  block = config_lib.default_config().model
  block.update({'backbone': 'resnet18', 'width': 0.25, 'branch': 'gap dense:4'})
  model = models.create_model(block, {'age': 1})
  factors = optimizers.layer_factors(flops.layer_table(model, 32), 0.5)
  expected = {
    f'layer{stage}_{row}': 0.5 ** (10 - 2 * stage - row)
    for stage in (1, 2, 3, 4)
    for row in (0, 1)
  } | {'conv1': 0.5**9, 'bn1': 0.5**9}
  found = {name.removeprefix('backbone/'): f for name, f in factors.items()}
  assert found == expected
  paths = ('backbone/bn1/scale', 'backbone/layer4_1/conv1/kernel', 'branch_age/bias')
  ones = {path: jnp.ones(1) for path in paths}
  fields = {'name': 'sgd', 'momentum': 0.0, 'lr_multipliers': 'backbone=3'}
  optimizer = optimizers.create_optimizer(config(**fields), lambda step: 1.0, factors)
  changes, _ = optimizer.update(ones, optimizer.init(ones), ones)
  found = [float(changes[path][0]) for path in paths]
  np.testing.assert_allclose(found, [-3 * 0.5**9, -3 * 0.5, -1], rtol=1e-6)


def test_accumulated_steps_are_one_update_on_the_mean_gradient():
  params = {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}
  # Of a rate that falls: it is that of the first step of each update.
  fields = {'name': 'sgd', 'momentum': 0.0, 'accumulate_steps': 2}
  optimizer = optimizers.create_optimizer(
    config(**fields), lambda step: 1.0 / (1 + step)
  )
  state, found = optimizer.init(params), []
  for scale in (1.0, 3.0, 2.0, 6.0):
    gradients = {path: jnp.full(leaf.shape, scale) for path, leaf in params.items()}
    changes, state = optimizer.update(gradients, state, params)
    found.append(float(changes['bias'][0]))
  np.testing.assert_allclose(found, [0, -2, 0, -4 / 3], rtol=1e-6)


def test_the_average_follows_its_formula():
  optimizer = optimizers.with_average(optax.sgd(1.0), decay=0.15)
  # Loaded after the state was made, as model.init_from does.
  params, state = {'a': jnp.zeros(1)}, optimizer.init({'a': jnp.full(1, 9.0)})
  live, average = 0.0, 0.0
  for step, gradient in enumerate((1.0, -2.0, 5.0)):
    at = optimizers.live(state, params)
    np.testing.assert_allclose(at['a'], live, rtol=1e-6)
    changes, state = optimizer.update({'a': jnp.full(1, gradient)}, state, params)
    params = optax.apply_updates(params, changes)
    live -= gradient
    decay = min(0.15, (1 + step) / (10 + step))
    average = decay * average + (1 - decay) * live
    np.testing.assert_allclose(params['a'], average, rtol=1e-6)
