"""Data parallelism: the only place that knows of devices and their axis."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import jax_utils

from agegender_jax import schema

AXIS = 'batch'

unreplicate = jax_utils.unreplicate


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
  mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))

  def copy(leaf):
    # A fresh array: what jax aliases here may be donated.
    leaf = np.repeat(np.asarray(leaf)[None], len(devices), axis=0)
    return jax.device_put(leaf, sharding)

  return jax.tree.map(copy, tree)


def check_batch_size(name: str, batch_size: int) -> None:
  """Raises schema.UserError unless the devices share the batch evenly."""
  count = jax.device_count()
  if batch_size < 1 or batch_size % count:
    raise schema.UserError(
      f'{name} = {batch_size} is not a multiple of the {count} devices; '
      f'try {max(1, batch_size // count) * count}'
    )


def pmap_train_step(step: Callable) -> Callable:
  """Compiles `step(state, batch, key)`; state is donated, key shared."""
  return jax.pmap(
    step, axis_name=AXIS, in_axes=(0, 0, None), donate_argnums=(0,)
  )


def pmap_predict_step(step: Callable) -> Callable:
  """Compiles `step(variables, image)` over the devices."""
  return jax.pmap(step, axis_name=AXIS)


def shard(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Reshapes each [B, ...] to [devices, B / devices, ...], no copy."""
  count = jax.local_device_count()
  return {
    key: value.reshape((count, value.shape[0] // count) + value.shape[1:])
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


psum = functools.partial(jax.lax.psum, axis_name=AXIS)
