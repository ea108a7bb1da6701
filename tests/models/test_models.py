"""Exact parameter counts, and that every backbone has a row and a use."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, models, recipes

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'

# Parameters of the features, at 227 pixels: torchvision's totals less `fc` or
# `classifier`; Levi-Hassner's 11,415,048 with eight ages less its last layer.
PARAMETERS = {
  'cnn': 19_392,
  'efficientnet_lite0': 4_652_008 - (1280 * 1000 + 1000),
  'levi_hassner': 11_415_048 - (512 * 8 + 8),
  'resnet18': 11_689_512 - (512 * 1000 + 1000),
  'resnet34': 21_797_672 - (512 * 1000 + 1000),
  'resnet50': 25_557_032 - (2048 * 1000 + 1000),
  'resnet101': 44_549_160 - (2048 * 1000 + 1000),
  'resnet152': 60_192_808 - (2048 * 1000 + 1000),
  'vgg16': 14_714_688,
  'vgg16_bn': 14_714_688 + 2 * 4224,
}


def create(size, **fields):
  config = config_lib.default_config().model
  config.update({'branch': 'gap', **fields})
  model = models.create_model(config, {'gender': 1})
  return model, jax.eval_shape(
    lambda key: models.init_variables(model, key, size), jax.random.key(0)
  )


def dtypes_of(tree):
  return {leaf.dtype.name for leaf in jax.tree.leaves(tree)}


def test_every_backbone_has_a_row():
  assert set(PARAMETERS) == set(models.BACKBONES)


@pytest.mark.parametrize('name', models.BACKBONES)
def test_parameters_are_counted_exactly(name):
  branch = '' if name == 'levi_hassner' else 'gap'
  _, variables = create(227, backbone=name, branch=branch)
  leaves = jax.tree.leaves(variables['params']['backbone'])
  assert sum(leaf.size for leaf in leaves) == PARAMETERS[name]


@pytest.mark.parametrize('name', models.BACKBONES)
def test_too_small_an_image_is_refused(name):
  fields = {'layers': 'pool pool'} if name == 'cnn' else {}
  with pytest.raises(errors.UserError, match='image_size'):
    create(3, backbone=name, **fields)


def test_the_seeds_four_convolutions_count_as_printed():
  config = recipes.load(CONFIGS / 'utk_fourconv.py').get_config()
  _, variables = create(128, layers=config.model.layers, branch='')
  counts = [
    sum(leaf.size for leaf in layer.values())
    for name, layer in variables['params']['backbone'].items()
    if name.startswith('conv')
  ]
  assert counts == [896, 18_496, 73_856, 295_168]


@pytest.mark.parametrize('name', models.BACKBONES)
def test_bfloat16_is_for_activations_alone(name):
  branch = '' if name == 'levi_hassner' else 'gap'
  model, variables = create(64, backbone=name, branch=branch, dtype='bfloat16')
  assert dtypes_of(variables) == {'float32'}
  image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)

  def apply(variables, image):
    return model.apply(variables, image, train=False, capture_intermediates=True)

  logits, seen = jax.eval_shape(apply, variables, image)
  assert dtypes_of(logits) == {'float32'}
  assert dtypes_of(seen['intermediates']['backbone']) == {'bfloat16'}


def test_levi_hassners_fields_reach_the_network():
  model, variables = create(
    64, backbone='levi_hassner', branch='', lrn_after=(3,),
    dense_features=(32, 16, 8),
  )  # fmt: skip
  # What this does to the features: test_levi_hassner.py.
  assert model.backbone.lrn_after == (3,)
  params = variables['params']
  widths = [params['backbone'][f'fc{row}']['bias'].size for row in (6, 7, 8)]
  assert widths == [32, 16, 8]
  assert params['branch_gender']['logits']['kernel'].shape == (8, 1)


def test_fourier_convolutions_give_the_same_network():
  config = config_lib.default_config().model
  direct = models.create_model(config, {'gender': 1})
  config.conv = 'fourier'
  other = models.create_model(config, {'gender': 1})
  dilated = other.kit.conv.keywords['conv_general_dilated']
  assert dilated.keywords == {'formulation': 'fourier'}
  image = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))
  variables = direct.init(jax.random.key(0), image, train=False)
  np.testing.assert_allclose(
    direct.apply(variables, image, train=False)['gender'],
    other.apply(variables, image, train=False)['gender'],
    rtol=1e-4,
    atol=1e-5,
  )
