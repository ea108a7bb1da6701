"""Data parallelism: the only place that knows of devices and their axis."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from agegender_jax import errors
from agegender_jax.runtime import programs

AXIS = 'batch'


def replicate(tree, devices: Sequence[jax.Device] | None = None):
  """Copies each leaf to the devices, as [devices, ...].

  `flax.jax_utils.replicate` names the axis otherwise than a step's outputs
  have it, and the second step would be traced and compiled once more.

  Args:
    tree: of arrays.
    devices: all local ones by default.

  Returns:
    The tree as a pmapped step takes and returns it.
  """
  devices = devices or jax.local_devices()
  sharding = _sharding(AXIS, devices=devices)

  def copy(leaf):
    leaf = np.asarray(leaf)
    # A fresh copy a device: what jax aliases here may be donated.
    return jax.make_array_from_callback(
      (len(devices), *leaf.shape), sharding, lambda _: np.array(leaf)[None]
    )

  return jax.tree.map(copy, tree)


def place(tree):
  """Hands each device its part of arrays of [devices, ...], to be kept there.

  Args:
    tree: of NumPy arrays, which a device may take as they are.
  """
  return jax.device_put(tree, _sharding(AXIS))


def share(tree):
  """Puts the same arrays on all devices, as a step takes its key.

  Left where they are they would be copied at every call.
  """
  return jax.device_put(tree, _sharding())


def repeat_for_devices(array: np.ndarray) -> np.ndarray:
  """Repeats an array for each device of this process, no copy."""
  return np.broadcast_to(array, (jax.local_device_count(), *array.shape))


def unreplicate(tree):
  """Brings the first device's copy of each leaf to the host, waiting for it.

  `flax.jax_utils.unreplicate` runs a program for every leaf.

  Args:
    tree: of [devices, ...], see `replicate`.

  Returns:
    The tree of NumPy arrays, which nothing else holds: what was brought here
    may be donated.
  """
  first = jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, tree)
  return jax.tree.map(lambda leaf: np.array(leaf[0]), jax.device_get(first))


def is_done(tree) -> bool:
  """Says whether every leaf is computed, without waiting for it."""
  return all(leaf.is_ready() for leaf in jax.tree.leaves(tree))


def host_device() -> jax.Device | None:
  """Returns the host's processor, None where JAX_PLATFORMS leaves it out."""
  try:
    return jax.local_devices(backend='cpu')[0]
  except RuntimeError:
    return None


def has_one_device() -> bool:
  """Says whether one device has this process's processor to itself."""
  return jax.local_device_count() == 1


def check_batch_size(name: str, batch_size: int) -> None:
  """Raises errors.UserError unless the devices share the batch evenly."""
  count = jax.device_count()
  if batch_size < 1 or batch_size % count:
    raise errors.UserError(
      f'{name} = {batch_size} is not a multiple of the {count} devices; '
      f'try {max(1, batch_size // count) * count}'
    )


def pmap_train_steps(steps: Callable, terms: str) -> Callable:
  """Compiles `steps(state, data, batches, key)`, see steps.create_train_steps.

  The state is donated, the key shared; `read` brings the report to the host.

  Args:
    steps: the function.
    terms: what it follows from, see programs.kept.
  """
  pmap = functools.partial(
    jax.pmap, axis_name=AXIS, in_axes=(0, 0, 0, None), donate_argnums=(0,)
  )

  def joined(*args):
    state, report = steps(*args)
    return state, _join(report)

  if not programs.are_kept():
    return pmap(joined)

  # A kept program knows nothing of the state's classes: it is of their leaves.
  @functools.cache
  def compiled(tree):
    def on_leaves(leaves, *args):
      state, report = joined(tree.unflatten(leaves), *args)
      return jax.tree.leaves(state), report

    over, same = _sharding(AXIS), _sharding()
    return programs.kept(
      pmap(on_leaves), f'{terms} {tree}', (over, over, over, same), (0,)
    )

  def train_steps(state, *args):
    leaves, tree = jax.tree.flatten(state)
    leaves, report = compiled(tree)(leaves, *args)
    return tree.unflatten(leaves), report

  return train_steps


def _join(report):
  """Joins {name: (sums, counts)}, float32 [steps] each, to one array.

  A device then hands one array a call to the host, however many metrics.
  """
  pairs = [jnp.stack(pair, axis=-1) for pair in report.values()]
  return {' '.join(report): jnp.stack(pairs, axis=1)}


def read(report: dict[str, jax.Array]) -> dict[str, tuple[np.ndarray, ...]]:
  """Brings the report of `pmap_train_steps` to the host, and waits for it.

  Returns:
    Metric name -> (sums, counts), float32 [steps] each.
  """
  ((names, first),) = unreplicate(report).items()
  return {
    name: (first[:, row, 0], first[:, row, 1]) for row, name in enumerate(names.split())
  }


def pmap_predict_step(step: Callable, terms: str) -> Callable:
  """Compiles `step(variables, image)` over the devices.

  Args:
    step: the function.
    terms: what it follows from, see programs.kept.
  """
  compiled = jax.pmap(step, axis_name=AXIS)
  if not programs.are_kept():
    return compiled
  return programs.kept(compiled, terms, (_sharding(AXIS),) * 2)


def _sharding(*axes, devices: Sequence[jax.Device] | None = None):
  """Returns the sharding of an array over the devices, or none of them."""
  mesh = jax.sharding.Mesh(np.array(devices or jax.local_devices()), (AXIS,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def shard(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Reshapes each [B, ...] to [devices, B / devices, ...], no copy."""
  return {key: value[:, 0] for key, value in shard_steps(batch, 1).items()}


def shard_steps(batch: dict[str, np.ndarray], num_steps: int) -> dict[str, np.ndarray]:
  """Reshapes each [steps * B, ...] to [devices, steps, B / devices, ...].

  Args:
    batch: see schema.
    num_steps: how many steps it holds.

  Returns:
    The same memory, as `pmap_train_steps` takes it.
  """
  count = jax.local_device_count()
  return {
    key: value.reshape((num_steps, count, -1) + value.shape[1:]).swapaxes(0, 1)
    for key, value in batch.items()
  }


def unshard(array: jax.Array) -> np.ndarray:
  """Brings [devices, b, ...] to the host as [devices * b, ...]."""
  array = np.asarray(array)
  return array.reshape((-1,) + array.shape[2:])


def global_index(batch_size: int) -> jax.Array:
  """Returns int32 [b]: the rows of this device's shard in the global batch."""
  start = jax.lax.axis_index(AXIS) * batch_size
  return start + jnp.arange(batch_size)


def with_device_axis(tree):
  """Gives arrays inside of pmap the axis, [1, ...], that they are kept with.

  Scalars stay so: what broadcasts them does not see how they are kept.
  """
  return jax.tree.map(lambda x: x[None] if x.ndim else x, tree)


def without_device_axis(tree):
  """Undoes `with_device_axis`."""
  return jax.tree.map(lambda x: x[0] if x.ndim else x, tree)


def mean_over(value, axis_name: str):
  """Averages a value over the devices of an axis, each holding its own."""
  return jax.lax.pmean(value, axis_name)


def psum(tree):
  """Sums each leaf over the devices; one alone would only copy it."""
  return tree if jax.lax.axis_size(AXIS) == 1 else jax.lax.psum(tree, AXIS)
