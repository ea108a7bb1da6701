import contextlib

import faces_on_disk
import jax
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, schema
from agegender_jax.data import pipeline
from agegender_jax.data import source as source_lib

N = 23


class Numbered:
  """A source whose image of row r is r everywhere."""

  def __init__(self, size=N):
    rows = np.arange(size)
    self.labels = {
      'age': (rows + 0.5).astype(np.float32),
      'age_group': (rows % 8).astype(np.int32),
      'gender': (rows % 2).astype(np.int32),
      'age_low': rows.astype(np.int32),
      'age_high': rows.astype(np.int32),
    }
    self.size = size

  def __len__(self):
    return self.size

  def gather(self, rows):
    return np.broadcast_to(
      np.asarray(rows, np.uint8)[:, None, None, None], (len(rows), 2, 2, 3)
    ).copy()


def single(steps, start=0):
  return [range(step, step + 1) for step in range(start, steps)]


def train(source=None, calls=None, batch_size=8, seed=3, **options):
  """Returns the batches of a run, without `known`."""
  source = source or Numbered()
  order = pipeline.Order(len(source), batch_size, seed)
  calls = single(12) if calls is None else calls
  batches = list(pipeline.train_batches(source, order, calls, **options))
  for call, batch in zip(calls, batches, strict=True):
    assert batch.pop('known').shape == (len(call), len(schema.LABELS))
  return batches


def assert_equal(first, second):
  assert len(first) == len(second)
  for one, other in zip(first, second, strict=True):
    assert one.keys() == other.keys()
    for key in one:
      np.testing.assert_array_equal(one[key], other[key])
      assert one[key].dtype == other[key].dtype


def test_images_and_labels_follow_the_contract():
  batches = train()
  assert len(batches) == 12
  for batch in batches:
    assert sorted(batch) == sorted(schema.BATCH_KEYS)
    rows = batch['row']
    assert [batch[key].dtype.name for key in schema.BATCH_KEYS] == [
      'uint8', 'float32', 'int32', 'int32', 'int32', 'int32', 'float32', 'int32',
    ]  # fmt: skip
    np.testing.assert_array_equal(batch['image'][:, 1, 1, 2], rows)
    np.testing.assert_array_equal(batch['age'], rows + np.float32(0.5))
    np.testing.assert_array_equal(batch['gender'], rows % 2)
    np.testing.assert_array_equal(batch['age_group'], rows % 8)
    np.testing.assert_array_equal(batch['mask'], np.ones(8))


def test_every_epoch_has_every_example_once_in_a_new_order():
  # 8 x 23 / 8 = 23 steps are exactly eight epochs, borders inside batches.
  rows = np.concatenate([b['row'] for b in train(calls=single(23))])
  epochs = rows.reshape(8, N)
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(N))
  assert len({tuple(epoch) for epoch in epochs}) == 8


def test_order_depends_on_the_seed_only():
  assert_equal(train(), train())
  assert (train()[0]['row'] != train(seed=4)[0]['row']).any()


def test_batch_larger_than_the_split():
  batches = train(calls=single(3), batch_size=50)
  rows = np.concatenate([batch['row'] for batch in batches])
  for start in range(0, 150 - N, N):
    part = rows[start : start + N]
    np.testing.assert_array_equal(np.sort(part), np.arange(N))


@pytest.mark.parametrize('start', [0, 1, 5, 11, 12, 13])
def test_resumed_stream_goes_on_where_it_was(start):
  assert_equal(train(calls=single(12, start)), train()[start:])


class Years:
  """A split of which only the first years of the labels count."""

  sizes = ()

  def __init__(self, counts):
    self.labels = {'age_low': np.repeat([*counts], [*counts.values()])}

  def __len__(self):
    return len(self.labels['age_low'])


@pytest.mark.parametrize(
  'power, sizes, counts, wanted',
  [
    (0.5, (), {25: 64, 8: 16, 93: 3, 71: 1}, (48, 24, 12)),
    (1.0, (), {25: 64, 8: 16, 93: 3, 71: 1}, (28, 28, 28)),
    # The first set, of half weight, has the rows of the twenties.
    (1.0, (64, 20), {25: 64, 8: 16, 93: 3, 71: 1}, (52 / 3,) * 3),
    # Labels that are not known are taken as before, and no image over ten times.
    (1.0, (), {25: 900, 8: 99, 80: 1, -1: 10}, (1000 / 3, 1000 / 3, 10)),
  ],
)
def test_an_epoch_evens_out_the_decades_of_age(power, sizes, counts, wanted):
  source, config = Years(counts), config_lib.default_config()
  source.sizes, config.data.balance_ages = sizes, power
  if sizes:
    config.data.name = 'utkface+fairface'
    config.data.mix_weights = 'utkface=0.5'
  order = pipeline.create_order(config, source)
  assert abs(order.epoch_size - sum(wanted) - counts.get(-1, 0)) <= 1
  size = order.epoch_size
  stream = order.rows(range(5 * size))
  for rows in (stream[:size], stream[-size:]):  # Whole epochs: 64 examples a step.
    years = source.labels['age_low'][rows]
    found = [(years == 25).sum(), (years == 8).sum(), (years >= 70).sum()]
    assert np.abs(np.subtract(found, wanted)).max() <= 1
    assert (years == -1).sum() == counts.get(-1, 0)
  assert not np.array_equal(np.sort(stream[:size]), np.sort(stream[-size:]))


