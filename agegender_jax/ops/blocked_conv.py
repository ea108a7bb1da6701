"""Strided convolution of few channels, written for GPUs: same results.

Matrix units want at least eight channels in; an image has three. The pixels
that a step of the stride covers are taken for channels of one: the first
layer of a ResNet, 7x7 with stride 2 on 3 channels, becomes 4x4 with stride 1
on 12 (half the time on an H100). (`pixel_blocks` has a form for CPUs.)
"""

import jax.numpy as jnp
from jax import lax

_MOST_CHANNELS = 4


def pays(shape, kernel_shape, strides) -> bool:
  """Says whether this is the faster way.

  Args:
    shape: of the image, (B, H, W, C).
    kernel_shape: (kh, kw, C, D).
    strides: (vertical, horizontal) in pixels.
  """
  has_windows = all(
    window > stride > 1
    for window, stride in zip(kernel_shape[:2], strides, strict=True)
  )
  return has_windows and shape[3] <= _MOST_CHANNELS


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
  zero = jnp.zeros((), x.dtype)
  image_pads, kernel_pads = [(0, 0, 0)], []
  for length, window, stride, (low, high) in zip(
    x.shape[1:3], kernel.shape[:2], strides, padding, strict=True
  ):
    whole = -(-window // stride) * stride  # The kernel ends in zeros.
    count = (length + low + high - window) // stride + 1
    needed = (count - 1) * stride + whole
    image_pads.append((low, needed - length - low, 0))
    kernel_pads.append((0, whole - window, 0))
  none = (0, 0, 0)
  x = lax.pad(x, zero, [*image_pads, none])
  kernel = lax.pad(kernel, zero, [*kernel_pads, none, none])
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
