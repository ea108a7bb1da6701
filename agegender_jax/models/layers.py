"""The layers that every network uses.

Parameters, initial values and results are those of `flax.linen`; convolutions
and pools are computed by `ops`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from agegender_jax import errors, ops
from agegender_jax.runtime import devices


def conv(formulation: str = '') -> Callable[..., nn.Module]:
  """Returns `nn.Conv` computed by a formulation of ops.conv_general_dilated."""
  return functools.partial(
    nn.Conv,
    conv_general_dilated=functools.partial(
      ops.conv_general_dilated, formulation=formulation
    ),
  )


def check_size(image, least: int, net: str) -> None:
  """Raises errors.UserError if images [B, H, W, C] are too small for a net."""
  side = min(image.shape[1:3])
  if side < least:
    raise errors.UserError(
      f'image_size {side} is too small for {net}: set data.image_size to {least} or '
      'more'
    )


class Dropout(nn.Module):
  """Zeroes elements with probability `rate`, scales the rest by 1/(1-rate).

  Srivastava et al. 2014. Each example's mask follows from the key and the
  example's row in the global batch, so that it is the same on any number of
  devices. Random bits are what it costs: 8 per element where the rate is a
  multiple of 1/256 (0.25 and 0.5 are), else 16.

  Attributes:
    rate: probability of a zero, in [0, 1).
    per_example: zero whole examples: stochastic depth (Huang et al. 2016).
    axis_name: of the devices that share a batch, if any.
  """

  rate: float
  axis_name: str | None = None
  per_example: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
    """Maps an array [B, ...] to one of the same shape."""
    if deterministic or self.rate == 0:
      return x
    bits = 8 if float(self.rate * 256).is_integer() else 16
    dtype = jnp.uint8 if bits == 8 else jnp.uint16
    key = self.make_rng('dropout')
    rows = devices.global_index(len(x), self.axis_name)
    shape = (len(x), *(1,) * (x.ndim - 1)) if self.per_example else x.shape
    size, packed = math.prod(shape[1:]), 32 // bits

    def draw(row):
      # A word takes as long as a byte to draw.
      words = jax.random.bits(jax.random.fold_in(key, row), (-(-size // packed),))
      return lax.bitcast_convert_type(words, dtype).reshape(-1)[:size]

    draws = jax.vmap(draw)(rows).reshape(shape)
    threshold = jnp.asarray(round(self.rate * 2**bits), dtype)
    scale = jnp.asarray(1 / (1 - self.rate), x.dtype)
    return jnp.where(draws >= threshold, x * scale, jnp.zeros((), x.dtype))


def local_response_norm(x, size=5, alpha=1e-4, k=1.0):
  """Divides x by a power, 3/4, of the mean square of its neighbour channels.

  AlexNet's normalisation as `torch.nn.LocalResponseNorm` defines it: alpha is
  divided by the size, and channels past the ends count as zeros.

  Args:
    x: float [..., C].
    size: channels in the window, `size // 2` of them before its own.
    alpha: weight of the mean square.
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
  # Two square roots: a general power costs several times more on CPU.
  root = lax.rsqrt(k + (alpha / size) * total)
  return (x * (root * jnp.sqrt(root))).astype(x.dtype)


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


@dataclasses.dataclass(frozen=True)
class Kit:
  """The layers that a network is built of.

  Attributes:
    conv: what makes a convolution, as `conv()`.
    norm: class of the batch norms, as `BatchNorm`.
    drop: class of the dropouts, as `Dropout`.
    max_pool: as `ops.max_pool`.
  """

  conv: Callable[..., nn.Module] = conv()  # noqa: RUF009, a function.
  norm: Callable[..., nn.Module] = BatchNorm
  drop: Callable[..., nn.Module] = Dropout
  max_pool: Callable[..., jax.Array] = ops.max_pool