def test_more_than_even_ages_are_refused():
  config = config_lib.default_config()
  config.data.balance_ages = 1.5
  with pytest.raises(errors.UserError, match='balance_ages = 1.5 must be at most 1'):
    pipeline.create_order(config, Years({25: 3}))


def test_ages_that_are_not_known_are_not_evened_out():
  config = config_lib.default_config()
  config.data.balance_ages = 0.5
  with pytest.raises(errors.UserError, match='balance_ages needs ages'):
    pipeline.create_order(config, Years({-1: 3}))


def test_processes_share_each_batch():
  parts = [train(part=i, parts=2) for i in range(2)]
  for whole, left, right in zip(train(), *parts, strict=True):
    for key in whole:
      np.testing.assert_array_equal(whole[key], np.concatenate([left[key], right[key]]))


def test_a_call_has_the_batches_of_its_steps():
  calls = [range(0, 4), range(4, 5), range(5, 9)]
  found, expected = train(calls=calls), train()
  for call, batch in zip(calls, found, strict=True):
    for key, values in batch.items():
      np.testing.assert_array_equal(
        values, np.concatenate([expected[step][key] for step in call])
      )


def test_images_are_fresh_arrays():
  order = pipeline.Order(N, batch_size=8, seed=3)
  it = pipeline.train_batches(Numbered(), order, single(12))
  with contextlib.closing(it):
    kept = [next(it) for _ in range(6)]
    for batch in kept[:5]:
      batch['image'][...] = 0
    np.testing.assert_array_equal(kept[5]['image'], train()[5]['image'])


def test_known_labels_are_counted_by_batch():
  labels = {
    'age': np.array([3, -1, 5, 7, -1, -1], np.float32),
    'age_group': np.array([0, 1, -1, 2, 3, -1], np.int32),
    'gender': np.array([1, 1, 1, -1, -1, -1], np.int32),
    'age_low': np.array([3, 8, 5, 7, 2, -1], np.int32),
    'age_high': np.array([3, 9, 5, 7, 4, -1], np.int32),
    'mask': np.array([1, 1, 0, 1, 1, 0], np.float32),
  }
  found = pipeline.count_known(labels, 2)
  np.testing.assert_array_equal(found, [[1, 2, 2, 2, 2], [1, 2, 0, 2, 2]])
  assert found.dtype == np.float32


def test_known_labels_are_those_of_all_processes():
  order, calls = pipeline.Order(N, batch_size=8, seed=3), single(2)
  it = pipeline.train_batches(Numbered(), order, calls, 0, False, part=1, parts=2)
  with contextlib.closing(it):
    batch = next(it)
  assert len(batch['row']) == 4 and 'image' not in batch
  np.testing.assert_array_equal(batch['known'], [[8] * 5])


def test_nothing_to_train_is_no_error():
  order = pipeline.Order(N, batch_size=8, seed=3)
  pipeline.train_batches(Numbered(), order, []).close()


@pytest.mark.parametrize('size', [1, 7, 8, 9, N])
def test_eval_batches_score_every_example_once(size):
  batches = list(pipeline.eval_batches(Numbered(size), batch_size=8))
  assert len(batches) == -(-size // 8)
  rows = np.concatenate([b['row'] for b in batches])
  mask = np.concatenate([b['mask'] for b in batches])
  assert len(rows) % 8 == 0 and mask.sum() == size
  np.testing.assert_array_equal(rows[mask == 1], np.arange(size))
  for key in ('row', 'age', 'gender', 'age_group'):
    values = np.concatenate([b[key] for b in batches])
    assert (values[mask == 0] == schema.UNKNOWN).all()
  image = np.concatenate([b['image'] for b in batches])
  assert not image[mask == 0].any()


def open_faces(folder, kind):
  faces_on_disk.write_utkface(folder / 'raw', N)
  return faces_on_disk.open_source(
    'utkface', 'all', source_dir=str(folder / 'raw'), cache=kind,
    data_dir=str(folder / 'prepared'), image_size=16,
  )  # fmt: skip


@pytest.mark.parametrize('kind', ['memmap', 'none'])
def test_a_cpu_device_takes_images_without_a_copy(tmp_path, kind):
  source = open_faces(tmp_path, kind)
  kept = []  # So that no batch gets the memory of another.
  for count in range(1, 9):
    image = source.gather(np.arange(count))
    kept.append((image, jax.device_put(image)))
    assert kept[-1][1].unsafe_buffer_pointer() == image.ctypes.data


@pytest.mark.parametrize('kind', source_lib.CACHES)
def test_workers_change_no_batch(tmp_path, kind):
  source = open_faces(tmp_path, kind)
  expected = train(source)
  num_workers = 2 if kind == 'memmap' else 1
  assert_equal(train(source, num_workers=num_workers), expected)


def test_closing_early_ends_the_stream():
  order = pipeline.Order(N, batch_size=8, seed=0)
  batches = pipeline.train_batches(Numbered(), order, single(1000))
  next(batches)
  batches.close()
  batches.close()
  assert list(batches) == []
