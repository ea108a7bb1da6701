"""Convolution in the Fourier domain: values and gradients of the plain layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from agegender_jax import ops
from agegender_jax.models import layers, vgg

CASES = [
  ((3, 3), (1, 1), 'SAME'),
  ((7, 7), (4, 4), 'VALID'),
  ((5, 3), (2, 1), ((2, 1), (0, 3))),
]


@pytest.mark.parametrize('sides, strides, padding', CASES)
def test_fourier_conv_equals_lax(sides, strides, padding):
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2, 13, 17, 3))
  kernel = jax.random.normal(keys[1], (*sides, 3, 4))

  def reference(x, kernel):
    return lax.conv_general_dilated(
      x, kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  def fourier(x, kernel):
    return ops.conv_general_dilated(x, kernel, strides, padding, formulation='fourier')

  expected, pull_expected = jax.vjp(reference, x, kernel)
  value, pull = jax.vjp(fourier, x, kernel)
  np.testing.assert_allclose(value, expected, atol=2e-5)
  cotangent = jax.random.normal(keys[2], expected.shape)
  for a, b in zip(pull(cotangent), pull_expected(cotangent), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_fourier_conv_layer_is_a_drop_in_for_conv():
  image = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
  net = vgg.VGG(stage_sizes=(1, 1))
  variables = net.init(jax.random.key(0), image, train=False)
  other = net.copy(kit=layers.Kit(conv=layers.conv('fourier')))
  again = other.init(jax.random.key(0), image, train=False)
  jax.tree.map(np.testing.assert_array_equal, variables, again)
  np.testing.assert_allclose(
    other.apply(variables, image, train=False),
    net.copy(kit=layers.Kit(conv=nn.Conv)).apply(variables, image, train=False),
    atol=1e-5,
  )


def test_fourier_conv_keeps_bfloat16():
  x = jnp.ones((1, 8, 8, 2), jnp.bfloat16)
  kernel = jnp.ones((3, 3, 2, 1), jnp.bfloat16)
  y = ops.conv_general_dilated(x, kernel, (1, 1), 'SAME', formulation='fourier')
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(y[0, 4, 4].astype(np.float32), [18])


def test_fourier_conv_refuses_groups():
  layer = layers.conv('fourier')(4, (3, 3), feature_group_count=2)
  with pytest.raises(ValueError, match='without dilation and groups'):
    layer.init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
