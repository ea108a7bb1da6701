"""The fast convolutions and max-pool against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from agegender_jax import ops
from agegender_jax.ops import (
  convolution,
  depthwise,
  few_channels,
  kernel_gradient,
  pooling,
)
from agegender_jax.runtime import devices

# (H, W, C, D, kernel, strides, padding)
CONVS = {
  '1x1': (5, 7, 8, 6, (1, 1), (1, 1), 'VALID'),
  '1x1 stride 2': (6, 7, 8, 6, (1, 1), (2, 2), 'VALID'),
  '1x1 padded': (4, 5, 3, 6, (1, 1), (2, 1), ((1, 0), (0, 2))),
  '2x2 even': (7, 6, 4, 5, (2, 2), (1, 1), 'SAME'),
  '2x2 stride over window': (9, 8, 2, 3, (2, 2), (3, 3), 'VALID'),
  '3x3 rgb': (8, 9, 3, 5, (3, 3), (1, 1), 'SAME'),
  '3x3 grey': (9, 8, 1, 5, (3, 3), (1, 1), 'VALID'),
  '3x3 rgb, blocks of two': (7, 9, 3, 40, (3, 3), (1, 1), ((2, 0), (0, 3))),
  '5x5 rgb': (9, 7, 3, 6, (5, 5), (1, 1), ((2, 2), (2, 2))),
  '2x3 rgb, negative padding': (9, 9, 3, 6, (2, 3), (1, 1), ((-1, 0), (1, -2))),
  '3x3 stride 2': (9, 8, 6, 5, (3, 3), (2, 2), ((1, 1), (1, 1))),
  '3x3 stride 2 valid': (10, 9, 6, 5, (3, 3), (2, 2), 'VALID'),
  '3x5 mixed strides': (9, 11, 4, 5, (3, 5), (2, 3), ((0, 2), (3, 1))),
  '3x3 smaller than window': (2, 1, 4, 5, (3, 3), (1, 1), 'SAME'),
  '3x3 smaller, stride 2': (2, 2, 4, 5, (3, 3), (2, 2), ((1, 1), (1, 1))),
  '3x3 small result': (4, 3, 4, 5, (3, 3), (2, 2), ((1, 1), (1, 1))),
  '5x5': (9, 7, 8, 6, (5, 5), (1, 1), ((2, 2), (2, 2))),
  '7x7 stem': (15, 14, 3, 8, (7, 7), (2, 2), ((3, 3), (3, 3))),
  '7x7 stem, blocks of two': (15, 14, 3, 40, (7, 7), (2, 2), ((3, 3), (3, 3))),
  '7x7 stem, blocks of one': (15, 18, 3, 70, (7, 7), (4, 4), 'VALID'),
  '3x3 rgb, one result': (4, 5, 3, 5, (3, 3), (2, 2), ((3, -4), (1, -3))),
  '11x11 AlexNet': (27, 25, 3, 6, (11, 11), (4, 4), ((2, 2), (2, 2))),
  '7x7 negative padding': (12, 13, 3, 4, (7, 7), (1, 1), ((-1, 2), (3, -2))),
}

# (H, W, window, strides, padding)
POOLS = {
  '2x2': (8, 6, (2, 2), (2, 2), 'VALID'),
  '2x2 odd': (7, 9, (2, 2), (2, 2), 'VALID'),
  '2x2 odd same': (7, 9, (2, 2), (2, 2), 'SAME'),
  '2x2 ceil': (7, 8, (2, 2), (2, 2), ((0, 1), (0, 0))),
  '2x2 stride 1': (5, 6, (2, 2), (1, 1), 'SAME'),
  '3x3 stride 2': (9, 8, (3, 3), (2, 2), ((1, 1), (1, 1))),
  '3x3 stride 2 ceil': (8, 10, (3, 3), (2, 2), ((0, 1), (0, 1))),
  '3x2 stride 3x1': (10, 6, (3, 2), (3, 1), 'VALID'),
  '2x2 stride over window': (9, 8, (2, 2), (3, 3), 'VALID'),
}


def _normal(seed, shape, dtype=jnp.float32):
  values = np.random.default_rng(seed).standard_normal(shape)
  return jnp.asarray(values, dtype)


def _padding(name):
  """Returns that of one of CONVS, in pixels."""
  height, width, _, _, window, strides, padding = CONVS[name]
  if isinstance(padding, str):
    return tuple(lax.padtype_to_pads((height, width), window, strides, padding))
  return padding


def _conv_case(name, dtype=jnp.float32, batch=3):
  height, width, channels, features, window, strides, _ = CONVS[name]
  x = _normal(0, (batch, height, width, channels), dtype)
  kernel = _normal(1, (*window, channels, features), dtype)
  padding = _padding(name)

  def plain(x, kernel):
    return lax.conv_general_dilated(
      x,
      kernel,
      strides,
      padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision='highest',
    )

  def fast(x, kernel):
    return convolution.conv(x, kernel, strides, padding)

  return x, kernel, plain, fast


def _value_and_gradients(function, *args):
  def run(*args):
    y, pull = jax.vjp(function, *args)
    dy = _normal(2, y.shape, y.dtype)
    return y, *pull(dy)

  return jax.jit(run)(*args)


def _assert_close(actual, desired, relative):
  for left, right in zip(actual, desired, strict=True):
    assert left.shape == right.shape
    assert left.dtype == right.dtype
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    error = np.abs(left - right).max()
    assert error <= relative * max(np.abs(right).max(), 1e-30)


@pytest.mark.parametrize('name', CONVS)
def test_conv_equals_lax(name, monkeypatch):
  x, kernel, plain, fast = _conv_case(name)
  desired = _value_and_gradients(plain, x, kernel)
  _assert_close(_value_and_gradients(fast, x, kernel), desired, 1e-5)
  monkeypatch.setattr(convolution, 'conv', few_channels.conv_on_gpu)
  _assert_close(_value_and_gradients(fast, x, kernel), desired, 1e-5)


@pytest.mark.parametrize(
  'name',
  [
    '1x1 stride 2', '2x2 stride over window', '3x3 rgb', '2x3 rgb, negative padding',
    '3x3 stride 2', '3x5 mixed strides', '3x3 smaller than window', '5x5',
  ],
)  # fmt: skip
def test_depthwise_conv_equals_lax(name, monkeypatch):
  monkeypatch.setattr(depthwise, '_IMAGES_AT_ONCE', 2)
  height, width, channels, _, window, strides, _ = CONVS[name]
  channels, padding = max(channels, 2), _padding(name)
  x = _normal(0, (5, height, width, channels))
  kernel = _normal(1, (*window, 1, channels))

  def conv(x, kernel, formulation):
    return ops.conv_general_dilated(
      x,
      kernel,
      strides,
      padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=channels,
      formulation=formulation,
    )

  plain, fast = (functools.partial(conv, formulation=f) for f in ('plain', 'fast'))
  desired = _value_and_gradients(plain, x, kernel)
  _assert_close(_value_and_gradients(fast, x, kernel), desired, 1e-5)
  assert 'conv_general_dilated[' not in str(jax.make_jaxpr(fast)(x, kernel))


@pytest.mark.parametrize(
  ('name', 'alone', 'pays'),
  [
    ('3x3 rgb', True, True),
    ('3x3 rgb', False, True),
    ('3x3 rgb, blocks of two', True, True),
    # Each of two devices has a thread, and XLA's convolution is good at it.
    ('3x3 rgb, blocks of two', False, False),
    ('7x7 stem', True, False),  # Too many taps.
    ('7x7 stem, blocks of two', True, False),
    ('3x3 rgb, one result', True, True),
    ('3x3 stride 2', True, False),  # Six channels.
  ],
)
def test_few_channels_are_convolved_in_blocks_of_pixels(name, alone, pays, monkeypatch):
  monkeypatch.setattr(devices, 'threads', lambda: 2 if alone else 1)
  x, kernel, plain, fast = _conv_case(name)
  found, wanted = (jax.jit(conv)(x, kernel) for conv in (fast, plain))
  _assert_close([found], [wanted], 1e-5)
  traced = str(jax.make_jaxpr(fast)(x, kernel))
  assert ('conv_general_dilated[' in traced) != pays


@pytest.mark.parametrize(('features', 'channels'), [(16, 3), (32, 4), (64, 3)])
def test_xla_gets_four_channels_where_it_is_slow_with_three(features, channels):
  image, kernel = jnp.ones((2, 16, 16, 3)), jnp.ones((7, 7, 3, features))
  padding = ((3, 3), (3, 3))
  fast = functools.partial(convolution.conv, strides=(2, 2), padding=padding)
  traced = str(jax.make_jaxpr(fast)(image, kernel))
  assert f'f32[7,7,{channels},{features}]' in traced
  wanted = convolution._lax_conv(image, kernel, (2, 2), padding)
  _assert_close([jax.jit(fast)(image, kernel)], [wanted], 1e-5)


@pytest.mark.parametrize(
  'name', ['3x3 rgb', '7x7 stem, blocks of two', '7x7 stem, blocks of one']
)
def test_numbers_of_an_image_are_what_its_blocks_hold(name):
  x, kernel, plain, _ = _conv_case(name, batch=1)
  strides, padding = CONVS[name][5], _padding(name)
  dy = jax.eval_shape(plain, x, kernel)
  size = dy.shape[1:3]

  def blocks(x, dy):
    patches = few_channels.patches(x, kernel.shape, strides, padding, size)
    return patches, few_channels.in_blocks(dy)

  held = sum(array.size for array in jax.eval_shape(blocks, x, dy))
  assert few_channels.image_numbers(kernel.shape, strides, size) == held


def test_blocks_are_as_long_as_a_product_is_wide():
  lengths = [few_channels.length_of(features) for features in (16, 32, 64, 96)]
  assert lengths == [4, 4, 2, 1]


@pytest.mark.parametrize(
  ('name', 'blocked'),
  [
    ('7x7 stem', True),
    ('11x11 AlexNet', True),
    ('7x7 negative padding', False),  # One pixel a step.
    ('3x3 stride 2', False),  # Six channels.
    ('2x2 stride over window', False),
  ],
)
def test_a_gpu_convolves_blocks_where_that_pays(name, blocked):
  x, kernel, *_ = _conv_case(name)
  _, _, _, _, _, strides, padding = CONVS[name]

  def conv(x, kernel):
    return ops.conv_general_dilated(
      x, kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      formulation='gpu',
    )  # fmt: skip

  traced = jax.make_jaxpr(conv)(x, kernel)
  assert ('reshape' in str(traced)) == blocked


@pytest.mark.parametrize('name', ['1x1 stride 2', '3x3 rgb', '7x7 stem'])
def test_conv_in_bfloat16_is_within_its_rounding(name):
  x, kernel, plain, fast = _conv_case(name, jnp.bfloat16)
  exact = _value_and_gradients(plain, x.astype(jnp.float32), kernel.astype(jnp.float32))
  actual = _value_and_gradients(fast, x, kernel)
  assert all(leaf.dtype == jnp.bfloat16 for leaf in actual)
  actual = [leaf.astype(jnp.float32) for leaf in actual]
  # dy is rounded to bfloat16 in one and not in the other: 2**-8 each.
  _assert_close(actual, exact, 2e-2)


@pytest.mark.parametrize(
  'name', ['3x3 rgb', '3x3 rgb, blocks of two', '3x3 stride 2', '7x7 stem']
)
def test_conv_gradient_in_turns_equals_lax(name, monkeypatch):
  monkeypatch.setattr(devices, 'cache_bytes', lambda: 1)
  x, kernel, plain, fast = _conv_case(name)
  desired = _value_and_gradients(plain, x, kernel)
  gradient = jax.grad(lambda kernel: fast(x, kernel).sum())
  assert 'scan' in str(jax.make_jaxpr(gradient)(kernel))
  _assert_close(_value_and_gradients(fast, x, kernel), desired, 1e-5)


@pytest.mark.parametrize(('alone', 'pieces'), [(True, 3), (False, 1)])
@pytest.mark.parametrize('name', ['3x3 stride 2', '5x5'])
def test_conv_in_pieces_equals_lax(name, alone, pieces, monkeypatch):
  monkeypatch.setattr(convolution, '_MULTIPLICATIONS_IN_PIECES', 1)
  monkeypatch.setattr(devices, 'threads', lambda: 2 if alone else 1)
  x, kernel, plain, fast = _conv_case(name)
  desired = _value_and_gradients(plain, x, kernel)
  forward = str(jax.make_jaxpr(fast)(x, kernel))
  assert forward.count('conv_general_dilated[') == pieces
  _assert_close(_value_and_gradients(fast, x, kernel), desired, 1e-5)


@pytest.mark.parametrize(
  ('batch', 'image_bytes', 'turns'),
  [(20, 2**20, 4), (20, 2**24, 20), (64, 2**10, 1), (7, 2**20, 7)],
)
def test_turns_divide_the_batch_and_fit_the_cache(
  batch, image_bytes, turns, monkeypatch
):
  monkeypatch.setattr(devices, 'cache_bytes', lambda: 32 * 2**20)
  # 1x1 kernel, one pixel: image_bytes / 4 numbers in all.
  channels = image_bytes // 8
  dy = jax.ShapeDtypeStruct((batch, 1, 1, channels), jnp.float32)
  shape = (1, 1, channels, channels)
  assert kernel_gradient._turns(dy, shape, (1, 1)) == turns


@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize('name', POOLS)
def test_max_pool_equals_flax(name, tied):
  height, width, window, strides, padding = POOLS[name]
  x = _normal(0, (2, height, width, 5))
  if tied:
    x = jnp.maximum(jnp.round(x), 0)
  pads = padding
  if isinstance(padding, str):
    pads = tuple(lax.padtype_to_pads((height, width), window, strides, padding))
  desired = _value_and_gradients(lambda x: nn.max_pool(x, window, strides, padding), x)
  for on_gpu in (False, True):
    actual = _value_and_gradients(
      lambda x, on_gpu=on_gpu: pooling.max_pool(x, window, strides, pads, on_gpu),
      x,
    )
    np.testing.assert_array_equal(actual[0], desired[0])
    _assert_close(actual, desired, 1e-6)


def test_max_pool_gradient_goes_to_the_first_of_equals():
  x = jnp.zeros((1, 2, 4, 1))
  gradient = jax.grad(
    lambda x: pooling.max_pool(x, (2, 2), (2, 2), ((0, 0), (0, 0))).sum()
  )(x)
  np.testing.assert_array_equal(gradient[0, :, :, 0], [[1, 0, 1, 0], [0, 0, 0, 0]])


def test_max_pool_padding_never_wins():
  x = jnp.full((1, 2, 2, 1), -7.0)
  y = pooling.max_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)))
  np.testing.assert_array_equal(y, x)


def test_max_pool_in_bfloat16_is_exact():
  x = _normal(0, (2, 6, 7, 3), jnp.bfloat16)
  desired = _value_and_gradients(lambda x: nn.max_pool(x, (3, 3), (2, 2)), x)
  actual = _value_and_gradients(
    lambda x: pooling.max_pool(x, (3, 3), (2, 2), ((0, 0), (0, 0))), x
  )
  np.testing.assert_array_equal(actual[0], desired[0])
  _assert_close(actual, desired, 1e-2)


def _two_layers(x, kernel):
  y = nn.relu(convolution.conv(x, kernel, (1, 1), ((1, 1), (1, 1))))
  y = pooling.max_pool(y, (2, 2), (2, 2), ((0, 0), (0, 0)))
  return jnp.square(y).sum()


@pytest.fixture
def two_layers():
  x, kernel = _normal(0, (4, 6, 6, 3)), _normal(1, (3, 3, 3, 5))
  return x, kernel, jax.grad(_two_layers, (0, 1))(x, kernel)


def test_gradients_inside_scan(two_layers):
  x, kernel, desired = two_layers

  def body(carry, x):
    dx, dw = jax.grad(_two_layers, (0, 1))(x[None], kernel)
    return carry + dw, dx[0]

  dw, dx = jax.jit(lambda: lax.scan(body, jnp.zeros_like(kernel), x))()
  _assert_close((dx, dw), desired, 1e-5)


def test_gradients_under_checkpoint(two_layers):
  x, kernel, desired = two_layers
  actual = jax.jit(jax.grad(jax.checkpoint(_two_layers), (0, 1)))(x, kernel)
  _assert_close(actual, desired, 1e-5)


def test_gradients_under_pmap(two_layers):
  x, kernel, desired = two_layers
  count = min(2, jax.local_device_count())

  def step(x, kernel):
    dx, dw = jax.grad(_two_layers, (0, 1))(x, kernel)
    return dx, lax.psum(dw, 'batch')

  dx, dw = jax.pmap(step, 'batch', in_axes=(0, None), devices=jax.devices()[:count])(
    x.reshape(count, -1, *x.shape[1:]), kernel
  )
  _assert_close((dx.reshape(x.shape), dw[0]), desired, 1e-5)


def test_donated_input_gives_the_same(two_layers):
  x, kernel, desired = two_layers
  actual = jax.jit(
    lambda x, kernel: jax.grad(_two_layers, (0, 1))(x, kernel),
    donate_argnums=0,
  )(jnp.array(x, copy=True), kernel)
  _assert_close(actual, desired, 1e-5)
