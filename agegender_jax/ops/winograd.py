"""Convolution by Winograd's minimal filtering, F(4x4, 3x3) and F(2x2, 5x5).

A tile of 6x6 pixels takes 36 products per channel pair, where the 4x4 pixels that
a 3x3 kernel makes of it take 144 and the 2x2 of a 5x5 kernel 100 (Lavin & Gray,
Fast Algorithms for Convolutional Neural Networks, CVPR 2016); the sums before
and after are passes over memory. Channels-last, stride 1.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from agegender_jax.ops import kernel_gradient as kernel_gradient_lib
from agegender_jax.ops import pooling
from agegender_jax.runtime import devices

_POINTS = 6  # Input pixels, height and width, of a tile.
# The transform of the input, Lavin & Gray's section 5.1. The others are the
# powers of the places at which it takes polynomials, the kernel's scaled; the
# sixth place is infinity, where the last power is what counts.
_INPUT = np.array([
  [4, 0, -5, 0, 1, 0],
  [0, -4, -4, 1, 1, 0],
  [0, 4, -4, -1, 1, 0],
  [0, -2, -1, 2, 1, 0],
  [0, 2, -1, -2, 1, 0],
  [0, 4, 0, -5, 0, 1],
])  # fmt: skip
_PLACES = (0, 1, -1, 2, -2)
_SCALES = np.array([1 / 4, -1 / 6, -1 / 6, 1 / 24, 1 / 24, 1])
# Transformed pixels of a loop turn, as shares of the cache: they stay in it, and
# their memory is used again. More are worth it where they bring more threads of
# the device to work.
_TURN_SHARE, _MOST_TURN_SHARE = 1 / 2, 13 / 8
# Of the kernel gradient; all at once, without a loop, up to the second.
_TURN_SHARE_OF_GRADIENT, _ONE_TURN_SHARE_OF_GRADIENT = 1 / 4, 5 / 8
# What of a matrix product XLA gives to a thread: outputs, or columns of them
# where they are fewer but take so many multiplications.
_BLOCK, BLOCK_COLUMNS = 2**16, 128
_MULTIPLICATIONS_IN_COLUMNS = 2**23
# The least part of the threads' time that a product is to fill.
_BUSY = 0.8


def tile_of(side):
  """Returns the output pixels, height and width, of a tile.

  Args:
    side: of the kernel, pixels: 3 or 5.
  """
  return _POINTS + 1 - side


def _powers(count):
  """Returns the first powers of the places, float [6, count]."""
  rows = [[place**power for power in range(count)] for place in _PLACES]
  return np.array([*rows, [0] * (count - 1) + [1]], float)


def _kernel_transform(side):
  """Returns the transform of both axes of a kernel at once, [36, side^2]."""
  transform = _SCALES[:, None] * _powers(side)
  return np.kron(transform, transform)


def conv(x, kernel, padding):
  """Returns the convolution of x with a small square kernel.

  Args:
    x: float [B, H, W, C].
    kernel: [side, side, C, D], of x's dtype.
    padding: ((top, bottom), (left, right)) in pixels; negative ones cut.

  Returns:
    Array [B, H', W', D] of x's dtype.
  """
  side = len(kernel)
  kernel = _transform_kernel(kernel, _kernel_transform(side))
  return _conv(x, kernel, side, padding, 'tnc,tcd->tnd')


def transposed_conv(dy, kernel, padding):
  """Returns the convolution of dy with a kernel turned round.

  With what is missing of a border of side - 1 pixels as padding, it is the
  gradient of `conv` with respect to x.

  Args:
    dy: float [B, H, W, D].
    kernel: [side, side, C, D], of dy's dtype.
    padding: ((top, bottom), (left, right)) in pixels; negative ones cut.

  Returns:
    Array [B, H', W', C] of dy's dtype.
  """
  # The product takes C and D in either order; a kernel with the two swapped
  # would be read across its memory.
  side = len(kernel)
  kernel = _transform_kernel(kernel, _kernel_transform(side)[:, ::-1])
  return _conv(dy, kernel, side, padding, 'tnd,tcd->tnc')


def _conv(x, kernel, side, padding, product):
  size = tuple(
    length + sum(pads) - (side - 1)
    for length, pads in zip(x.shape[1:3], padding, strict=True)
  )
  tile = tile_of(side)
  grid = _grid(size, tile)

  def piece(x):
    tiles = _transform_input(_pad(x, grid, tile, padding), grid, tile)
    products = jnp.einsum(product, tiles, kernel)
    return _transform_output(products, x.shape[0], grid, tile)[:, : size[0], : size[1]]

  features = sum(kernel.shape[1:]) - x.shape[3]
  images = _images_a_turn(x.shape[0], grid, x.shape[3], features, x.dtype)
  if images == x.shape[0]:
    return piece(x)
  turns = x.shape[0] // images
  x = x.reshape(turns, images, *x.shape[1:])
  result = lax.map(piece, x)
  return result.reshape(turns * images, *result.shape[2:])


def kernel_gradient(x, side, dy, padding):
  """Returns the gradient of `conv` with respect to the kernel.

  Args:
    x: float [B, H, W, C].
    side: of the kernel, pixels.
    dy: [B, H', W', D], the gradient with respect to the result.
    padding: that of the convolution.

  Returns:
    Array [side, side, C, D], float32 or wider.
  """
  tile = tile_of(side)
  grid = _grid(dy.shape[1:3], tile)
  wide = jnp.promote_types(x.dtype, jnp.float32)

  def piece(x, dy):
    tiles = _transform_input(_pad(x, grid, tile, padding), grid, tile)
    return jnp.einsum(
      'tnc,tnd->tcd',
      tiles,
      _spread_output(dy, grid, tile),
      preferred_element_type=wide,
    )

  channels = x.shape[3] + dy.shape[3]
  images = _images_a_turn_of_gradient(x.shape[0], grid, channels, x.dtype)
  shape = (_POINTS**2, x.shape[3], dy.shape[3])
  turns = x.shape[0] // images
  total = kernel_gradient_lib.sum_over_turns(piece, x, dy, turns, shape)
  return _gather_kernel(total, side)


def _grid(size, tile):
  """Returns the rows and columns of tiles that cover an output."""
  return tuple(-(-length // tile) for length in size)


def _images_a_turn(batch, grid, channels, features, dtype):
  """Returns how many images, a divisor of the batch, a turn of `conv` takes.

  Args:
    batch: B.
    grid: rows and columns of tiles.
    channels: in.
    features: channels out.
    dtype: of the pixels.
  """
  image_bytes = _image_bytes(grid, channels + features, dtype)
  cache, threads = devices.cache_bytes(), devices.threads()
  few = kernel_gradient_lib.largest_divisor(batch, _TURN_SHARE * cache // image_bytes)
  if threads == 1:
    return few
  shares = {
    images: _busy_share(images * math.prod(grid), channels, features, threads)
    for images in range(few, batch + 1)
    if batch % images == 0
    and images * image_bytes <= max(_MOST_TURN_SHARE * cache, few * image_bytes)
  }
  enough = min(_BUSY, max(shares.values()))
  return next(images for images, share in shares.items() if share >= enough)


def _busy_share(rows, depth, columns, threads):
  """Returns which part of the threads' time a product's blocks fill."""
  blocks = rows * columns / _BLOCK
  if blocks > 1:
    return blocks / (threads * math.ceil(blocks / threads))
  is_split = rows * depth * columns >= _MULTIPLICATIONS_IN_COLUMNS
  return 1.0 if columns > BLOCK_COLUMNS and is_split else 1 / threads


def _images_a_turn_of_gradient(batch, grid, channels, dtype):
  """Returns how many images a turn of `kernel_gradient` takes."""
  image_bytes = _image_bytes(grid, channels, dtype)
  cache = devices.cache_bytes()
  at_once = batch * image_bytes <= _ONE_TURN_SHARE_OF_GRADIENT * cache
  if at_once and devices.threads() > 1:
    return batch
  return kernel_gradient_lib.largest_divisor(
    batch, _TURN_SHARE_OF_GRADIENT * cache // image_bytes
  )


def _image_bytes(grid, channels, dtype):
  """Returns the bytes of an image's transformed pixels."""
  return math.prod(grid) * _POINTS**2 * channels * dtype.itemsize


