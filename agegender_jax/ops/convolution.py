"""Convolution written for XLA on CPU: same results, less time.

XLA's own kernel gradient of a convolution runs at a small part of a CPU's
speed; here it is a few matrix products. 3x3 and 5x5 convolutions with channels
enough go by Winograd's way, which takes a quarter of the products, or little
more than a third; an image's three go by blocks of pixels. Arrays are
channels-last, padding is explicit: `((top, bottom), (left, right))`.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from agegender_jax.ops import few_channels, kernel_gradient, pooling, winograd
from agegender_jax.runtime import devices

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
# The fewest channels, in and out, with which Winograd's sums are outweighed by
# the products they save; and the fewest tiles that outweigh the kernel's.
_WINOGRAD_CHANNELS = 32
_WINOGRAD_CHANNELS_OF_GRADIENT = 16
_WINOGRAD_TILES = 16
# The least share of its tiles that an image fills: 3 x 3 and 6 x 6 pixels fill
# 0.56 of theirs and are 1.3 to 1.8 times as fast that way, 5 x 5 fill 0.39.
_WINOGRAD_FILL = 0.5
_WINOGRAD_KERNELS = ((3, 3), (5, 5))
# Blocks of pixels are for small kernels; where a device has one thread, XLA's
# convolution of an image is as fast from so many features on.
_TAPS_OF_BLOCKS = 9
_FEATURES_OF_ONE_THREAD = 24
# XLA convolves three channels to so many features at a third of the speed, or
# less, that it has with four.
_SLOW_FEATURES = range(17, 33)
# XLA convolves to few channels on one thread, but pieces of a batch side by
# side: so many for each thread, from so many multiplications on.
_PIECES_OF_A_THREAD = 4
_MULTIPLICATIONS_IN_PIECES = 2**28


def _lax_conv(x, kernel, strides, padding, lhs_dilation=(1, 1)):
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    lhs_dilation=lhs_dilation,
    dimension_numbers=_DIMENSIONS,
  )


def _conv_in_pieces(x, kernel, strides, padding):
  """Returns `_lax_conv` undilated, of pieces of the batch where that pays."""
  pixels = math.prod(x.shape[:3]) // math.prod(strides)
  multiplications = pixels * math.prod(kernel.shape)
  if (
    kernel.shape[3] > winograd.BLOCK_COLUMNS
    or multiplications < _MULTIPLICATIONS_IN_PIECES
    or devices.threads() == 1
  ):
    return _lax_conv(x, kernel, strides, padding)
  count = kernel_gradient.largest_divisor(
    len(x), _PIECES_OF_A_THREAD * devices.threads()
  )
  return jnp.concatenate(
    [_lax_conv(piece, kernel, strides, padding) for piece in jnp.split(x, count)]
  )


def _pays_winograd(shape, strides, batch, size, dtype, least_channels):
  """Returns True if Winograd's way is the faster one, and exact enough.

  Args:
    shape: of the kernel, [kh, kw, C, D].
    strides: of the convolution.
    batch: B.
    size: height and width of the result, pixels.
    dtype: of the arrays; Winograd's sums would ruin bfloat16.
    least_channels: see _WINOGRAD_CHANNELS.
  """
  if shape[:2] not in _WINOGRAD_KERNELS:
    return False
  tile = winograd.tile_of(shape[0])
  tiles = math.prod(-(-length // tile) for length in size)
  return (
    strides == (1, 1)
    and min(shape[2:]) >= least_channels
    and batch * tiles >= _WINOGRAD_TILES
    and math.prod(size) >= _WINOGRAD_FILL * tiles * tile**2
    and dtype.itemsize >= 4
  )


def _pays_blocks(shape):
  """Returns True if a kernel [kh, kw, C, D] is for blocks of pixels."""
  is_small = shape[0] * shape[1] <= _TAPS_OF_BLOCKS
  is_faster = devices.threads() > 1 or shape[3] < _FEATURES_OF_ONE_THREAD
  return is_small and shape[2] <= few_channels.FEW_CHANNELS and is_faster


def _is_small(size, window):
  """Returns True if an image is smaller than the kernel.

  That is XLA's slow case, 70 times slower than a product per tap.
  """
  return any(length < taps for length, taps in zip(size, window, strict=True))


def _output_size(x, kernel, strides, padding):
  """Returns height and width of the convolution, pixels."""
  return [
    (length + sum(pads) - taps) // stride + 1
    for length, pads, taps, stride in zip(
      x.shape[1:3], padding, kernel.shape[:2], strides, strict=True
    )
  ]


def _sum_of_taps(x, kernel, strides, padding):
  """Returns the convolution as one matrix product per tap of the kernel."""
  window = kernel.shape[:2]
  size = _output_size(x, kernel, strides, padding)
  x = pooling.pad(x, [(*ends, 0) for ends in padding])
  return sum(
    pooling.strided_window(x, tap, size, strides) @ kernel[tap]
    for tap in itertools.product(*map(range, window))
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
  size = _output_size(x, kernel, strides, padding)
  if _pays_winograd(kernel.shape, strides, len(x), size, x.dtype, _WINOGRAD_CHANNELS):
    return winograd.conv(x, kernel, padding)
  if _is_small(x.shape[1:3], kernel.shape[:2]):
    return _sum_of_taps(x, kernel, strides, padding)
  if _pays_blocks(kernel.shape):
    return few_channels.conv(x, kernel, strides, padding, size)
  missing = few_channels.FEW_CHANNELS - x.shape[-1]
  if missing > 0 and kernel.shape[3] in _SLOW_FEATURES:
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, missing), (0, 0)))
  return _conv_in_pieces(x, kernel, strides, padding)


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
      for size, count, stride in zip(x.shape[1:3], dy.shape[1:3], strides, strict=True)
    ]
    dx = pooling.pad(dx, pads)
  return dx, kernel_gradient.product(picked, dy).astype(dy.dtype)[None, None]


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
  if _is_small(dy.shape[1:3], kernel.shape[:2]):
    taps = functools.partial(
      _sum_of_taps, kernel=kernel, strides=strides, padding=padding
    )
    (dx,) = jax.linear_transpose(taps, jax.ShapeDtypeStruct(shape, dy.dtype))(dy)
    return dx
  flipped = lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
  if strides == (1, 1):
    return _conv_in_pieces(dy, flipped, strides, pads)
  return _lax_conv(dy, flipped, (1, 1), pads, lhs_dilation=strides)


def _kernel_gradient(x, shape, strides, padding, dy):
  """Returns dW [kh, kw, C, D]."""
  if _pays_winograd(
    shape,
    strides,
    len(dy),
    dy.shape[1:3],
    dy.dtype,
    _WINOGRAD_CHANNELS_OF_GRADIENT,
  ):
    result = winograd.kernel_gradient(x, shape[0], dy, padding)
  else:
    result = kernel_gradient.kernel_gradient(x, shape, strides, padding, dy)
  return result.astype(dy.dtype)


conv.defvjp(_conv_forward, _conv_backward)
