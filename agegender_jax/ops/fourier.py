"""Convolution in the Fourier domain, which the Levi-Hassner report proposes.

"Convolution in the Fourier domain is multiplication, so using that instead of
the convolution layer might make the model faster."
"""

import jax
import jax.numpy as jnp
import scipy


def conv(x: jax.Array, kernel: jax.Array, strides, padding) -> jax.Array:
  """Correlates images with kernels by fast Fourier transforms.

  A stride saves nothing here: all places are computed, then some are taken.

  Args:
    x: float [B, H, W, C].
    kernel: float [h, w, C, D].
    strides: rows and columns, pixels.
    padding: ((top, bottom), (left, right)), pixels.

  Returns:
    float [B, H', W', D], of x's dtype.
  """
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
    for n, side, stride in zip(image.shape[1:3], kernel.shape, strides, strict=False)
  )
  return y[:, rows, columns].astype(x.dtype)
