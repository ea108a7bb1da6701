"""Tests of models/levi_hassner.py; test_parity.py compares it with torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from agegender_jax import errors
from agegender_jax.models import levi_hassner


class _WithOutputs(nn.Module):
  """The net with the 8 age groups of the paper on top."""

  @nn.compact
  def __call__(self, image, train):
    x = levi_hassner.LeviHassner(name='backbone')(image, train)
    return nn.Dense(8, name='fc8')(x)


def _shapes(net, size=227):
  image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  init = functools.partial(net.init_with_output, train=False)
  return jax.eval_shape(init, jax.random.key(0), image)


def test_levi_hassner_has_the_papers_number_of_parameters():
  logits, variables = _shapes(_WithOutputs())
  leaves = jax.tree.leaves(variables['params'])
  assert sum(leaf.size for leaf in leaves) == 11_415_048
  assert logits.shape == (2, 8)


def test_map_sizes_are_the_papers():
  assert levi_hassner.map_sizes(227) == [28, 14, 7]


@pytest.mark.parametrize(
  'dense, width', [((512, 512), 512), ((64,), 64), ((), 7 * 7 * 384)]
)
def test_levi_hassner_ends_with_its_last_dense_layer(dense, width):
  net = levi_hassner.LeviHassner(dense_features=dense)
  features, variables = _shapes(net)
  assert features.shape == (2, width)
  names = ['conv1', 'conv2', 'conv3', 'fc6', 'fc7'][: 3 + len(dense)]
  assert sorted(variables['params']) == names


def test_levi_hassner_names_the_least_image_size():
  assert levi_hassner.LeviHassner.least_image_size == 35
  assert _shapes(levi_hassner.LeviHassner(), 35)[0].shape == (2, 512)
  with pytest.raises(errors.UserError, match='image_size 34 .* to 35 or more'):
    _shapes(levi_hassner.LeviHassner(), 34)


@pytest.mark.parametrize('lrn_after', [(0,), (1, 4)])
def test_levi_hassner_refuses_to_normalise_after_no_convolution(lrn_after):
  with pytest.raises(errors.UserError, match='lrn_after.*from 1, 2, 3'):
    _shapes(levi_hassner.LeviHassner(lrn_after=lrn_after))


def test_levi_hassner_starts_from_a_truncated_gaussian():
  kernel = np.asarray(levi_hassner.KERNEL_INIT(jax.random.key(0), (3, 3, 256, 384)))
  assert np.abs(kernel).max() <= 0.02
  # A standard Gaussian cut at 2 has standard deviation 0.8796.
  np.testing.assert_allclose(kernel.std(), 0.008796, rtol=5e-3)


def test_lrn_after_places_the_normalisation():
  image = 300 * jax.random.normal(jax.random.key(1), (1, 35, 35, 3))
  net = levi_hassner.LeviHassner(dense_features=(), lrn_after=())
  variables = net.init(jax.random.key(0), image, train=False)
  bare = np.asarray(net.apply(variables, image, train=False))
  last = net.copy(lrn_after=(3,)).apply(variables, image, train=False)
  # At 35 px the last map is one pixel: the features are its channels.
  squares = np.pad(bare[0] ** 2, 2)
  total = sum(squares[i : i + 384] for i in range(5))
  np.testing.assert_allclose(
    last[0], bare[0] / (1 + 1e-4 / 5 * total) ** 0.75, rtol=1e-5, atol=1e-6
  )
