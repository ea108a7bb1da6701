"""Depthwise convolution written for XLA on CPU: same results, less time.

XLA convolves each channel alone at a small part of a CPU's speed. Here the result is
a sum of shifted images, each times one tap of the kernel, and so is the input's
gradient. Arrays are channels-last, padding is explicit:
`((top, bottom), (left, right))`.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax

from agegender_jax.ops import pooling

# XLA sums over pixels one number at a time, but adds whole images many at a time: so
# many of a batch are added before their pixels are.
_IMAGES_AT_ONCE = 16


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x, kernel, strides, padding):
  """Returns the convolution of each channel with a kernel of its own.

  Args:
    x: float [B, H, W, C].
    kernel: [kh, kw, 1, C], of x's dtype.
    strides: (vertical, horizontal) in pixels.
    padding: ((top, bottom), (left, right)) in pixels.

  Returns:
    Array [B, H', W', C] of x's dtype.
  """
  x = _padded(x, padding)
  window = kernel.shape[:2]
  size = [
    (length - taps) // stride + 1
    for length, taps, stride in zip(x.shape[1:3], window, strides, strict=True)
  ]
  return sum(
    _times(pooling.strided_window(x, tap, size, strides), kernel[tap])
    for tap in itertools.product(*map(range, window))
  )


def _times(x, tap):
  """Returns x [B, H, W, C] times a tap [1, C]."""
  return x * tap[None, None]


def _padded(x, padding):
  # A pad that each tap computed anew would take longer than all the rest.
  return lax.optimization_barrier(pooling.pad(x, [(*ends, 0) for ends in padding]))


def _forward(x, kernel, strides, padding):
  return conv(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, residuals, dy):
  x, kernel = residuals
  window = kernel.shape[:2]
  dx = pooling.spread(
    lambda tap, value: _times(value, kernel[tap]), ((dy, 0),), window, strides
  )
  dx = pooling.cut(dx, padding, x.shape)
  return dx, _kernel_gradient(_padded(x, padding), window, strides, dy)


def _kernel_gradient(x, window, strides, dy):
  """Returns dW [kh, kw, 1, C] of an image that is padded already."""
  size = dy.shape[1:3]
  images = -(-len(dy) // _IMAGES_AT_ONCE)  # Of a piece of the batch.
  more = -len(dy) % images
  x, dy = (jnp.pad(array, ((0, more), *[(0, 0)] * 3)) for array in (x, dy))
  # Pixels that lie `strides` apart, side by side.
  phases = {
    first: lax.optimization_barrier(
      x[:, first[0] :: strides[0], first[1] :: strides[1]]
    )
    for first in itertools.product(*map(range, strides))
  }
  count = len(dy) // images
  pieces = jnp.split(dy, count)

  def product(tap):
    start = tuple(place // stride for place, stride in zip(tap, strides, strict=True))
    phase = phases[tuple(place % s for place, s in zip(tap, strides, strict=True))]
    here = jnp.split(pooling.strided_window(phase, start, size, (1, 1)), count)
    return sum(a * b for a, b in zip(here, pieces, strict=True))

  products = [product(tap) for tap in itertools.product(*map(range, window))]
  sums = lax.optimization_barrier(jnp.stack(products)).sum((1, 2, 3))
  return sums.reshape(*window, 1, -1)


conv.defvjp(_forward, _backward)