def _pad(x, grid, tile, padding):
  """Returns x padded or cut to what the tiles read."""
  pads = [
    (low, (tiles - 1) * tile + _POINTS - length - low, 0)
    for (low, _), tiles, length in zip(padding, grid, x.shape[1:3], strict=True)
  ]
  return pooling.pad(x, pads)


def _combine(row, arrays):
  """Returns the sum of arrays times the row's numbers, in one pass when fused."""
  terms = [
    array * jnp.asarray(factor, array.dtype)
    for factor, array in zip(row, arrays, strict=True)
    if factor
  ]
  return sum(terms[1:], terms[0])


def _separable(matrix, slices, axes):
  """Applies a matrix along two axes, one after the other.

  Args:
    matrix: [P, Q].
    slices: (array, axis) -> the Q slices to combine.
    axes: pair of axes; the second as it stands after the first pass, which
      puts P in front.
  """

  def one(array, axis, place):
    parts = slices(array, axis)
    result = jnp.stack([_combine(row, parts) for row in matrix], axis=place)
    # One pass over memory each: fused, the first would be done Q times.
    return lax.optimization_barrier(result)

  return lambda array: one(one(array, axes[0], 0), axes[1] + 1, 1)


def _transform_input(x, grid, tile):
  """Maps padded x to tiles [36, B h w, C], h and w being those of the grid."""

  def slices(array, axis):
    count = grid[axis - array.ndim + 3]
    return [
      lax.slice_in_dim(array, start, start + tile * (count - 1) + 1, tile, axis)
      for start in range(_POINTS)
    ]

  tiles = _separable(_INPUT, slices, (1, 2))(x)
  return tiles.reshape(_POINTS**2, -1, x.shape[3])


