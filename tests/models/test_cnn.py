import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, models, recipes
from agegender_jax.models import cnn

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'


def layers_of(name):
  """Returns the lines of layers of a recipe."""
  model = recipes.load(CONFIGS / f'{name}.py').get_config().model
  return {'layers': model.layers, 'branch': model.branch}


SEED_000 = layers_of('utk_cnn')
SEED_001 = layers_of('utk_multibranch')


def conv_params(inputs, outputs):
  return (9 * inputs + 1) * outputs


def dense_params(inputs, outputs):
  return (inputs + 1) * outputs


def create(size=128, outputs=None, **fields):
  config = config_lib.default_config().model
  config.update(fields)
  model = models.create_model(config, outputs or {'age': 1, 'gender': 1})
  image = jnp.zeros((2, size, size, 3))
  init = jax.jit(functools.partial(model.init, train=False))
  return model, init(jax.random.key(0), image), image


def shapes(size, **fields):
  """Returns the variables' shapes, computing nothing."""
  return jax.eval_shape(lambda: create(size, **fields)[1])


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_seed_001_has_its_parameters():
  variables = shapes(128, **SEED_001)
  shared = conv_params(3, 32) + conv_params(32, 64)
  branch = (
    conv_params(64, 128) + dense_params(16 * 16 * 128, 128)
    + dense_params(128, 1)
  )  # fmt: skip
  assert count(variables['params']) == shared + 2 * branch == 8_556_226
  assert set(variables['params']) == {
    'backbone', 'branch_age', 'branch_gender'
  }  # fmt: skip
  assert count(variables['params']['backbone']) == shared


def test_seed_000_is_the_same_class_with_batch_norm():
  variables = shapes(64, **SEED_000)
  shared = (
    conv_params(3, 16) + conv_params(16, 32) + 2 * 32 + conv_params(32, 64)
  )  # fmt: skip
  branch = (
    conv_params(64, 64) + 2 * 64 + conv_params(64, 128) + 2 * 128
    + conv_params(128, 128) + dense_params(4 * 4 * 128, 128)
    + dense_params(128, 64) + dense_params(64, 1)
  )  # fmt: skip
  assert count(variables['params']) == shared + 2 * branch
  assert set(variables['batch_stats']['branch_age']) == {'norm1', 'norm2'}


def test_evaluation_needs_no_rng_and_does_not_mix_examples():
  model, variables, image = create(16, layers='conv:4 pool', branch='flatten drop:0.5')
  image = jax.random.uniform(jax.random.key(1), image.shape)
  both = model.apply(variables, image, train=False)
  one = model.apply(variables, image[:1], train=False)
  assert set(both) == {'age', 'gender'}
  assert both['age'].dtype == jnp.float32
  np.testing.assert_allclose(both['age'][:1], one['age'], rtol=1e-5)


def test_bfloat16_stays_close_and_returns_float32():
  model, variables, image = create(32, **SEED_001)
  image = jax.random.uniform(jax.random.key(1), image.shape)
  exact = model.apply(variables, image, train=False)['age']
  model, _, _ = create(32, dtype='bfloat16', **SEED_001)
  close = model.apply(variables, image, train=False)['age']
  assert close.dtype == jnp.float32
  np.testing.assert_allclose(close, exact, atol=0.02)


def test_layer_text_is_what_it_says():
  parsed = cnn.parse_layers('conv:8 pool conv:16 drop:0.5')
  assert parsed == [
    ('conv', 8, 'conv1'),
    ('pool', None, 'pool1'),
    ('conv', 16, 'conv2'),
    ('drop', 0.5, 'drop1'),
  ]


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'layers': 'convolution:3'}, 'unknown layer'),
    ({'layers': 'conv'}, 'should read'),
    ({'layers': 'conv:x'}, 'should read'),
    ({'layers': 'conv:-4'}, 'should read'),
    ({'layers': 'conv:99999999999999999999'}, 'should read'),
    ({'layers': 'pool:2'}, 'without value'),
    ({'layers': 'drop:1.5'}, 'should read'),
    ({'branch': 'dense:8'}, 'needs "flatten"'),
    ({'branch': 'conv:8'}, 'must end flat'),
    ({'branch': 'flatten pool'}, 'needs a feature map'),
    ({'backbone': 'resnet19'}, 'did you mean "resnet'),
    ({'backbone': 'resnet18', 'width': 0.0}, 'model.width must be'),
    ({'backbone': 'resnet18', 'width': 0.016, 'resnet_d': True}, 'model.width must'),
    ({'backbone': 'levi_hassner', 'dense_features': (8, 0)}, 'dense_features'),
    ({'backbone': 'levi_hassner', 'dense_features': ('a',)}, 'dense_features'),
    ({'dtype': 'float16'}, 'unknown model.dtype'),
    ({'layers': 'pool ' * 6}, 'image_size is too small'),
  ],
)
def test_a_wrong_network_is_refused(fields, message):
  with pytest.raises(errors.UserError, match=message):
    create(32, **fields)
