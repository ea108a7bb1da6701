"""What the devices get for the steps of a run, and when.

Labels are small and go many steps ahead; pictures go call by call, or lie on
the devices from the start (`data.cache=device`), and then the host sends
labels and rows now and then, and nothing else.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from agegender_jax import errors, schema
from agegender_jax.data import pipeline
from agegender_jax.data import source as source_lib
from agegender_jax.runtime import devices

# JAX takes as long to hand over a small array as a large one.
_STEPS_AHEAD = 256
# Of a device's memory, what the pictures may take; the rest is for training.
_LARGEST_SHARE = 0.7


class Feed:
  """Hands the devices what each call needs; close it to end its threads."""

  def __init__(self, config, source: source_lib.Source, calls: Sequence[range]):
    """Begins to read ahead.

    Args:
      config: the run's configuration.
      source: the training split.
      calls: the steps of each, see durations.

    Raises:
      errors.UserError: the devices have too little memory for the pictures.
    """
    self._source = source
    self._order = pipeline.Order(
      len(source),
      config.train.batch_size,
      config.seed,
      jax.process_index(),
      jax.process_count(),
    )
    self._whole_order = dataclasses.replace(
      self._order, process_index=0, process_count=1
    )
    self._calls = iter(calls)
    self._data, self._ahead = {}, range(0)
    # The same for every start: another number is another program.
    self._num_steps = max(_STEPS_AHEAD, config.train.steps_per_call)
    self._pictures = None
    if config.data.cache == 'device':
      self._data['image'] = _load(source)
    else:
      self._pictures = pipeline.train_pictures(
        source, self._order, calls, config.data.num_workers
      )

  def take(self) -> tuple[dict, dict]:
    """Returns `data` and `batches` of the next call.

    Returns:
      See steps.create_train_steps; the axis of the devices comes first.
    """
    call = next(self._calls)
    if call.stop > self._ahead.stop:
      self._ahead = range(call.start, call.start + self._num_steps)
      labels = {
        order: pipeline.make_labels(self._source, order.rows(self._ahead))
        for order in {self._order, self._whole_order}  # One, in one process.
      }
      self._data['labels'] = place_labels(
        labels[self._order], labels[self._whole_order], self._ahead
      )
    if self._pictures is None:
      return dict(self._data), _turns(len(call))
    image = next(self._pictures)
    return dict(self._data), devices.shard_steps({'image': image}, len(call))

  def close(self) -> None:
    """Ends reading ahead."""
    if self._pictures is not None:
      self._pictures.close()


def place_labels(
  labels: dict[str, np.ndarray], whole: dict[str, np.ndarray], steps: range
) -> dict[str, jax.Array]:
  """Puts labels on the devices, where steps.create_train_steps finds them.

  Args:
    labels: a batch without pictures, [steps * B] each.
    whole: the same over all processes.
    steps: whose they are.

  Returns:
    [devices, steps, B / devices] each, step s at s % number of steps; and
    `known`, [devices, steps, 5], see `count_known`.
  """
  placed = devices.shard_steps(labels, len(steps))
  known = count_known(whole, len(steps))
  placed['known'] = devices.repeat_for_devices(known)
  first = steps.start % len(steps)
  return devices.place(
    {key: np.roll(value, first, axis=1) for key, value in placed.items()}
  )


def count_known(labels: dict[str, np.ndarray], num_steps: int) -> np.ndarray:
  """Counts the examples of each global batch whose label is known.

  Devices that asked each other would wait until the last one comes that far.

  Args:
    labels: global batches without pictures, [steps * B] each.
    num_steps: how many steps they hold.

  Returns:
    float32 [steps, 5], in the order of schema.LABELS.
  """
  known = [schema.known(labels, name) for name in schema.LABELS]
  return np.stack(known, axis=-1).reshape(num_steps, -1, len(known)).sum(1)


@functools.cache
def _turns(num_steps):
  """Returns batches of nothing but their number."""
  shape = jax.local_device_count(), num_steps
  return devices.place({'turn': np.zeros(shape, np.int32)})


def _load(source):
  """Returns the pictures of a split, uint8 [devices, N, S, S, 3]."""
  shape = source.gather(np.zeros(1, np.int64)).shape[1:]
  needed = len(source) * int(np.prod(shape))
  statistics = jax.local_devices()[0].memory_stats() or {}
  available = statistics.get('bytes_limit')
  if available and needed > _LARGEST_SHARE * available:
    raise errors.UserError(
      f'data.cache=device needs {needed / 1e9:.1f} GB a device for '
      f'{len(source)} pictures and each has {available / 1e9:.1f} GB: use '
      '--config.data.cache=memmap or a smaller image_size'
    )
  return devices.replicate(source.gather(np.arange(len(source))))
