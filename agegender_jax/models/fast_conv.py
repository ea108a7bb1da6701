"""Convolution written for XLA on CPU: same results, less time.

XLA's own kernel gradient of a convolution runs at a small part of a CPU's
speed; here it is a few matrix products. 3x3 convolutions with channels enough
go by Winograd's way, which takes a quarter of the products. Arrays are
channels-last, padding is explicit: `((top, bottom), (left, right))`.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from agegender_jax.models import fast_pool, winograd

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
# Copies made per loop turn of a kernel gradient: about what a cache holds.
_TURN_BYTES = 6 * 2**20
# Of an image: XLA convolves fewer channels in a slow loop, and repeating them
# for every tap of the kernel is cheap.
_FEW_CHANNELS = 4
# The fewest channels, in and out, with which Winograd's sums are outweighed by
# the products they save; and the fewest tiles that outweigh the kernel's.
_WINOGRAD_CHANNELS = 32
_WINOGRAD_CHANNELS_OF_GRADIENT = 16
_WINOGRAD_TILES = 16


def _lax_conv(x, kernel, strides, padding, lhs_dilation=(1, 1)):
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    lhs_dilation=lhs_dilation,
    dimension_numbers=_DIMENSIONS,
  )


def _pays_winograd(shape, strides, batch, size, dtype, least_channels):
  """Says whether Winograd's way is the faster one, and exact enough.

  Args:
    shape: of the kernel, [kh, kw, C, D].
    strides: of the convolution.
    batch: B.
    size: height and width of the result, pixels.
    dtype: of the arrays; Winograd's sums would ruin bfloat16.
    least_channels: see _WINOGRAD_CHANNELS.
  """
  tiles = math.prod(-(-length // winograd.TILE) for length in size)
  return (
    shape[:2] == (3, 3)
    and strides == (1, 1)
    and min(shape[2:]) >= least_channels
    and batch * tiles >= _WINOGRAD_TILES
    and math.prod(size) >= 0.6 * tiles * winograd.TILE**2
    and dtype.itemsize >= 4
  )


def _is_pointwise(kernel, padding):
  return kernel.shape[:2] == (1, 1) and not any(map(any, padding))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x, kernel, strides, padding):
  """Returns the 2-D convolution `lax.conv_general_dilated` would return.

  Args:
    x: float [B, H, W, C].
    kernel: [kh, kw, C, D], of x's dtype.
    strides: (vertical, horizontal) in pixels.
    padding: ((top, bottom), (left, right)) in pixels.

  Returns:
    Array [B, H', W', D] of x's dtype.
  """
  if _is_pointwise(kernel, padding):
    x = x[:, :: strides[0], :: strides[1]]
    return jnp.einsum('bhwc,cd->bhwd', x, kernel[0, 0])
  size = [
    length + sum(pads) - 2
    for length, pads in zip(x.shape[1:3], padding, strict=True)
  ]
  if _pays_winograd(
    kernel.shape, strides, len(x), size, x.dtype, _WINOGRAD_CHANNELS
  ):
    return winograd.conv(x, kernel, padding)
  missing = _FEW_CHANNELS - x.shape[-1]
  if missing > 0 and kernel.shape[0] * kernel.shape[1] <= 9:
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, missing), (0, 0)))
  return _lax_conv(x, kernel, strides, padding)


def _conv_forward(x, kernel, strides, padding):
  return conv(x, kernel, strides, padding), (x, kernel)


def _conv_backward(strides, padding, residuals, dy):
  x, kernel = residuals
  if _is_pointwise(kernel, padding):
    return _pointwise_gradients(x, kernel, strides, dy)
  dx = _input_gradient(x.shape, kernel, strides, padding, dy)
  return dx, _kernel_gradient(x, kernel.shape, strides, padding, dy)


def _pointwise_gradients(x, kernel, strides, dy):
  dx = jnp.einsum('bhwd,cd->bhwc', dy, kernel[0, 0])
  picked = x[:, :: strides[0], :: strides[1]]
  if strides != (1, 1):
    pads = [
      (0, size - (count - 1) * stride - 1, stride - 1)
      for size, count, stride in zip(
        x.shape[1:3], dy.shape[1:3], strides, strict=True
      )
    ]
    dx = lax.pad(dx, jnp.zeros((), dx.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
  return dx, _product(picked, dy).astype(dy.dtype)[None, None]


def _input_gradient(shape, kernel, strides, padding, dy):
  """Returns dx as a convolution of dy with the flipped kernel.

  The flip is materialised: XLA's own form, a reversed convolution, is several
  times slower inside `lax.scan` on CPU.
  """
  pads = []
  for axis in (0, 1):
    window, low = kernel.shape[axis], padding[axis][0]
    dilated = (dy.shape[axis + 1] - 1) * strides[axis] + 1
    before = window - 1 - low
    pads.append((before, shape[axis + 1] + window - 1 - dilated - before))
  if _pays_winograd(
    kernel.shape, strides, len(dy), shape[1:3], dy.dtype, _WINOGRAD_CHANNELS
  ):
    return winograd.transposed_conv(dy, kernel, pads)
  flipped = lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
  return _lax_conv(dy, flipped, (1, 1), pads, lhs_dilation=strides)


def _kernel_gradient(x, shape, strides, padding, dy):
  """Returns dW [kh, kw, C, D], summed over a loop of a few images each.

  A loop turn's copies of x and dy stay in the cache, and its memory is used
  again: all images at once cost more in page faults than in arithmetic.
  """
  if _pays_winograd(
    shape,
    strides,
    len(dy),
    dy.shape[1:3],
    dy.dtype,
    _WINOGRAD_CHANNELS_OF_GRADIENT,
  ):
    return winograd.kernel_gradient(x, dy, padding).astype(dy.dtype)
  few_channels = shape[2] <= _FEW_CHANNELS
  taps = _patch_product if few_channels else _row_phase_product
  turns = _turns(dy, shape, few_channels)
  if turns == 1:
    return taps(x, shape, strides, padding, dy).astype(dy.dtype)
  images = x.shape[0] // turns

  def add(turn, total):
    piece = [
      lax.dynamic_slice_in_dim(array, turn * images, images)
      for array in (x, dy)
    ]
    return total + taps(piece[0], shape, strides, padding, piece[1])

  total = lax.fori_loop(0, turns, add, jnp.zeros(shape, jnp.float32))
  return total.astype(dy.dtype)


def _turns(dy, shape, few_channels):
  """Returns how many loop turns, a divisor of the batch, suit the cache."""
  height, width, channels, features = shape
  if few_channels:
    repeated = height * width * channels + features
  else:
    repeated = width * channels + height * features
  image_bytes = math.prod(dy.shape[1:3]) * repeated * dy.dtype.itemsize
  batch = dy.shape[0]
  for turns in range(1, batch):
    if batch % turns == 0 and batch // turns * image_bytes <= _TURN_BYTES:
      return turns
  return batch


def _patch_product(x, shape, strides, padding, dy):
  """Returns float32 dW as the product of x's patches with dy."""
  height, width, channels, features = shape
  x = _pad_for_taps(x, shape, strides, padding, dy)
  patches = jnp.concatenate(
    [
      fast_pool.strided_window(x, (row, column), dy.shape[1:3], strides)
      for row in range(height)
      for column in range(width)
    ],
    axis=-1,
  )
  return _product(patches, dy).reshape(shape)


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
      fast_pool.strided_window(x, (phase, column), (count, columns), strides)
      for column in range(width)
    ]
    last = len(offsets) - 1
    shifted = [
      jnp.pad(dy, ((0, 0), (shift, last - shift), (0, 0), (0, 0)))
      for shift in range(len(offsets))
    ]
    product = _product(
      jnp.concatenate(picked, axis=-1), jnp.concatenate(shifted, axis=-1)
    )
    product = product.reshape(width, shape[2], len(offsets), shape[3])
    for index, row in enumerate(offsets):
      taps[row] = product[:, :, index]
  return jnp.stack(taps)


def _pad_for_taps(x, shape, strides, padding, dy):
  """Returns x padded or cut so that every tap of every phase exists."""
  pads = [(0, 0, 0)]
  for axis in (0, 1):
    size, low = x.shape[axis + 1], padding[axis][0]
    # A phase reads whole strides: up to stride - 1 pixels past the last tap.
    needed = (dy.shape[axis + 1] - 1) * strides[axis] + shape[axis]
    pads.append((low, needed + strides[axis] - 1 - size - low, 0))
  return lax.pad(x, jnp.zeros((), x.dtype), [*pads, (0, 0, 0)])


def _product(left, right):
  """Returns [C, D] in float32 or wider: left [B, H, W, C] times right."""
  return jnp.matmul(
    left.reshape(-1, left.shape[-1]).T,
    right.reshape(-1, right.shape[-1]),
    preferred_element_type=jnp.promote_types(left.dtype, jnp.float32),
  )


conv.defvjp(_conv_forward, _conv_backward)