def _transform_output(products, batch, grid, tile):
  """Maps products [36, B h w, D] to [B, tile h, tile w, D]."""
  features = products.shape[2]
  products = products.reshape(_POINTS, _POINTS, batch, *grid, features)

  def slices(array, axis):
    return [
      lax.index_in_dim(array, index, axis, keepdims=False) for index in range(_POINTS)
    ]

  # The first pass takes axis 0 away and puts its own in front.
  tiles = _separable(_powers(tile).T, slices, (0, 0))(products)
  tiles = tiles.transpose(2, 3, 0, 4, 1, 5)
  return tiles.reshape(batch, tile * grid[0], tile * grid[1], features)


def _spread_output(dy, grid, tile):
  """Maps dy [B, H', W', D] to [36, B h w, D]: the transpose of the above."""
  pads = [
    (0, tiles * tile - length, 0)
    for tiles, length in zip(grid, dy.shape[1:3], strict=True)
  ]
  dy = pooling.pad(dy, pads)

  def slices(array, axis):
    return [lax.slice_in_dim(array, start, None, tile, axis) for start in range(tile)]

  tiles = _separable(_powers(tile), slices, (1, 2))(dy)
  return tiles.reshape(_POINTS**2, -1, dy.shape[3])


def _transform_kernel(kernel, matrix):
  """Maps a kernel [side, side, C, D] to [36, C, D] by _kernel_transform."""
  shape = kernel.shape[2:]
  # One small matrix product: as sums it is hundreds of operations to compile.
  kernel = jnp.asarray(matrix, kernel.dtype) @ kernel.reshape(matrix.shape[1], -1)
  return kernel.reshape(_POINTS**2, *shape)


def _gather_kernel(gradient, side):
  """Maps gradients [36, C, D] to those of the kernel [side, side, C, D]."""
  shape = gradient.shape[1:]
  matrix = jnp.asarray(_kernel_transform(side).T, gradient.dtype)
  gradient = matrix @ gradient.reshape(_POINTS**2, -1)
  return gradient.reshape(side, side, *shape)
