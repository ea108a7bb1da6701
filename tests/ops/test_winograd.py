"""Winograd's convolution against XLA's, and when it is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from agegender_jax.ops import convolution, winograd
from agegender_jax.runtime import devices

# (B, H, W, C, D, side of the kernel, padding)
CASES = {
  'whole tiles': (2, 8, 12, 5, 3, 3, ((1, 1), (1, 1))),
  'parts of tiles': (3, 7, 6, 4, 5, 3, ((1, 1), (1, 1))),
  'no padding': (2, 9, 11, 3, 4, 3, ((0, 0), (0, 0))),
  'uneven padding': (2, 6, 5, 3, 4, 3, ((2, 0), (0, 3))),
  'negative padding': (2, 12, 13, 3, 4, 3, ((-1, 2), (3, -2))),
  'one pixel': (1, 3, 3, 2, 2, 3, ((0, 0), (0, 0))),
  '5x5, whole tiles': (2, 8, 12, 5, 3, 5, ((2, 2), (2, 2))),
  '5x5, parts of tiles': (3, 7, 9, 4, 5, 5, ((2, 2), (2, 2))),
  '5x5, no padding': (2, 9, 12, 3, 4, 5, ((0, 0), (0, 0))),
  '5x5, odd padding': (2, 8, 7, 3, 4, 5, ((-1, 2), (4, -2))),
}


def _case(name, dtype):
  batch, height, width, channels, features, side, padding = CASES[name]
  random = np.random.default_rng(0)
  x = random.standard_normal((batch, height, width, channels))
  kernel = random.standard_normal((side, side, channels, features))

  def plain(x, kernel):
    return lax.conv_general_dilated(
      x, kernel, (1, 1), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  x, kernel = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)
  dy = jnp.asarray(random.standard_normal(plain(x, kernel).shape), dtype)
  return x, kernel, dy, padding, plain


def _conv(x, kernel, padding):
  return jax.jit(winograd.conv, static_argnums=2)(x, kernel, padding)


def _kernel_gradient(x, side, dy, padding):
  gradient = jax.jit(winograd.kernel_gradient, static_argnums=(1, 3))
  return gradient(x, side, dy, padding)


def _assert_close(found, wanted, tolerance):
  assert found.shape == wanted.shape and found.dtype == wanted.dtype
  scale = np.abs(wanted).max()
  np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize('in_turns', [False, True])
@pytest.mark.parametrize('name', CASES)
def test_winograd_equals_xla_in_double_precision(name, in_turns, monkeypatch):
  if in_turns:
    monkeypatch.setattr(devices, 'cache_bytes', lambda: 1)
  with jax.enable_x64(True):
    x, kernel, dy, padding, plain = _case(name, jnp.float64)
    wanted, pull = jax.vjp(plain, x, kernel)
    _assert_close(_conv(x, kernel, padding), wanted, 1e-13)
    found = _kernel_gradient(x, len(kernel), dy, padding)
    _assert_close(found, pull(dy)[1], 1e-13)
    border = len(kernel) - 1
    pads = tuple((border - low, border - high) for low, high in padding)
    found = jax.jit(winograd.transposed_conv, static_argnums=2)(dy, kernel, pads)
    _assert_close(found, pull(dy)[0], 1e-13)


@pytest.mark.parametrize('name', CASES)
def test_winograd_in_single_precision_is_off_by_little(name):
  x, kernel, dy, padding, plain = _case(name, jnp.float32)
  wanted, pull = jax.vjp(plain, x, kernel)
  _assert_close(_conv(x, kernel, padding), wanted, 2e-5)
  _assert_close(_kernel_gradient(x, len(kernel), dy, padding), pull(dy)[1], 2e-5)


@pytest.mark.parametrize(
  'shape, window, strides, dtype, calls',
  [
    ((4, 16, 16, 32, 32), (3, 3), 1, jnp.float32, 3),
    # Channels for the kernel's gradient alone.
    ((4, 16, 16, 16, 32), (3, 3), 1, jnp.float32, 1),
    ((4, 16, 16, 3, 32), (3, 3), 1, jnp.float32, 0),
    ((4, 16, 16, 32, 32), (5, 5), 1, jnp.float32, 3),
    ((4, 16, 16, 32, 32), (7, 7), 1, jnp.float32, 0),
    ((4, 16, 16, 32, 32), (3, 5), 1, jnp.float32, 0),
    ((4, 16, 16, 32, 32), (3, 3), 2, jnp.float32, 0),
    ((4, 16, 16, 32, 32), (3, 3), 1, jnp.bfloat16, 0),
    # Too few tiles, and tiles that are mostly empty.
    ((1, 8, 8, 32, 32), (3, 3), 1, jnp.float32, 0),
    ((16, 9, 9, 32, 32), (3, 3), 1, jnp.float32, 3),
    ((16, 5, 5, 32, 32), (3, 3), 1, jnp.float32, 0),
    ((1, 6, 6, 32, 32), (5, 5), 1, jnp.float32, 0),
    ((16, 3, 1, 32, 32), (5, 5), 1, jnp.float32, 0),
  ],
)
def test_fast_conv_takes_winograd_where_it_pays(
  shape, window, strides, dtype, calls, monkeypatch
):
  batch, height, width, channels, features = shape
  seen = []
  for name in ('conv', 'transposed_conv', 'kernel_gradient'):
    function = getattr(winograd, name)

    def spy(*args, function=function, name=name):
      seen.append(name)
      return function(*args)

    monkeypatch.setattr(winograd, name, spy)
  random = np.random.default_rng(0)
  x = jnp.asarray(random.standard_normal((batch, height, width, channels)),
                  dtype)  # fmt: skip
  kernel = jnp.asarray(random.standard_normal((*window, channels, features)), dtype)
  pads = tuple((taps // 2, taps // 2) for taps in window)

  def fast(x, kernel):
    return convolution.conv(x, kernel, (strides,) * 2, pads)

  def plain(x, kernel):
    return lax.conv_general_dilated(
      x,
      kernel,
      (strides,) * 2,
      pads,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  def results(function):
    def run(x, kernel, dy):
      y, pull = jax.vjp(function, x, kernel)
      return y, *pull(dy)

    return jax.jit(run)(x, kernel, dy)

  dy = plain(x, kernel)
  found, wanted = results(fast), results(plain)
  assert len(seen) == calls, seen
  tolerance = 3e-2 if dtype == jnp.bfloat16 else 2e-5
  for ours, theirs in zip(found, wanted, strict=True):
    ours, theirs = (np.asarray(a, np.float32) for a in (ours, theirs))
    _assert_close(ours, theirs, tolerance)


@pytest.mark.parametrize(
  'batch, grid, channels, features, wanted',
  [
    (32, (8, 8), 64, 64, 32),  # All: two blocks of outputs, 36 MiB.
    (32, (32, 32), 64, 64, 2),  # One image is over the limit, two are busy.
    (20, (16, 16), 32, 64, 5),  # None fills two threads; so many come nearest.
    (32, (4, 4), 256, 256, 8),  # Columns enough for two threads.
    (50, (14, 14), 96, 256, 5),  # One image's products take one thread.
    (3, (64, 64), 64, 64, 1),
    (1, (512, 512), 64, 64, 1),
  ],
)
def test_a_turn_keeps_two_threads_busy_or_in_the_cache(
  batch, grid, channels, features, wanted, monkeypatch
):
  monkeypatch.setattr(devices, 'threads', lambda: 2)
  monkeypatch.setattr(devices, 'cache_bytes', lambda: 32 * 2**20)
  found = winograd._images_a_turn(batch, grid, channels, features, jnp.dtype('float32'))
  assert found == wanted


def test_a_gradient_takes_all_images_at_once_or_few(monkeypatch):
  monkeypatch.setattr(devices, 'threads', lambda: 2)
  monkeypatch.setattr(devices, 'cache_bytes', lambda: 32 * 2**20)

  def images(batch, channels):
    return winograd._images_a_turn_of_gradient(
      batch, (8, 8), channels, jnp.dtype('float32')
    )

  assert images(16, 128) == 16
  assert images(32, 128) == 4


def test_turns_are_small_where_devices_share_the_cache(monkeypatch):
  monkeypatch.setattr(devices, 'threads', lambda: 1)
  monkeypatch.setattr(devices, 'cache_bytes', lambda: 32 * 2**20)
  pixels = (8, 8), 128, jnp.dtype('float32')
  assert winograd._images_a_turn_of_gradient(16, *pixels) == 4
  assert winograd._images_a_turn(32, (8, 8), 64, 64, pixels[-1]) == 8
