"""Convolution in the Fourier domain, which the Levi-Hassner report proposes.

"Convolution in the Fourier domain is multiplication, so using that instead of
the convolution layer might make the model faster." As `conv` of a
`layers.Kit`, parameters, names and results stay those of `layers.Conv`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import scipy
from jax import lax

from agegender_jax.models import layers


def fourier_conv(
  x: jax.Array,
  kernel: jax.Array,
  strides: Sequence[int] = (1, 1),
  padding: str | Sequence[tuple[int, int]] = 'SAME',
) -> jax.Array:
  """Correlates images with kernels by fast Fourier transforms.

  A stride saves nothing here: all places are computed, then some are taken.

  Args:
    x: float [B, H, W, C].
    kernel: float [h, w, C, D].
    strides: rows and columns, pixels.
    padding: 'SAME', 'VALID' or ((top, bottom), (left, right)), pixels.

  Returns:
    float [B, H', W', D], of x's dtype.
  """
  sides = kernel.shape[:2]
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(x.shape[1:3], sides, strides, padding)
  # The transform has no bfloat16.
  wide = jnp.promote_types(x.dtype, jnp.float32)
  image = jnp.pad(x.astype(wide), ((0, 0), *padding, (0, 0)))
  # Sizes that the transform is quick at; more zeros change no output.
  sizes = [scipy.fft.next_fast_len(n, real=True) for n in image.shape[1:3]]
  spectrum = jnp.fft.rfft2(image, s=sizes, axes=(1, 2))
  # The conjugate correlates, where the plain product would convolve.
  weights = jnp.fft.rfft2(kernel.astype(wide), s=sizes, axes=(0, 1)).conj()
  product = jnp.einsum('bhwc,hwcd->bhwd', spectrum, weights)
  y = jnp.fft.irfft2(product, s=sizes, axes=(1, 2))
  # Past these ends the image, periodic here, wraps around.
  rows, columns = (
    slice(0, n - side + 1, stride)
    for n, side, stride in zip(image.shape[1:3], sides, strides, strict=True)
  )
  return y[:, rows, columns].astype(x.dtype)


def _conv_general_dilated(
  lhs,
  rhs,
  window_strides,
  padding,
  lhs_dilation=None,
  rhs_dilation=None,
  dimension_numbers=None,
  feature_group_count=1,
  precision=None,
):
  """Does what flax asks of lax, for 2-D, undilated, ungrouped convolutions."""
  del dimension_numbers, precision  # NHWC, and the transform's own.
  dilations = {*(lhs_dilation or ()), *(rhs_dilation or ())}
  if dilations - {1} or feature_group_count != 1 or lhs.ndim != 4:
    raise ValueError('FourierConv is 2-D, without dilation and groups')
  return fourier_conv(lhs, rhs, window_strides, padding)


class FourierConv(layers.Conv):
  """`layers.Conv`, computed by `fourier_conv`."""

  conv_general_dilated_cls: Any = lambda: _conv_general_dilated
