"""Batches for training and evaluation, prefetched by Grain.

An element of the Grain data set is a whole batch: gathering rows one by one
costs ten times as much. `MapDataset.source` around what we have would keep
statistics of each element, a tenth of a millisecond.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Generator, Sequence

import grain
import numpy as np
from absl import flags

from agegender_jax import config as config_lib
from agegender_jax import errors, schema
from agegender_jax.data import source as source_lib

_READ_AHEAD = 2  # Batches.
# The most by which evening out the ages multiplies how often an image is taken.
_MOST_BY_BALANCE = 10
Batches = Generator[dict[str, np.ndarray], None, None]


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
  """Which rows each step of a training run takes.

  The stream is a function of (seed, step): epoch after epoch in a new order,
  nothing dropped between them.

  An epoch takes each row as often as its weight says: of rows with 0.5 half, other
  ones each time, those with 2 twice.

  Attributes:
    size: number of examples, N.
    batch_size: of a step, over all processes.
    seed: of the order.
    weights: float64 [N], of the rows; None = each once.
  """

  size: int
  batch_size: int
  seed: int
  weights: np.ndarray | None = None

  @property
  def epoch_size(self) -> int:
    """The number of examples of an epoch."""
    return self.size if self.weights is None else int(self.weights.sum() + 0.5)

  def rows(self, steps: range) -> np.ndarray:
    """Returns int64 [steps * B], step after step.

    Position p of the stream is row permutation(seed, p // N)[p % N], with N
    the epoch's size; with weights it is what `_weighted` has at that place.
    """
    positions = np.array(steps)[:, None] * self.batch_size + np.arange(self.batch_size)
    epochs, places = np.divmod(positions.reshape(-1), self.epoch_size)
    rows = np.empty(len(epochs), np.int64)
    for epoch in range(epochs[0], epochs[-1] + 1):
      here = epochs == epoch
      order = _permutation(self.seed, epoch, self.epoch_size)[places[here]]
      rows[here] = order if self.weights is None else self._weighted(epoch)[order]
    return rows

  @functools.lru_cache(maxsize=4)  # noqa: B019, a run has an order or two.
  def _weighted(self, epoch):
    """Returns the rows of an epoch, int64 [epoch_size], by weight."""
    order = _permutation(self.seed, epoch, self.size)
    order = order[np.argsort(self.weights[order], kind='stable')]
    ends = np.cumsum(self.weights[order])[:-1]
    return order[np.searchsorted(ends, np.arange(self.epoch_size) + 0.5)]


def create_order(config, source: source_lib.Source) -> Order:
  """Creates the order of a run's training split.

  Args:
    config: the run's configuration.
    source: the split.

  Raises:
    errors.UserError: data.mix_weights or data.balance_ages that are none.
  """
  weights = np.ones(len(source))
  if source.sizes or config.data.mix_weights.strip():
    weights *= np.repeat(_mix_weights(config, source), source.sizes)
  if config.data.balance_ages:
    first_year = source.labels['age_low']
    weights = _balance_ages(weights, first_year, config.data.balance_ages)
  order = Order(
    len(source),
    config.train.batch_size,
    config.seed,
    weights=None if (weights == 1).all() else weights,
  )
  if len(source) and not order.epoch_size:
    raise errors.UserError(
      f'data.mix_weights = "{config.data.mix_weights}" leaves no image in an epoch'
    )
  return order


def _mix_weights(config, source):
  """Returns the weight of each data set of a mixture."""
  names = config.data.name.split('+') if source.sizes else []
  weights = dict.fromkeys(names, 1.0)
  given = config_lib.parse_factors('data.mix_weights', config.data.mix_weights)
  for name, weight in given.items():
    if name not in weights:
      raise errors.unknown('data set in data.mix_weights', name, names)
    if weight >= 1000:  # An epoch's rows would not fit in memory.
      raise errors.UserError(f'data.mix_weights: {name}={weight:g} must be below 1000')
    weights[name] = weight
  return list(weights.values())


def _balance_ages(weights, first_year, power):
  """Returns weights, float64 [N], that even out the decades: see data.balance_ages."""
  if power > 1:
    raise errors.UserError(f'data.balance_ages = {power:g} must be at most 1')
  known = first_year != schema.UNKNOWN
  if not known.any():
    raise errors.UserError(
      'data.balance_ages needs ages, and none is known: leave it 0'
    )
  decade = np.minimum(first_year[known] // 10, 7)  # Years from 70 on are few.
  before = weights[known]
  balanced = before * np.bincount(decade, before)[decade] ** -float(power)
  balanced *= before.sum() / balanced.sum()
  result = weights.copy()
  result[known] = np.minimum(balanced, _MOST_BY_BALANCE * before)
  return result


def train_batches(
  source: source_lib.Source,
  order: Order,
  calls: Sequence[range],
  num_workers: int = 0,
  with_images: bool = True,
  part: int = 0,
  parts: int = 1,
) -> Batches:
  """Iterates over the batches of calls, each some consecutive steps.

  Args:
    source: the split.
    order: of its rows.
    calls: the steps of each, counted from the start of the run, so that a
      resumed run goes on where it was; see training.schedules.
    num_workers: processes that gather; 0 = a thread. Changes no batch.
    with_images: False leaves `image` out: images stay on the devices.
    part: which contiguous part of each step's batch is wanted.
    parts: into how many a batch is cut.

  Returns:
    Per call a fresh batch, see schema, [steps * B / parts, ...] each, and
    `known`, see count_known. Closing it ends threads and workers.
  """
  make = make_batch if with_images else make_labels

  def batch(call):
    steps = calls[call]
    rows = order.rows(steps)
    own = rows.reshape(len(steps), parts, -1)[:, part].reshape(-1)
    found = make(source, own)
    whole = found if parts == 1 else make_labels(source, rows)
    return found | {'known': count_known(whole, len(steps))}

  return _read_ahead(grain.MapDataset.range(len(calls)).map(batch), num_workers)


def eval_batches(source: source_lib.Source, batch_size: int) -> Batches:
  """Iterates once over every example, in order, in batches of [batch_size, ...].

  Padding is black and has mask 0, labels and row UNKNOWN.
  """

  def batch(step):
    rows = step * batch_size + np.arange(batch_size)
    return make_batch(source, np.where(rows < len(source), rows, schema.UNKNOWN))

  return _read_ahead(grain.MapDataset.range(-(-len(source) // batch_size)).map(batch))


def make_batch(source: source_lib.Source, rows: np.ndarray) -> dict[str, np.ndarray]:
  """Gathers a fresh batch, see schema, of rows, int [B]; UNKNOWN is padding."""
  known = rows != schema.UNKNOWN
  image = source.gather(np.where(known, rows, 0))
  image[~known] = 0
  return make_labels(source, rows) | {'image': image}


def make_labels(source: source_lib.Source, rows: np.ndarray) -> dict[str, np.ndarray]:
  """Gathers what a batch has besides images, see make_batch."""
  known = rows != schema.UNKNOWN
  batch = {key: values[rows] for key, values in source.labels.items()}
  for values in batch.values():
    values[~known] = schema.UNKNOWN
  return batch | {
    'mask': known.astype(np.float32),
    'row': rows.astype(np.int32),
  }


def count_known(batch: dict[str, np.ndarray], num_steps: int) -> np.ndarray:
  """Counts the known labels of global batches, [steps * B] each.

  On the host, so that no device has to wait for another one's count.

  Returns:
    float32 [steps, len(LABELS)], in the order of schema.LABELS.
  """
  known = [schema.known(batch, name) for name in schema.LABELS]
  return np.stack(known, axis=-1).reshape(num_steps, -1, len(known)).sum(1)


@functools.lru_cache(maxsize=4)
def _permutation(seed, epoch, size):
  bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))
  return np.random.Generator(bits).permutation(size)


def _read_ahead(batches, num_workers=0):
  """Yields batches, the next ones being made; closing it ends threads and workers."""
  # Grain's default, 16 threads and 500 elements, is many times slower.
  data = batches.to_iter_dataset(
    grain.ReadOptions(num_threads=1, prefetch_buffer_size=_READ_AHEAD)
  )
  if num_workers:
    if not flags.FLAGS.is_parsed():  # Grain's workers ask for absl flags.
      flags.FLAGS.mark_as_parsed()
    data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers, _READ_AHEAD))
  with contextlib.closing(iter(data)) as iterator:
    yield from iterator
