"""Layers of a network with what they cost: parameters and FLOPs.

A multiplication and an addition are two FLOPs. As in published counts, only
convolutions and dense layers count, without biases: all else is limited by
memory rather than arithmetic, and 0 here.
"""

import math
import time

import jax
from flax import linen as nn

from agegender_jax import models
from agegender_jax.models import layers

# Of the square matrices that measure the peak; 2048 leave a GPU half idle.
_SIDE, _ACCELERATOR_SIDE = 2048, 8192
_LEAST_SECONDS = 0.1  # Of one measurement: shorter ones time the dispatch.


def layer_table(
  model: nn.Module, input_size: int, is_frozen=lambda path: False
) -> list[dict]:
  """Lists the layers of a network in the order in which they run.

  Modules are listed; pooling, ReLU and flattening are plain functions here,
  without parameters, and show in the next layer's output only.

  Args:
    model: linen module, `__call__(image, train)`.
    input_size: pixels, height and width.
    is_frozen: path of a parameter -> whether training leaves it.

  Returns:
    A dict a layer: `name` (path), `kind` (class), `output` (shape, one
    example's), `parameters`, `flops` (forward), `train_flops` (forward and
    backward), all of one example.
  """
  rows, trained = [], []

  def record(call, args, kwargs, context):
    before = len(rows)
    output = call(*args, **kwargs)
    module = context.module
    # What called no other module is a layer.
    is_relu = isinstance(module, layers.Relu)
    if context.method_name != '__call__' or len(rows) > before or is_relu:
      return output
    parameters = module.variables.get('params', {})
    path = '/'.join(module.path)
    learns = {name: not is_frozen(f'{path}/{name}') for name in parameters}
    flops = _forward_flops(module, args[0].shape, output.shape)
    # The gradient of the kernel where it trains, and that of the input where
    # anything before it does.
    passes = 1 + learns.get('kernel', False) + _follows(path, trained)
    rows.append(
      {
        'name': path,
        'kind': type(module).__name__,
        'output': list(output.shape[1:]),
        'parameters': sum(leaf.size for leaf in parameters.values()),
        'flops': flops,
        'train_flops': passes * flops,
      }
    )
    trained.extend([path] if any(learns.values()) else [])
    return output

  def trace(key):
    with nn.intercept_methods(record):
      return models.init_variables(model, key, input_size)

  jax.eval_shape(trace, jax.random.key(0))
  return rows


def _forward_flops(module, shape, output_shape) -> int:
  """Counts a layer's FLOPs for one example, taps in the padding included."""
  values = math.prod(output_shape[1:])
  if isinstance(module, nn.Conv):
    taps = math.prod(module.kernel_size)
    return 2 * values * taps * (shape[-1] // module.feature_group_count)
  if isinstance(module, nn.Dense):
    return 2 * values * shape[-1]
  return 0


def _follows(path: str, earlier: list[str]) -> bool:
  """Returns True if one of the earlier layers feeds the one at `path`.

  All do but those of another task's branch.
  """
  top = path.split('/')[0]
  return any(
    name.split('/')[0] == top or not name.startswith('branch_') for name in earlier
  )


def matmul_peak(dtype='float32') -> float:
  """Measures the FLOP/s of a large matrix product on all devices.

  Host devices share their cores: there one device's product is the machine's.

  Args:
    dtype: of the matrices.

  Returns:
    FLOP/s, the best of a few; takes about half a second.
  """
  is_cpu = jax.default_backend() == 'cpu'
  side = _SIDE if is_cpu else _ACCELERATOR_SIDE
  matrix = jax.random.normal(jax.random.key(0), (side, side)) / side**0.5
  matrix = matrix.astype(dtype)

  def run(matrix, count):
    return jax.lax.fori_loop(0, count, lambda _, x: x @ matrix, matrix)

  chain = jax.jit(run).lower(matrix, 1).compile()

  def seconds(count):
    start = time.perf_counter()
    chain(matrix, count).block_until_ready()
    return time.perf_counter() - start

  first = seconds(1)
  count = max(1, round(_LEAST_SECONDS / first))
  # Of a machine so slow or busy, one more measurement must do.
  rounds = 3 if first < 0.3 else 1
  best = min(first, *(seconds(count) / count for _ in range(rounds)))
  devices = 1 if is_cpu else jax.device_count()
  return devices * 2 * side**3 / best
