"""Data parallelism: the only place that knows of devices and their axis."""

import functools
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from agegender_jax import errors
from agegender_jax.runtime import process

AXIS = 'batch'


def replicate(tree, devices: Sequence[jax.Device] | None = None):
  """Copies each leaf to the devices, in its own shape.

  Args:
    tree: of arrays.
    devices: all local ones by default.

  Returns:
    The tree as a pmapped step takes and returns it.
  """
  sharding = _sharding(devices=devices)

  def copy(leaf):
    leaf = np.asarray(leaf)
    # A fresh copy per device: what jax aliases here may be donated.
    return jax.make_array_from_callback(leaf.shape, sharding, lambda _: np.array(leaf))

  return jax.tree.map(copy, tree)


def share(tree, *axes):
  """Puts arrays on all devices, the same on each, or cut along `axes`.

  Left where they are they would be copied at every call.
  """
  return jax.device_put(tree, _sharding(*axes))


def unreplicate(tree):
  """Brings the first device's copy of each leaf to the host, waiting for it.

  Args:
    tree: see `replicate`.

  Returns:
    The tree of NumPy arrays, which nothing else holds: what was brought here
    may be donated.
  """
  first = jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, tree)
  return jax.tree.map(lambda leaf: np.array(leaf), jax.device_get(first))


def host_device() -> jax.Device | None:
  """Returns the host's processor, None where JAX_PLATFORMS leaves it out."""
  try:
    return jax.local_devices(backend='cpu')[0]
  except RuntimeError:
    return None


def cpu_count() -> int:
  """Returns for how many devices JAX takes the CPU, 0 on another backend."""
  return jax.device_count() if jax.default_backend() == 'cpu' else 0


def threads() -> int:
  """Returns how many of the machine's threads each local device has."""
  return max(1, process.num_cores() // jax.local_device_count())


@functools.cache
def cache_bytes() -> int:
  """Returns the size of the processor's last cache, 32 MiB where not known.

  At least 8 MiB and at most 64: what is larger is shared with others.
  """
  files = pathlib.Path('/sys/devices/system/cpu/cpu0/cache').glob('index*/size')
  sizes = [int(path.read_text().strip().removesuffix('K')) for path in files]
  return min(max(max(sizes, default=32 * 2**10), 8 * 2**10), 64 * 2**10) * 2**10


def check_batch_size(name: str, batch_size: int) -> None:
  """Raises errors.UserError unless the devices share the batch evenly."""
  count = jax.device_count()
  if batch_size < 1 or batch_size % count:
    raise errors.UserError(
      f'{name} = {batch_size} is not a multiple of the {count} devices; '
      f'try {max(1, batch_size // count) * count}'
    )


def pmap_train_steps(train_steps: Callable) -> Callable:
  """Compiles `train_steps(state, images, batch, key)` over the devices.

  The batch has the axis of the devices first, see `shard_steps`; all else is the
  same on every device and has its own shape, see `replicate`. Of what is returned
  the first device's value counts, so all of it has to be summed over the axis.
  The state is donated.
  """
  return jax.pmap(
    train_steps,
    axis_name=AXIS,
    in_axes=(None, None, 0, None),
    out_axes=None,
    donate_argnums=(0,),
  )


def pmap_predict_step(step: Callable) -> Callable:
  """Compiles `step(variables, image)` over this process's devices.

  The variables are replicated.
  """
  devices = jax.local_devices()
  return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), devices=devices)


def largest(value: int) -> jax.Array:
  """Begins to find the largest of the processes' values, and does not wait for it."""
  return _pmap_largest()(np.full(jax.local_device_count(), value, np.int32))


@functools.cache
def _pmap_largest():
  return jax.pmap(lambda value: jax.lax.pmax(value, AXIS), AXIS, out_axes=None)


def _sharding(*axes, devices: Sequence[jax.Device] | None = None):
  """Returns the sharding of an array over the devices, or none of them."""
  mesh = jax.sharding.Mesh(np.array(devices or jax.local_devices()), (AXIS,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def shard(array: np.ndarray) -> np.ndarray:
  """Reshapes [B, ...] to [devices, B / devices, ...], no copy."""
  return array.reshape(jax.local_device_count(), -1, *array.shape[1:])


def shard_steps(batch: dict[str, np.ndarray], num_steps: int) -> dict[str, np.ndarray]:
  """Divides the batches of several steps among the devices, no copy.

  Args:
    batch: arrays of [steps * B, ...]; `known`, [steps, K], goes to each device.
    num_steps: how many steps it holds.

  Returns:
    Arrays of [devices, steps, B / devices, ...], as `pmap_train_steps` takes
    them; `known` [devices, steps, K].
  """
  count = jax.local_device_count()

  def divide(key, value):
    if key == 'known':
      return np.broadcast_to(value, (count, *value.shape))
    return value.reshape((num_steps, count, -1) + value.shape[1:]).swapaxes(0, 1)

  return {key: divide(key, value) for key, value in batch.items()}


def unshard(array: jax.Array) -> np.ndarray:
  """Brings [devices, b, ...] to the host as [devices * b, ...]."""
  array = np.asarray(array)
  return array.reshape((-1,) + array.shape[2:])


def global_index(batch_size: int, axis_name: str | None = AXIS) -> jax.Array:
  """Returns int32 [b]: the rows of this device's shard in the global batch.

  Args:
    batch_size: of the shard, b.
    axis_name: of the devices; None where one has the whole batch.
  """
  rows = jnp.arange(batch_size)
  return rows + jax.lax.axis_index(axis_name) * batch_size if axis_name else rows


def mean_over(value, axis_name: str):
  """Averages a value over the devices of an axis, each holding its own."""
  if not _sums_in_order(axis_name):
    return jax.lax.pmean(value, axis_name)
  return _sum_in_order(value, axis_name) / jax.lax.axis_size(axis_name)


def psum(tree):
  """Sums each leaf over the devices; one alone would only copy it."""
  if jax.lax.axis_size(AXIS) == 1:
    return tree
  if not _sums_in_order(AXIS):
    return jax.lax.psum(tree, AXIS)
  return jax.tree.map(lambda leaf: _sum_in_order(leaf, AXIS), tree)


def _sums_in_order(axis_name) -> bool:
  """Returns True where sums take the order of one process, that of the devices.

  Processes of CPUs sum in an order of their own. To gather what is summed sends half
  as many times the bytes as there are devices: only a few are worth it.
  """
  is_own = jax.default_backend() == 'cpu' and jax.process_count() > 1
  return is_own and 2 < jax.lax.axis_size(axis_name) <= process.MOST_IN_ORDER


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sum_in_order(value, axis_name):
  parts = jax.lax.all_gather(value, axis_name)
  # A loop, as XLA would join additions with what follows, and round otherwise.
  return jax.lax.fori_loop(1, len(parts), lambda k, total: total + parts[k], parts[0])


_sum_in_order.defvjp(
  lambda value, axis_name: (_sum_in_order(value, axis_name), None),
  lambda axis_name, _, gradient: (_sum_in_order(gradient, axis_name),),
)
