"""Batches for training and evaluation, read ahead by Grain.

An element of the Grain data set is a whole batch: gathering rows one by one
costs ten times as much.
"""

import functools
from collections.abc import Sequence

import grain
import numpy as np
from absl import flags

from agegender_jax import schema
from agegender_jax.data import sources

_READ_AHEAD = 2  # Batches.


class Batches:
  """An iterator over batches; close it to end its threads and workers."""

  def __init__(self, iterator):
    self._iterator = iterator

  def __iter__(self):
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if self._iterator is None:
      raise StopIteration
    try:
      return next(self._iterator)
    except StopIteration:
      self.close()
      raise

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self.close()

  def close(self) -> None:
    """Ends reading ahead; further batches there are none."""
    if self._iterator is not None:
      self._iterator.close()
      self._iterator = None


class _TrainCalls:
  """Random access by call to the batches of an endless reshuffled stream."""

  def __init__(self, source, calls, batch_size, seed, local, rows_only):
    self._source = source
    self._calls = calls
    self._batch_size = batch_size
    self._seed = seed
    self._local = local
    self._rows_only = rows_only

  def __len__(self):
    return len(self._calls)

  def __getitem__(self, call):
    steps = np.array(self._calls[call])
    positions = steps[:, None] * self._batch_size + np.arange(self._batch_size)
    positions = positions[:, self._local].reshape(-1)
    rows = train_rows(positions, len(self._source), self._seed)
    if not self._rows_only:
      return make_batch(self._source, rows)
    return {
      'row': rows.astype(np.int32),
      'mask': np.ones(len(rows), np.float32),
    }


class _EvalSteps:
  """Random access by step to the batches of one pass, the tail padded."""

  def __init__(self, source, batch_size, local):
    self._source = source
    self._batch_size = batch_size
    self._local = local

  def __len__(self):
    return -(-len(self._source) // self._batch_size)

  def __getitem__(self, step):
    rows = step * self._batch_size + np.arange(self._batch_size)
    rows = rows[self._local]
    return make_batch(
      self._source, np.where(rows < len(self._source), rows, schema.UNKNOWN)
    )


def train_batches(
  source: sources.Source,
  calls: Sequence[range],
  *,
  batch_size: int,
  seed: int,
  rows_only: bool = False,
  num_workers: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """Iterates over the batches of calls, each some consecutive steps.

  The stream is a function of (seed, step): epoch after epoch in a new order,
  nothing dropped between them.

  Args:
    source: the split.
    calls: the steps of each, counted from the start of the run, so that a
      resumed run goes on where it was; see durations.
    batch_size: of a step, over all processes.
    seed: of the order.
    rows_only: leave out pictures and labels, which the device has.
    num_workers: processes that gather; 0 = a thread. Changes no batch.
    process_index: which contiguous part of each batch to return.
    process_count: into how many parts each batch is cut.

  Returns:
    A batch a call with the keys of schema.BATCH_KEYS, step after step:
    [steps * B / process_count, ...]. With `rows_only` just row and mask.
  """
  local = _local_part(batch_size, process_index, process_count)
  batches = _TrainCalls(source, calls, batch_size, seed, local, rows_only)
  return _read_ahead(batches, num_workers)


def eval_batches(
  source: sources.Source,
  *,
  batch_size: int,
  num_workers: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """Iterates once over every example, in order; padding has mask 0.

  Args:
    source: the split.
    batch_size: over all processes.
    num_workers: processes that gather; 0 = a thread.
    process_index: which contiguous part of each batch to return.
    process_count: into how many parts each batch is cut.

  Returns:
    Batches with the keys of schema.BATCH_KEYS, [B / process_count, ...];
    padding is black, with labels and row UNKNOWN.
  """
  local = _local_part(batch_size, process_index, process_count)
  return _read_ahead(_EvalSteps(source, batch_size, local), num_workers)


def train_rows(positions: np.ndarray, size: int, seed: int) -> np.ndarray:
  """Maps positions of the endless stream to rows.

  Args:
    positions: int [B], 0 for the first example ever seen.
    size: number of examples, N.
    seed: of the order.

  Returns:
    int64 [B]: position p is row permutation(seed, p // N)[p % N].
  """
  epochs, places = np.divmod(positions, size)
  rows = np.empty(len(positions), np.int64)
  for epoch in np.unique(epochs):
    here = epochs == epoch
    rows[here] = _permutation(seed, int(epoch), size)[places[here]]
  return rows


def make_batch(
  source: sources.Source, rows: np.ndarray
) -> dict[str, np.ndarray]:
  """Gathers a batch; rows of UNKNOWN are padding.

  Args:
    source: the split.
    rows: int [B].

  Returns:
    A fresh batch dict, see schema.
  """
  known = rows != schema.UNKNOWN
  image = source.gather(np.where(known, rows, 0))
  image[~known] = 0
  batch = {
    key: np.where(known, values[rows], schema.UNKNOWN).astype(values.dtype)
    for key, values in source.labels.items()
  }
  return batch | {
    'image': image,
    'mask': known.astype(np.float32),
    'row': rows.astype(np.int32),
  }


@functools.lru_cache(maxsize=4)
def _permutation(seed, epoch, size):
  bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))
  return np.random.Generator(bits).permutation(size)


def _local_part(batch_size, process_index, process_count):
  if batch_size % process_count:
    raise schema.UserError(
      f'the batch size {batch_size} is not divisible by the {process_count} '
      f'processes'
    )
  size = batch_size // process_count
  return slice(process_index * size, (process_index + 1) * size)


def _read_ahead(batches, num_workers):
  if not len(batches):
    return Batches(None)
  data = grain.MapDataset.source(batches)
  # Grain's default, 16 threads and 500 elements, is many times slower.
  data = data.to_iter_dataset(
    grain.ReadOptions(num_threads=1, prefetch_buffer_size=_READ_AHEAD)
  )
  if num_workers:
    if not flags.FLAGS.is_parsed():  # Grain's workers ask for absl flags.
      flags.FLAGS.mark_as_parsed()
    data = data.mp_prefetch(
      grain.MultiprocessingOptions(num_workers, _READ_AHEAD)
    )
  return Batches(iter(data))
