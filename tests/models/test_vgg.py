"""Tests of models/vgg.py; test_parity.py compares it with torchvision."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax import errors, recipes
from agegender_jax.inference import predictor
from agegender_jax.models import parameter_groups, vgg

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'


def _shapes(net, size=64):
  image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  init = functools.partial(net.init_with_output, train=False)
  return jax.eval_shape(init, jax.random.key(0), image)


@pytest.mark.parametrize(
  'create, num_classes, expected',
  [
    (vgg.VGG16, 0, 14_714_688),  # What the four-conv report freezes.
    (vgg.VGG16, 1000, 138_357_544),
    (vgg.VGG16BN, 1000, 138_365_992),
  ],
)
def test_vgg_has_the_published_number_of_parameters(create, num_classes, expected):
  _, variables = _shapes(create(num_classes=num_classes))
  count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert count == expected


def test_the_seeds_gender_model_has_its_parameters():
  config = recipes.load(CONFIGS / 'utk_vgg.py').get_config('gender')
  network = predictor.Network(config)
  parts = parameter_groups.split(network.shapes()['params'], network.is_frozen)
  trained, frozen = (sum(leaf.size for leaf in part.values()) for part in parts)
  assert (trained + frozen, trained) == (14_846_273, 131_585)


@pytest.mark.parametrize('create, last', [(vgg.VGG16, 28), (vgg.VGG16BN, 40)])
def test_vgg_numbers_its_modules_as_torchvision(create, last):
  features, variables = _shapes(create(), 96)
  assert features.shape == (2, 3, 3, 512)
  kernel = variables['params'][f'features_{last}']['kernel']
  assert kernel.shape == (3, 3, 512, 512)


def test_vgg_refuses_an_image_that_is_too_small():
  with pytest.raises(errors.UserError, match='image_size 16 .* to 32 or more'):
    _shapes(vgg.VGG16(), 16)


def test_vgg_drops_out_in_training_only():
  net = vgg.VGG(stage_sizes=(1,), num_classes=4)
  image = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
  variables = _constant(_shapes(net, 32)[1])
  still = net.apply(variables, image, train=False)
  np.testing.assert_array_equal(still, net.apply(variables, image, train=False))
  first, second = (
    net.apply(variables, image, train=True, rngs={'dropout': key})
    for key in jax.random.split(jax.random.key(2))
  )
  assert not np.array_equal(first, second)


def _constant(shapes):
  return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), shapes)


def test_adaptive_average_pool_overlaps_bins_as_torch_does():
  x = jnp.arange(4.0).reshape(1, 4, 1, 1)
  pooled = vgg.adaptive_average_pool(x, 3)
  # Bins of four pixels in three: 0-1, 1-2, 2-3.
  np.testing.assert_allclose(pooled[0, :, 0, 0], [0.5, 1.5, 2.5])
  np.testing.assert_allclose(pooled[0, :, 2, 0], [0.5, 1.5, 2.5])
