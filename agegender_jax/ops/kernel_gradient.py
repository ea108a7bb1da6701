"""The kernel gradient of a convolution as matrix products, for XLA on CPU.

XLA's own runs at a small part of a CPU's speed. Arrays are channels-last.
"""

import math

import jax.numpy as jnp
from jax import lax

from agegender_jax.ops import few_channels, pooling
from agegender_jax.runtime import devices

# Copies made per loop turn, as a share of the cache.
_TURN_SHARE = 3 / 16


def kernel_gradient(x, shape, strides, padding, dy):
  """Returns the gradient of a convolution with respect to its kernel.

  It is summed over a loop of a few images each: a loop turn's copies of x and
  dy stay in the cache, and its memory is used again. All images at once cost
  more in page faults than in arithmetic.

  Args:
    x: float [B, H, W, C].
    shape: of the kernel, [kh, kw, C, D].
    strides: (vertical, horizontal) in pixels.
    padding: ((top, bottom), (left, right)) in pixels.
    dy: [B, H', W', D], the gradient with respect to the result.

  Returns:
    float32 or wider [kh, kw, C, D].
  """
  has_few = shape[2] <= few_channels.FEW_CHANNELS
  taps = _block_product if has_few else _row_phase_product

  def piece(x, dy):
    return taps(x, shape, strides, padding, dy)

  return sum_over_turns(piece, x, dy, _turns(dy, shape, strides), shape)


def sum_over_turns(piece, x, dy, turns, shape):
  """Sums `piece(x, dy)`, float32 or wider of a shape, over equal parts of a batch."""
  if turns == 1:
    return piece(x, dy)
  images = len(x) // turns

  def add(turn, total):
    parts = [
      lax.dynamic_slice_in_dim(array, turn * images, images) for array in (x, dy)
    ]
    return total + piece(*parts)

  wide = jnp.promote_types(dy.dtype, jnp.float32)
  return lax.fori_loop(0, turns, add, jnp.zeros(shape, wide))


def _turns(dy, shape, strides):
  """Returns how many loop turns, a divisor of the batch, suit the cache."""
  height, width, channels, features = shape
  size = dy.shape[1:3]
  if channels <= few_channels.FEW_CHANNELS:
    numbers = few_channels.image_numbers(shape, strides, size)
  else:
    numbers = math.prod(size) * (width * channels + height * features)
  batch = dy.shape[0]
  limit = _TURN_SHARE * devices.cache_bytes()
  images = largest_divisor(batch, limit // (numbers * dy.dtype.itemsize))
  return batch // images


def largest_divisor(number, limit):
  """Returns the largest divisor of a number that is at most `limit`, or 1."""
  return max(
    n for n in range(1, number + 1) if number % n == 0 and (n == 1 or n <= limit)
  )


def _block_product(x, shape, strides, padding, dy):
  """Returns float32 dW: what blocks of results read times their dy."""
  patches = few_channels.patches(x, shape, strides, padding, dy.shape[1:3])
  gradient = product(patches, few_channels.in_blocks(dy))
  return few_channels.gather_kernel(gradient, shape, strides)


def _row_phase_product(x, shape, strides, padding, dy):
  """Returns float32 dW as one matrix product per row phase.

  x is repeated once per kernel column and dy once per kernel row, so that a
  product over all pixels holds every tap; a vertical stride s splits the
  rows of x into s phases with their own taps.
  """
  height, width = shape[:2]
  _, rows, columns, _ = dy.shape
  x = _pad_for_taps(x, shape, strides, padding, dy)
  taps = [None] * height
  for phase in range(min(strides[0], height)):
    offsets = range(phase, height, strides[0])
    count = rows + len(offsets) - 1
    picked = [
      pooling.strided_window(x, (phase, column), (count, columns), strides)
      for column in range(width)
    ]
    last = len(offsets) - 1
    shifted = [
      jnp.pad(dy, ((0, 0), (shift, last - shift), (0, 0), (0, 0)))
      for shift in range(len(offsets))
    ]
    taps_of_phase = product(
      jnp.concatenate(picked, axis=-1), jnp.concatenate(shifted, axis=-1)
    )
    taps_of_phase = taps_of_phase.reshape(width, shape[2], len(offsets), shape[3])
    for index, row in enumerate(offsets):
      taps[row] = taps_of_phase[:, :, index]
  return jnp.stack(taps)


def _pad_for_taps(x, shape, strides, padding, dy):
  """Returns x padded or cut so that every tap of every phase exists."""
  pads = []
  for axis in (0, 1):
    size, low = x.shape[axis + 1], padding[axis][0]
    # A phase reads whole strides: up to stride - 1 pixels past the last tap.
    needed = (dy.shape[axis + 1] - 1) * strides[axis] + shape[axis]
    pads.append((low, needed + strides[axis] - 1 - size - low, 0))
  return pooling.pad(x, pads)


def product(left, right):
  """Returns [C, D] in float32 or wider: left [B, H, W, C] times right."""
  return jnp.matmul(
    left.reshape(-1, left.shape[-1]).T,
    right.reshape(-1, right.shape[-1]),
    preferred_element_type=jnp.promote_types(left.dtype, jnp.float32),
  )
