"""Tests of models/resnet.py; test_parity.py compares it with torchvision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from agegender_jax import errors
from agegender_jax.models import layers, resnet

# Parameters with 1000 outputs, as torchvision documents them.
NUM_PARAMETERS = {
  'ResNet18': 11_689_512,
  'ResNet34': 21_797_672,
  'ResNet50': 25_557_032,
  'ResNet101': 44_549_160,
  'ResNet152': 60_192_808,
}


def _shapes(net, size=64):
  image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  init = functools.partial(net.init_with_output, train=False)
  return jax.eval_shape(init, jax.random.key(0), image)


@pytest.mark.parametrize('name', NUM_PARAMETERS)
def test_resnet_has_torchvisions_number_of_parameters(name):
  logits, variables = _shapes(getattr(resnet, name)(num_classes=1000))
  count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert count == NUM_PARAMETERS[name]
  assert logits.shape == (2, 1000)


# Parameters with 1000 outputs, as timm documents them; counted by hand for the
# squeeze-and-excitations, 2 (2 C r + r + C) for r = max(8, C / 16), and width.
@pytest.mark.parametrize(
  'fields, count',
  [
    ({'resnet_d': True}, 11_708_744),
    ({'squeeze_excite': True}, 11_689_512 + 90_112),
    ({'first_pool': False}, 11_689_512),
    ({'width': 0.5}, 3_055_880),
  ],
)
def test_resnet_options_have_their_number_of_parameters(fields, count):
  logits, variables = _shapes(resnet.ResNet18(num_classes=1000, **fields))
  found = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert found == count and logits.shape == (2, 1000)


def test_resnet_without_its_first_pool_has_larger_maps():
  features, _ = _shapes(resnet.ResNet18(first_pool=False, width=0.25), 64)
  assert features.shape == (2, 4, 4, 128)


def test_resnet_options_carry_timms_names():
  net = resnet.ResNet50(resnet_d=True, squeeze_excite=True)
  flat = traverse_util.flatten_dict(_shapes(net)[1]['params'], sep='/')
  assert flat['conv1_6/kernel'].shape == (3, 3, 32, 64)
  assert flat['layer2_0/downsample_1/kernel'].shape == (1, 1, 256, 512)
  assert flat['layer2_0/se/fc1/kernel'].shape == (1, 1, 512, 32)
  assert 'layer2_0/downsample_2/scale' in flat and 'conv1_1/scale' in flat


def test_resnet_names_its_modules_after_torchvision():
  _, variables = _shapes(resnet.ResNet50())
  flat = traverse_util.flatten_dict(variables['params'], sep='/')
  assert flat['layer1_0/downsample_0/kernel'].shape == (1, 1, 64, 256)
  assert flat['layer4_2/conv3/kernel'].shape == (1, 1, 512, 2048)
  assert 'layer1_1/downsample_0/kernel' not in flat
  assert 'conv1/bias' not in flat and 'fc/kernel' not in flat


@pytest.mark.parametrize('size, side', [(32, 1), (33, 2), (64, 2), (224, 7)])
def test_resnet_features_are_a_thirty_second_of_the_image(size, side):
  features, _ = _shapes(resnet.ResNet18(), size)
  assert features.shape == (2, side, side, 512)


def test_resnet_refuses_an_image_that_is_too_small():
  with pytest.raises(errors.UserError, match='image_size 31 .* to 32 or more'):
    _shapes(resnet.ResNet18(), 31)


def test_resnet_keeps_logits_and_parameters_in_float32_under_bfloat16():
  net = resnet.ResNet18(num_classes=3, dtype=jnp.bfloat16)
  logits, variables = _shapes(net)
  assert logits.dtype == jnp.float32
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(variables)}
  assert dtypes == {np.dtype(np.float32)}
  features, _ = _shapes(resnet.ResNet18(dtype=jnp.bfloat16))
  assert features.dtype == jnp.bfloat16


def test_resnet_averages_batch_statistics_over_the_named_axis():
  norm = functools.partial(layers.BatchNorm, axis_name='batch')
  net = resnet.ResNet(
    stage_sizes=(1,), block=resnet.BasicBlock, kit=layers.Kit(norm=norm)
  )
  image = jax.random.normal(jax.random.key(1), (2, 1, 32, 32, 3))
  variables = net.init(jax.random.key(0), image[0], train=False)

  def apply(x):
    return net.apply(variables, x, train=True, mutable='batch_stats')

  _, halves = jax.vmap(apply, axis_name='batch')(image)
  whole = net.copy(kit=layers.Kit()).apply(
    variables, image[:, 0], train=True, mutable='batch_stats'
  )[1]
  for half, full in zip(jax.tree.leaves(halves), jax.tree.leaves(whole), strict=True):
    np.testing.assert_allclose(half[0], full, rtol=1e-4, atol=1e-5)


def test_drop_path_grows_linearly_to_the_last_block_and_is_for_training():
  net = resnet.ResNet18(width=0.25, drop_path=0.4)
  image = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
  variables = net.init(jax.random.key(0), image, train=False)
  plain = net.copy(drop_path=0.0)
  np.testing.assert_array_equal(
    net.apply(variables, image, train=False), plain.apply(variables, image, train=False)
  )
  rates = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, layers.Dropout):
      rates.append(context.module.rate)
      assert context.module.per_example
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    rngs = {'dropout': jax.random.key(0)}
    net.apply(variables, image, train=True, mutable='batch_stats', rngs=rngs)
  np.testing.assert_allclose(rates, 0.4 * np.arange(1, 9) / 8)
