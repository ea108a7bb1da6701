"""The layers against flax.linen, under all formulations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from agegender_jax import ops
from agegender_jax.models import layers


@pytest.fixture(params=[form for form in ops.FORMULATIONS if form != 'fourier'])
def formulation(request):
  return request.param


def _image(shape=(2, 9, 8, 6), dtype=jnp.float32):
  values = np.random.default_rng(0).standard_normal(shape)
  return jnp.asarray(values, dtype)


def test_formulation_follows_the_backend_unless_given(monkeypatch):
  assert ops.choose('') == 'fast'  # the tests run on CPU
  for backend, form in {'gpu': 'gpu', 'tpu': 'plain'}.items():
    monkeypatch.setattr(jax, 'default_backend', lambda name=backend: name)
    assert ops.choose('') == form and ops.choose('fast') == 'fast'


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'use_bias': False, 'strides': (2, 2), 'padding': ((1, 1), (1, 1))},
    {'kernel_size': (1, 1), 'strides': 2},
    {'kernel_size': (5, 3), 'padding': 'VALID'},
    {'kernel_dilation': 2},
    {'feature_group_count': 2},
    {'padding': 1, 'dtype': jnp.bfloat16},
    {'padding': 'CIRCULAR'},
  ],
  ids=str,
)
def test_conv_equals_nn_conv(options, formulation):
  x = _image()
  options = {'kernel_size': (3, 3)} | options
  ours = layers.conv(formulation)(4, **options)
  theirs = nn.Conv(4, **options)
  variables = theirs.init(jax.random.key(0), x)
  jax.tree.map(
    np.testing.assert_array_equal,
    ours.init(jax.random.key(0), x),
    variables,
  )
  relative = 2e-2 if 'dtype' in options else 1e-5

  def value_and_gradients(module):
    def loss(variables, x):
      y = module.apply(variables, x)
      return jnp.square(y.astype(jnp.float32)).sum(), y

    return jax.grad(loss, (0, 1), has_aux=True)(variables, x)

  def compare(left, right):
    assert left.dtype == right.dtype
    scale = np.abs(np.asarray(right, np.float32)).max()
    np.testing.assert_allclose(
      np.asarray(left, np.float32),
      np.asarray(right, np.float32),
      atol=relative * scale,
    )

  jax.tree.map(compare, value_and_gradients(ours), value_and_gradients(theirs))


def test_conv_names_itself_conv():
  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      return layers.conv()(2, (3, 3))(x)

  params = Net().init(jax.random.key(0), _image())['params']
  assert set(params) == {'Conv_0'}
  assert set(params['Conv_0']) == {'kernel', 'bias'}


def test_fast_conv_is_taken_only_where_chosen():
  x = _image()
  for form, is_taken in {'fast': True, '': True, 'plain': False}.items():
    conv = layers.conv(form)(4, (3, 3))
    variables = conv.init(jax.random.key(0), x)
    traced = str(jax.make_jaxpr(conv.apply)(variables, x))
    assert ('custom_vjp' in traced) == is_taken


@pytest.mark.parametrize('padding', ['SAME', 'VALID', ((0, 1), (1, 0))])
@pytest.mark.parametrize('strides', [(1, 1), (2, 2)])
def test_max_pool_equals_nn_max_pool(strides, padding, formulation):
  x = _image()
  np.testing.assert_array_equal(
    ops.max_pool(x, (3, 2), strides, padding, formulation),
    nn.max_pool(x, (3, 2), strides, padding),
  )


def test_max_pool_of_integers(formulation):
  x = jnp.arange(16, dtype=jnp.int32).reshape(1, 4, 4, 1)
  y = ops.max_pool(x, (2, 2), (2, 2), 'VALID', formulation)
  np.testing.assert_array_equal(y[0, :, :, 0], [[5, 7], [13, 15]])


@pytest.mark.parametrize('size', [1, 4, 5])
def test_local_response_norm_equals_its_definition(size):
  x = np.random.default_rng(0).standard_normal((2, 3, 7)) * 10
  desired = np.empty_like(x)
  for channel in range(7):
    first = channel - size // 2
    places = [i for i in range(first, first + size) if 0 <= i < 7]
    mean = sum(x[..., place] ** 2 for place in places) / size
    desired[..., channel] = x[..., channel] / (2 + 0.1 * mean) ** 0.75
  actual = layers.local_response_norm(
    jnp.asarray(x, jnp.float32), size, alpha=0.1, k=2.0
  )
  np.testing.assert_allclose(actual, desired, rtol=1e-5)


def test_local_response_norm_by_hand():
  # Channel 0 sees itself and one neighbour: (1 + 9 + 0) / 3 * 3 = 10.
  x = jnp.array([1.0, 3.0, 0.0])
  y = layers.local_response_norm(x, size=3, alpha=3.0, k=6.0)
  np.testing.assert_allclose(y, [1 / 8, 3 / 8, 0], rtol=1e-6)


def test_local_response_norm_keeps_bfloat16():
  y = layers.local_response_norm(_image(dtype=jnp.bfloat16))
  assert y.dtype == jnp.bfloat16


def test_relu_has_flax_values_and_gradients():
  x = jnp.array([[-2.0, -0.0, 0.0, 3.0], [1e-30, -1e-30, jnp.nan, 5.0]])
  weights = jnp.arange(8.0).reshape(2, 4)

  def total(function):
    return lambda x: (weights * function(x)).sum()

  np.testing.assert_array_equal(layers.relu(x), nn.relu(x))
  for dtype in (jnp.float32, jnp.bfloat16):
    found, expected = (
      jax.grad(total(function))(x.astype(dtype)) for function in (layers.relu, nn.relu)
    )
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_batch_norm_equals_flax(dtype):
  shape = (6, 5, 4, 3)
  x = (3 + 2 * jax.random.normal(jax.random.key(0), shape)).astype(dtype)
  variables = {
    'params': {'scale': jnp.array([0.5, 1.0, 2.0]), 'bias': jnp.arange(3.0)},
    'batch_stats': {'mean': jnp.full(3, 2.0), 'var': jnp.full(3, 5.0)},
  }
  weights = jax.random.normal(jax.random.key(1), shape)
  ours = layers.BatchNorm(dtype=dtype)
  flax = nn.BatchNorm(momentum=0.9, epsilon=1e-5, dtype=dtype)
  made = ours.init(jax.random.key(0), x, use_running_average=False)
  assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, variables)
  tolerance = {jnp.float32: 2e-6, jnp.bfloat16: 2e-2}[dtype]

  def close(left, right):
    scale = max(float(jnp.abs(right).max()), 1e-3)
    np.testing.assert_allclose(
      left.astype(jnp.float32), right, atol=tolerance * scale, rtol=0
    )

  for average in (False, True):

    def run(net, params, x, average=average):
      y, updates = net.apply(
        variables | {'params': params}, x, use_running_average=average,
        mutable=['batch_stats'],
      )  # fmt: skip
      return (y * weights).sum().astype(jnp.float32), (y, updates)

    found, expected = (
      jax.jit(jax.value_and_grad(run, argnums=(1, 2), has_aux=True), static_argnums=0)(
        net, variables['params'], x
      )
      for net in (ours, flax)
    )
    assert found[0][1][0].dtype == dtype
    jax.tree.map(close, found[0][1], expected[0][1])
    jax.tree.map(close, found[1], expected[1])


def test_batch_norm_statistics_move_as_in_torch():
  x = jnp.array([[1.0], [3.0]])
  norm = layers.BatchNorm()
  variables = norm.init(jax.random.key(0), x, use_running_average=False)
  y, updated = norm.apply(
    variables, x, use_running_average=False, mutable=['batch_stats']
  )
  # torch momentum 0.1: 0.9 * 0 + 0.1 * 2 and 0.9 * 1 + 0.1 * 1.
  np.testing.assert_allclose(updated['batch_stats']['mean'], [0.2], rtol=1e-6)
  np.testing.assert_allclose(updated['batch_stats']['var'], [1.0], rtol=1e-6)
  scale = 1 / np.sqrt(1 + 1e-5)
  np.testing.assert_allclose(y, [[-scale], [scale]], rtol=1e-6)


def test_batch_norm_takes_the_running_average_at_the_call():
  norm = layers.BatchNorm(dtype=jnp.bfloat16)
  x = jnp.ones((2, 3))
  variables = norm.init(jax.random.key(0), x, use_running_average=False)
  y = norm.apply(variables, x, use_running_average=True)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(y, jnp.ones((2, 3), jnp.bfloat16))


@pytest.mark.parametrize('rate', [0.25, 0.5, 0.3])
def test_dropout_zeroes_at_its_rate_and_keeps_the_mean(rate):
  x = jnp.ones((400, 25, 21))
  module = layers.Dropout(rate)
  result = module.apply({}, x, deterministic=False,
                        rngs={'dropout': jax.random.key(3)})  # fmt: skip
  assert np.mean(result == 0) == pytest.approx(rate, abs=0.005)
  values = np.unique(result)
  np.testing.assert_allclose(values, [0, 1 / (1 - rate)], rtol=1e-6)
  same = module.apply({}, x, deterministic=True)
  np.testing.assert_array_equal(same, x)


def test_dropout_of_an_example_follows_from_its_row_in_the_global_batch():
  x, rngs = jnp.ones((8, 37)), {'dropout': jax.random.key(3)}
  whole = layers.Dropout(0.5).apply({}, x, deterministic=False, rngs=rngs)
  assert len(np.unique(whole, axis=0)) == 8

  def shard(x):
    module = layers.Dropout(0.5, axis_name='batch')
    return module.apply({}, x, deterministic=False, rngs=rngs)

  parts = jax.vmap(shard, axis_name='batch')(x.reshape(4, 2, 37))
  np.testing.assert_array_equal(parts.reshape(8, 37), whole)


def test_dropout_per_example_keeps_or_zeroes_all_of_it():
  x = jnp.ones((4000, 2, 3))
  rngs = {'dropout': jax.random.key(0)}
  drop = layers.Dropout(0.2, per_example=True)
  found = np.asarray(drop.apply({}, x, deterministic=False, rngs=rngs))
  np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1, :1], x.shape))
  assert set(np.unique(found)) == {0, np.float32(1.25)}
  assert found.mean() == pytest.approx(1, abs=0.03)
