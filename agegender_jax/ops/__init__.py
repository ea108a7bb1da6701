"""Convolution and max-pooling that are fast on every backend.

May import `runtime`. Only what this file defines leaves it, for
`models.layers`; results are those of XLA's operations.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from agegender_jax.ops import convolution, depthwise, few_channels, fourier, pooling

# XLA's own operations; those made for CPUs; those made for GPUs; the Levi-Hassner
# report's proposal, with the backend's pools.
FORMULATIONS = ('plain', 'fast', 'gpu', 'fourier')
_OF_BACKEND = {'cpu': 'fast', 'gpu': 'gpu'}

# One program per shape: outside of jit each operation would be one of its own,
# three hundred for VGG16, and within it each layer would be traced again.
_fast_conv = jax.jit(convolution.conv, static_argnums=(2, 3))
_fast_depthwise = jax.jit(depthwise.conv, static_argnums=(2, 3))
_fast_max_pool = jax.jit(pooling.max_pool, static_argnums=(1, 2, 3, 4))


def choose(name: str) -> str:
  """Returns a formulation, or what suits the backend if it is none of them."""
  if name in FORMULATIONS:
    return name
  return _OF_BACKEND.get(jax.default_backend(), 'plain')


def conv_general_dilated(
  lhs,
  rhs,
  window_strides,
  padding,
  lhs_dilation=None,
  rhs_dilation=None,
  dimension_numbers=None,
  feature_group_count=1,
  precision=None,
  *,
  formulation='',
):
  """Returns `lax.conv_general_dilated`, by another form where it applies.

  That is for 2-D, undilated convolutions in the default precision, ungrouped or, on
  CPUs, depthwise; Args are lax's, and `formulation`, one of FORMULATIONS or '' for the
  backend's.

  Raises:
    ValueError: a dilated or grouped convolution is asked of `fourier`.
  """
  strides = tuple(window_strides)
  is_plain_2d = lhs.ndim == 4 and precision is None
  is_usual = is_plain_2d and feature_group_count == 1
  dilated = {*(lhs_dilation or ()), *(rhs_dilation or ())} - {1}
  form = choose(formulation)
  if form == 'fourier' and (dilated or not is_usual):
    raise ValueError('model.conv=fourier is 2-D, without dilation and groups')
  if form == 'gpu' and not few_channels.pays_on_gpu(lhs.shape, rhs.shape, strides):
    form = 'plain'
  is_depthwise = (
    form == 'fast'
    and is_plain_2d
    and lhs.dtype.itemsize >= 4  # Its sums would ruin bfloat16.
    and 1 < feature_group_count == lhs.shape[-1] == rhs.shape[-1]
    and rhs.shape[-2] == 1
  )
  if form == 'plain' or dilated or not (is_usual or is_depthwise):
    return lax.conv_general_dilated(
      lhs,
      rhs,
      window_strides,
      padding,
      lhs_dilation,
      rhs_dilation,
      dimension_numbers,
      feature_group_count,
      precision=precision,
    )
  pads = _explicit_padding(lhs.shape, rhs.shape[:2], strides, padding)
  conv = {'gpu': few_channels.conv_on_gpu, 'fourier': fourier.conv}.get(form)
  fast = _fast_depthwise if is_depthwise else _fast_conv
  return (conv or fast)(lhs, rhs, strides, pads)


def max_pool(x, window, strides, padding, formulation=''):
  """Returns `nn.max_pool`, by another form where it applies.

  Args:
    x: [B, H, W, C].
    window: (height, width) in pixels.
    strides: (vertical, horizontal) in pixels.
    padding: 'SAME', 'VALID' or ((top, bottom), (left, right)) in pixels.
    formulation: one of FORMULATIONS; '' is what suits the backend.

  Returns:
    [B, H', W', C].
  """
  form = choose('' if formulation == 'fourier' else formulation)
  if form == 'plain' or x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
    return nn.max_pool(x, window, strides, padding)
  pads = _explicit_padding(x.shape, window, strides, padding)
  return _fast_max_pool(x, window, strides, pads, form == 'gpu')


def _explicit_padding(shape, window, strides, padding):
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(shape[1:3], window, strides, padding)
  return tuple((int(low), int(high)) for low, high in padding)
