"""Convolution of few channels, such as an image's three: same results.

On a CPU it is a matrix product over blocks of pixels (`conv`). A product for
every pixel, of 27 numbers with a 3x3 kernel, is too small for a processor, and
its patches are too many copies of three numbers each. Here a row of the matrix
is what a block of a few results side by side reads, and the kernel stands in
the other matrix once for each of them, shifted: twice the multiplications for a
3x3 kernel, in larger products, on far fewer copies. For GPUs there is
`conv_on_gpu`. Arrays are channels-last.
"""

import math

import jax.numpy as jnp
from jax import lax

from agegender_jax.ops import pooling

# Repeating so few channels for every tap of a kernel is cheap.
FEW_CHANNELS = 4
_FEATURES = 128  # Of a block, about what fills a product.


def length_of(features):
  """Returns how many results, side by side, a block has."""
  return next((n for n in (4, 2) if n * features <= _FEATURES), 1)


def conv(x, kernel, strides, padding, size):
  """Returns the convolution of x with a kernel.

  Args:
    x: float [B, H, W, C].
    kernel: [kh, kw, C, D], of x's dtype.
    strides: (vertical, horizontal) in pixels.
    padding: ((top, bottom), (left, right)) in pixels.
    size: (H', W') of the result.

  Returns:
    Array [B, H', W', D] of x's dtype.
  """
  features = kernel.shape[3]
  length = length_of(features)
  blocks = patches(x, kernel.shape, strides, padding, size)
  # [kh, what a block reads, C, length, D]: 0 where a result does not read.
  shifts = [strides[1] * place for place in range(length)]
  shifted = jnp.stack(
    [
      jnp.pad(kernel, ((0, 0), (shift, shifts[-1] - shift), (0, 0), (0, 0)))
      for shift in shifts
    ],
    axis=3,
  )
  y = jnp.matmul(
    blocks,
    shifted.reshape(blocks.shape[-1], -1),
    preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
  )
  y = y.reshape(len(x), size[0], -1, features)[:, :, : size[1]]
  return y.astype(x.dtype)


def patches(x, shape, strides, padding, size):
  """Returns what each block reads, [B, H', blocks, numbers].

  Args:
    x: float [B, H, W, C].
    shape: of the kernel, [kh, kw, C, D].
    strides: (vertical, horizontal) in pixels.
    padding: ((top, bottom), (left, right)) in pixels.
    size: (H', W') of the convolution's result.
  """
  height, width, channels, features = shape
  down, right = strides
  length = length_of(features)
  # The pixels of a row in groups, as far apart as what blocks read.
  group = length * right
  reads = group - right + width
  count = -(-size[1] // length)
  groups = count - 1 + -(-reads // group)
  extents = (size[0] - 1) * down + height, groups * group
  pads = [
    (low, extent - have - low, 0)
    for (low, _), extent, have in zip(padding, extents, x.shape[1:3], strict=True)
  ]
  x = pooling.pad(x, pads)
  x = x.reshape(len(x), extents[0], groups, group * channels)
  pieces = []
  for row in range(height):
    rows = x[:, row : row + (size[0] - 1) * down + 1 : down]
    for first in range(0, reads, group):
      pixels = min(group, reads - first)
      start = first // group
      pieces.append(rows[:, :, start : start + count, : pixels * channels])
  return jnp.concatenate(pieces, axis=-1)


def in_blocks(dy):
  """Returns dy [B, H', W', D] as [B, H', blocks, length D]."""
  length = length_of(dy.shape[3])
  pads = ((0, 0), (0, 0), (0, -dy.shape[2] % length), (0, 0))
  return jnp.pad(dy, pads).reshape(*dy.shape[:2], -1, length * dy.shape[3])


def gather_kernel(gradient, shape, strides):
  """Returns the kernel's gradient of that of its shifted copies.

  Args:
    gradient: of `patches` and `in_blocks`, multiplied: [numbers, length D].
    shape: of the kernel, [kh, kw, C, D].
    strides: (vertical, horizontal) in pixels.
  """
  height, width, channels, features = shape
  length = length_of(features)
  gradient = gradient.reshape(height, -1, channels, length, features)
  return sum(
    gradient[:, place * strides[1] :][:, :width, :, place] for place in range(length)
  )


def image_numbers(shape, strides, size):
  """Returns how many numbers `patches` and `in_blocks` hold for an image."""
  height, width, channels, features = shape
  length = length_of(features)
  reads = (length - 1) * strides[1] + width
  numbers = height * reads * channels + length * features
  return size[0] * math.ceil(size[1] / length) * numbers


def pays_on_gpu(shape, kernel_shape, strides) -> bool:
  """Returns True if `conv_on_gpu` is the faster way.

  Args:
    shape: of the image, (B, H, W, C).
    kernel_shape: (kh, kw, C, D).
    strides: (vertical, horizontal) in pixels.
  """
  has_windows = all(
    window > stride > 1
    for window, stride in zip(kernel_shape[:2], strides, strict=True)
  )
  return has_windows and shape[3] <= FEW_CHANNELS


def conv_on_gpu(x, kernel, strides, padding):
  """Returns what `convolution.conv` does, by matrix units' liking.

  They want at least eight channels in; an image has three. The pixels that a
  step of the stride covers are taken for channels of one: the first layer of a
  ResNet, 7x7 with stride 2 on 3 channels, becomes 4x4 with stride 1 on 12
  (half the time on an H100).

  Args:
    x: float [B, H, W, C].
    kernel: [kh, kw, C, D], of x's dtype.
    strides: (vertical, horizontal) in pixels.
    padding: ((top, bottom), (left, right)) in pixels.

  Returns:
    Array [B, H', W', D] of x's dtype.
  """
  image_pads, kernel_pads = [], []
  for length, window, stride, (low, high) in zip(
    x.shape[1:3], kernel.shape[:2], strides, padding, strict=True
  ):
    whole = -(-window // stride) * stride  # The kernel ends in zeros.
    count = (length + low + high - window) // stride + 1
    needed = (count - 1) * stride + whole
    image_pads.append((low, needed - length - low, 0))
    kernel_pads.append((0, whole - window))
  x = pooling.pad(x, image_pads)
  kernel = jnp.pad(kernel, (*kernel_pads, (0, 0), (0, 0)))
  down, right = strides
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // down, down, width // right, right, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  rows, columns, _, features = kernel.shape
  kernel = kernel.reshape(
    rows // down, down, columns // right, right, channels, features
  ).transpose(0, 2, 1, 3, 4, 5)
  return lax.conv_general_dilated(
    x.reshape(*x.shape[:3], -1),
    kernel.reshape(*kernel.shape[:2], -1, features),
    (1, 1),
    'VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
