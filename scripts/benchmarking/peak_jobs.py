"""What a worker process times of the machine: its two limits."""

import time

import jax
import jax.numpy as jnp

from agegender_jax.models import flops

_VALUES = 2**25  # 128 MiB an array: more than a CPU's caches hold.
_TRIALS, _CALLS = 3, 5


class Peaks:
  """Matrix products and the memory's triad, each the best of several."""

  def __init__(self, task: dict, config):
    del task
    device = jax.devices()[0]
    self.dtype = config.model.dtype
    self.arrays = [jnp.full(_VALUES, value) for value in (1.0, 2.0)]
    self.triad = jax.jit(lambda a, b: a + 2 * b)
    self.facts = {
      'peer': 'ours',
      'formulation': 'peaks',
      'platform': device.platform,
      'device_kind': device.device_kind,
      'devices': jax.device_count(),
      'versions': {},
    }

  def device_memory(self) -> None:
    """Says nothing: memory is not what this is about."""

  def run(self, count: int) -> dict[str, float]:
    """Measures both, whatever the count.

    Returns:
      `matmul`, FLOP/s on all devices; `memory`, bytes/s of one device, read
      and written.
    """
    del count
    seconds = []
    for _ in range(_TRIALS):
      start = time.perf_counter()
      result, other = self.arrays
      for _ in range(_CALLS):  # A GPU is done before the host has asked.
        result = self.triad(result, other)
      result.block_until_ready()
      seconds.append((time.perf_counter() - start) / _CALLS)
    return {
      'matmul': flops.matmul_peak(self.dtype),
      'memory': 3 * self.arrays[0].nbytes / min(seconds),
    }


JOBS = {'peaks': Peaks}
