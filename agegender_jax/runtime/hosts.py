"""What the processes of a run agree upon, on JAX's distributed runtime.

Process 0 prepares the data, saves, logs and scores; the others hold their part of
the batch and write nothing. With one process every function here does nothing.
"""

import collections
import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # JAX's public barrier is a collective.
from jax.experimental import multihost_utils

from agegender_jax import errors
from agegender_jax.runtime import cluster, devices

# Seconds that others wait while process 0 prepares, saves or scores; that it lives
# its heartbeat tells.
_LONGEST_WAIT = 7 * 24 * 3600
_BARRIERS = itertools.count()


def join(config, found: tuple[str, int, int]) -> int:
  """Joins the processes of a run, before JAX looks at its devices.

  Args:
    config: the block `config.distributed`.
    found: see cluster.find.

  Returns:
    Their number.

  Raises:
    errors.UserError: the others cannot be reached.
  """
  address, number, index = found
  where = {} if address == cluster.AUTO else {
    'coordinator_address': address, 'num_processes': number, 'process_id': index,
    'cluster_detection_method': 'deactivate',
  }  # fmt: skip
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  # It would take SIGTERM away from runtime.stop.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(
      **where,
      initialization_timeout=config.initialization_timeout_seconds,
      heartbeat_timeout_seconds=config.heartbeat_timeout_seconds,
      shutdown_timeout_seconds=_LONGEST_WAIT,
    )
  except (RuntimeError, ValueError) as error:
    reason = errors.one_line(error)
    if address == cluster.AUTO and isinstance(error, ValueError):
      reason = 'JAX finds no SLURM, Open MPI, Kubernetes or TPU here'
    raise errors.UserError(
      f'no connection to the coordinator {address} of the processes: {reason}'
    ) from None
  return distributed.global_state.num_processes


def check_devices() -> None:
  """Raises errors.UserError unless all processes have the same devices.

  From here on only process 0 prints to stdout.
  """
  kinds = collections.Counter((d.process_index, d.device_kind) for d in jax.devices())
  if len({(kind, number) for (_, kind), number in kinds.items()}) > 1:
    text = ', '.join(f'{p}: {n} x {kind}' for (p, kind), n in sorted(kinds.items()))
    raise errors.UserError(f'the processes have other devices than process 0: {text}')
  if not is_first():
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def count() -> int:
  """Returns the number of processes."""
  return jax.process_count()


def is_first() -> bool:
  """Returns True in process 0, the one that writes."""
  return jax.process_index() == 0


class Silent:
  """What the other processes have in place of what process 0 writes with."""

  def __getattr__(self, name):
    return lambda *args, **kwargs: None


def barrier() -> None:
  """Waits for all processes, however long one of them takes."""
  if count() > 1:
    name = f'agegender_jax/{next(_BARRIERS)}'
    distributed.global_state.client.wait_at_barrier(name, _LONGEST_WAIT * 1000)


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
  """Runs the body in process 0, then in the others, which find what it made."""
  if not is_first():
    barrier()
  yield
  if is_first():
    barrier()


def gather(tree):
  """Joins NumPy arrays [n, ...] of all processes to [processes * n, ...]."""
  return multihost_utils.process_allgather(tree, tiled=True) if count() > 1 else tree


def gather_json(value) -> list[Any]:
  """Returns what each process passes, which JSON can hold, by process."""
  if count() == 1:
    return [value]
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = gather(np.array([len(text)], np.int32))
  texts = gather(np.resize(text, (1, sizes.max())))
  pairs = zip(texts, sizes, strict=True)
  return [json.loads(row[:size].tobytes()) for row, size in pairs]


def ask_first(function: Callable, *args) -> Any:
  """Returns what a function returns in process 0, the only one that calls it.

  Args:
    function: returns what JSON can hold.
    *args: of the function.
  """
  value = function(*args) if is_first() else None
  barrier()
  return gather_json(value)[0]


def broadcast(tree):
  """Returns process 0's arrays, to the bit; the others' have the same shapes."""
  if count() == 1:
    return tree
  leaves, structure = jax.tree.flatten(tree)
  leaves = [np.array(leaf) for leaf in leaves]
  barrier()
  # As bytes: in a sum with zeros a zero would lose its sign.
  content = np.concatenate([leaf.reshape(-1).view(np.uint8) for leaf in leaves])
  content = np.array(multihost_utils.broadcast_one_to_all(content))
  parts = np.split(content, np.cumsum([leaf.nbytes for leaf in leaves])[:-1])
  pairs = zip(parts, leaves, strict=True)
  return structure.unflatten(
    [part.view(leaf.dtype).reshape(leaf.shape) for part, leaf in pairs]
  )


def check_same(values: Mapping[str, Any]) -> None:
  """Raises errors.UserError unless all processes pass what process 0 does.

  Args:
    values: name -> what JSON can hold.
  """
  rows = gather_json(dict(values))
  for index, row in enumerate(rows):
    for name, value in rows[0].items():
      if row[name] != value:
        raise errors.UserError(
          f'{name} is {row[name]!r} in process {index} and {value!r} in process 0: '
          'give all the same flags, data and versions'
        )


class Vote:
  """Has all processes hear of a stop signal at the same step."""

  def __init__(self, lag: int):
    """Begins; a vote is read `lag` calls later, so that nobody waits for it.

    On CPUs it is waited for: sums that several programs take at once would meet.
    """
    self._lag = 0 if jax.default_backend() == 'cpu' else lag
    self._votes: collections.deque[jax.Array] = collections.deque()

  def largest(self, value: int, result) -> int:
    """Returns the largest value that a process voted `lag` calls ago, 0 before.

    Args:
      value: the vote.
      result: of the step that goes before it.
    """
    if count() == 1:
      return value
    if not self._lag:
      jax.block_until_ready(result)
    self._votes.append(devices.largest(value))
    return int(self._votes.popleft()) if len(self._votes) > self._lag else 0


def shut_down() -> None:
  """Waits for all processes, and leaves them."""
  if count() > 1:
    jax.distributed.shutdown()
