"""Few channels: a convolution as a matrix product over blocks of pixels.

A product for every pixel, 27 numbers by as many features, is too small for a
processor and its patches too many copies of three numbers each. Here a row of
the matrix is what a block of a few pixels side by side reads, and the kernel
stands in the other matrix once for each of them, shifted: up to twice the
multiplications, in larger products, on an eighth of the copies. Channels-last,
stride 1.
"""

import math

import jax.numpy as jnp
from jax import lax

# Repeating so few channels for every tap of a kernel is cheap.
FEW_CHANNELS = 4
_FEATURES = 128  # Of a block, about what fills a product.
_LENGTHS = (4, 2)


def length_of(shape, strides):
  """Returns the pixels of a block; None where other ways are better.

  Args:
    shape: of the kernel, [kh, kw, C, D].
    strides: (vertical, horizontal) in pixels.
  """
  _, width, channels, features = shape
  if strides != (1, 1) or channels > FEW_CHANNELS:
    return None
  # A block reads of itself and of the next one.
  fitting = [length for length in _LENGTHS if length >= width - 1]
  within = [length for length in fitting if length * features <= _FEATURES]
  return next(iter(within or fitting[-1:]), None)


def conv(x, kernel, padding):
  """Returns the convolution of x with a kernel that `length_of` accepts.

  Args:
    x: float [B, H, W, C].
    kernel: [kh, kw, C, D], of x's dtype.
    padding: ((top, bottom), (left, right)) in pixels.

  Returns:
    Array [B, H', W', D] of x's dtype.
  """
  length = length_of(kernel.shape, (1, 1))
  height, width = (
    extent + sum(pads) - window + 1
    for extent, pads, window in zip(
      x.shape[1:3], padding, kernel.shape[:2], strict=True
    )
  )
  blocks = patches(x, kernel.shape, (height, width), padding, length)
  # [kh, length + kw - 1, C, length, D]: zeros where a pixel does not read.
  shifted = jnp.stack(
    [
      jnp.pad(kernel, ((0, 0), (shift, length - 1 - shift), (0, 0), (0, 0)))
      for shift in range(length)
    ],
    axis=3,
  )
  y = jnp.matmul(
    blocks,
    shifted.reshape(blocks.shape[-1], -1),
    preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
  )
  y = y.reshape(len(x), height, -1, kernel.shape[3])[:, :, :width]
  return y.astype(x.dtype)


def patches(x, shape, size, padding, length):
  """Returns what each block reads, [B, H', blocks, kh (length + kw - 1) C].

  Args:
    x: float [B, H, W, C].
    shape: of the kernel, [kh, kw, C, D].
    size: (H', W') of the convolution's result.
    padding: ((top, bottom), (left, right)) in pixels.
    length: pixels of a block.
  """
  height, width, channels = shape[:3]
  count = -(-size[1] // length)
  extents = size[0] + height - 1, (count + 1) * length
  pads = [
    (low, extent - have - low, 0)
    for (low, _), extent, have in zip(
      padding, extents, x.shape[1:3], strict=True
    )
  ]
  x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
  x = x.reshape(len(x), extents[0], count + 1, length * channels)
  pieces = []
  for row in range(height):
    rows = x[:, row : row + size[0]]
    pieces += [rows[:, :, :-1], rows[:, :, 1:, : (width - 1) * channels]]
  return jnp.concatenate(pieces, axis=-1)


def in_blocks(dy, length):
  """Returns dy [B, H', W', D] as [B, H', blocks, length D]."""
  pads = ((0, 0), (0, 0), (0, -dy.shape[2] % length), (0, 0))
  return jnp.pad(dy, pads).reshape(*dy.shape[:2], -1, length * dy.shape[3])


def gather_kernel(gradient, shape, length):
  """Returns the kernel's gradient of that of its shifted copies.

  Args:
    gradient: [kh (length + kw - 1) C, length D], the product of the two above.
    shape: of the kernel, [kh, kw, C, D].
    length: pixels of a block.
  """
  height, width, channels, features = shape
  gradient = gradient.reshape(height, -1, channels, length, features)
  return sum(
    gradient[:, shift : shift + width, :, shift] for shift in range(length)
  )


def image_numbers(shape, size, length):
  """Returns how many numbers patches and blocks of an image hold."""
  height, width, channels, features = shape
  repeated = height * (length + width - 1) * channels + length * features
  return size[0] * math.ceil(size[1] / length) * repeated
