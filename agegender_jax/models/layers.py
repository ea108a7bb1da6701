"""The conv, max-pool, ReLU and normalisation layers that every net uses.

Parameters, initial values and results are those of `flax.linen`; on CPU the
work is done by the faster forms in `fast_conv` and `fast_pool`, on GPUs first
layers by `blocked_conv` and pools by `fast_pool`.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from agegender_jax.ops import blocked_conv, fast_conv, fast_pool
from agegender_jax.runtime import devices

FORMULATIONS = ('plain', 'fast', 'gpu')
_OF_BACKEND = {'cpu': 'fast', 'gpu': 'gpu'}

# One program a shape: outside of jit each operation would be one of its own,
# three hundred for VGG16, and within it each layer would be traced anew.
_fast_conv = jax.jit(fast_conv.conv, static_argnums=(2, 3))
_fast_max_pool = jax.jit(fast_pool.max_pool, static_argnums=(1, 2, 3, 4))

_chosen = None


def set_formulation(name):
  """Chooses how convolutions and pools are computed from now on.

  Functions that are already compiled keep the form they were traced with.

  Args:
    name: 'plain' (XLA's own operations), 'fast' (made for CPUs), 'gpu' or
      None: what suits the backend.

  Raises:
    ValueError: if the name is none of these.
  """
  global _chosen
  if name is not None and name not in FORMULATIONS:
    raise ValueError(f'formulation {name!r}: expected one of {FORMULATIONS}')
  _chosen = name


@contextlib.contextmanager
def formulated(name):
  """Does as `set_formulation` within a `with` block."""
  before = _chosen
  set_formulation(name)
  try:
    yield
  finally:
    set_formulation(before)


def formulation():
  """Returns the formulation in use, one of FORMULATIONS."""
  return _chosen or _OF_BACKEND.get(jax.default_backend(), 'plain')


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
):
  """Returns `lax.conv_general_dilated`, by another form where it applies.

  That is for 2-D, undilated, ungrouped convolutions in the default precision;
  Args are lax's.
  """
  strides = tuple(window_strides)
  is_usual = feature_group_count == 1 and lhs.ndim == 4 and precision is None
  dilated = {*(lhs_dilation or ()), *(rhs_dilation or ())} - {1}
  form = formulation()
  if dilated or not is_usual:
    form = 'plain'
  elif form == 'gpu' and not blocked_conv.pays(lhs.shape, rhs.shape, strides):
    form = 'plain'
  if form == 'plain':
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
  conv = blocked_conv.conv if form == 'gpu' else _fast_conv
  return conv(lhs, rhs, strides, pads)


def _explicit_padding(shape, window, strides, padding):
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(shape[1:3], window, strides, padding)
  return tuple((int(low), int(high)) for low, high in padding)


class Conv(nn.Conv):
  """`nn.Conv`, 3x3 unless told otherwise, in the form that is fast."""

  kernel_size: Any = (3, 3)
  conv_general_dilated_cls: Any = lambda: conv_general_dilated


def max_pool(x, window, strides=None, padding='VALID'):
  """Returns `nn.max_pool`, in the form that is fast.

  Args:
    x: [B, H, W, C].
    window: (height, width) in pixels.
    strides: (vertical, horizontal) in pixels; None is (1, 1).
    padding: 'SAME', 'VALID' or ((top, bottom), (left, right)) in pixels;
      torch's ceil mode is a larger bottom and right.

  Returns:
    [B, H', W', C].
  """
  window = tuple(window)
  strides = (1,) * len(window) if strides is None else tuple(strides)
  is_float = jnp.issubdtype(x.dtype, jnp.floating)
  form = formulation()
  if form == 'plain' or x.ndim != 4 or not is_float:
    return nn.max_pool(x, window, strides, padding)
  pads = _explicit_padding(x.shape, window, strides, padding)
  return _fast_max_pool(x, window, strides, pads, form == 'gpu')


def local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0):
  """Divides x by a power of the mean square of its neighbour channels.

  AlexNet's normalisation as `torch.nn.LocalResponseNorm` defines it: alpha is
  divided by the size, and channels past the ends count as zeros.

  Args:
    x: float [..., C].
    size: channels in the window, `size // 2` of them before its own.
    alpha: weight of the mean square.
    beta: the power.
    k: added to the weighted mean square.

  Returns:
    Array of x's shape and dtype.
  """
  wide = jnp.promote_types(x.dtype, jnp.float32)
  squares = jnp.square(x.astype(wide))
  low = size // 2
  pads = [(0, 0, 0)] * (x.ndim - 1) + [(low, size - 1 - low, 0)]
  squares = lax.pad(squares, jnp.zeros((), wide), pads)
  total = sum(
    lax.slice_in_dim(squares, first, first + x.shape[-1], axis=-1)
    for first in range(size)
  )
  scale = k + (alpha / size) * total
  if beta == 0.75:
    # Two square roots: a general power costs several times more on CPU.
    root = lax.rsqrt(scale)
    factor = root * jnp.sqrt(root)
  else:
    factor = scale**-beta
  return (x * factor).astype(x.dtype)


@jax.custom_vjp
def relu(x):
  """Returns `nn.relu`, whose gradient needs the output and not the input.

  The input, often a normalised map that nothing else needs, is then never
  written to memory.

  Args:
    x: float, any shape.
  """
  return nn.relu(x)


def _relu_forward(x):
  y = nn.relu(x)
  return y, y


def _relu_backward(y, g):
  return (jnp.where(y > 0, g, jnp.zeros_like(g)),)


relu.defvjp(_relu_forward, _relu_backward)


class Relu(nn.Module):
  """`relu` of a map as a module: Grad-CAM intercepts it by its name."""

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns `relu` of x."""
    return relu(x)


class BatchNorm(nn.Module):
  """Batch normalisation with the momentum and epsilon of torch's BatchNorm2d.

  Ioffe & Szegedy 2015. Parameters, statistics and their names are those of
  `nn.BatchNorm`. The running variance is the biased one, as flax keeps it;
  torch keeps n / (n - 1) times it. Mean and scale are folded into one
  multiplication and one addition, as torch does on CPU: neither the centred
  map nor its gradient is then written to memory.

  Attributes:
    momentum: weight of the running average against the batch.
    epsilon: added to the variance.
    axis_name: of the devices that share a batch, if any.
    dtype: of the result, that of x by default; statistics are float32.
    is_frozen: path of a parameter, such as `backbone/bn1/scale` -> whether
      training leaves it: then the running statistics are used and kept.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  axis_name: str | None = None
  dtype: Any = None
  is_frozen: Callable[[str], bool] = lambda path: False

  @nn.compact
  def __call__(self, x, use_running_average):
    """Normalises x, float [B, ..., C], by the batch or the running average."""
    frozen = self.is_frozen('/'.join((*self.path, 'scale')))
    shape = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    running = [
      self.variable('batch_stats', 'mean', jnp.zeros, shape),
      self.variable('batch_stats', 'var', jnp.ones, shape),
    ]
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if use_running_average or frozen:
      mean, variance = (stored.value for stored in running)
    else:
      axes = tuple(range(x.ndim - 1))
      moments = jnp.stack([wide.mean(axes), jnp.square(wide).mean(axes)])
      if self.axis_name and not self.is_initializing():
        moments = devices.mean_over(moments, self.axis_name)
      mean = moments[0]
      variance = jnp.maximum(moments[1] - jnp.square(mean), 0)
      if not self.is_initializing():
        for stored, value in zip(running, (mean, variance), strict=True):
          kept = self.momentum * stored.value
          stored.value = kept + (1 - self.momentum) * value
    factor = scale * lax.rsqrt(variance + self.epsilon)
    offset = bias - mean * factor
    factor, offset = (jnp.broadcast_to(v, x.shape) for v in (factor, offset))
    return (wide * factor + offset).astype(self.dtype or x.dtype)
