"""What the devices get: the same examples, however they come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, schema
from agegender_jax.data import pipeline
from agegender_jax.data import source as source_lib
from agegender_jax.runtime import devices
from agegender_jax.training import feed, state, steps

BATCH, SEED = 4, 3


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  return source_lib.open_source(
    'synthetic', 'train', data_dir=str(tmp_path_factory.mktemp('data')),
    synthetic_examples=40, image_size=8,
  )  # fmt: skip


def config_of(cache, steps_per_call=1):
  config = config_lib.default_config()
  config.data.cache, config.train.batch_size = cache, BATCH
  config.train.steps_per_call, config.seed = steps_per_call, SEED
  return config


def look(first, batch, key):
  """A train step that reports what it is given."""
  report = {name: (value, value) for name, value in batch.items()}
  return first.replace(step=first.step + 1), report


def seen(source, cache, calls, **options):
  """Returns the batch of each step, as the compiled step has it."""
  compiled = jax.pmap(
    steps.create_train_steps(look), devices.AXIS, in_axes=(0, 0, 0, None)
  )
  now = state.TrainState(
    step=jnp.int32(calls[0].start), params={}, batch_stats={}, opt_state=()
  )
  now, found = devices.replicate(now), []
  stream = feed.Feed(config_of(cache, **options), source, calls)
  for call in calls:
    data, batches = stream.take()
    now, report = compiled(now, data, batches, jax.random.key(0))
    for place in range(len(call)):
      batch = {key: value[:, place] for key, (value, _) in report.items()}
      found.append({k: devices.unshard(v) for k, v in batch.items()})
  stream.close()
  return found


def wanted(source, step):
  order = pipeline.Order(len(source), BATCH, SEED)
  batch = pipeline.make_batch(source, order.rows(range(step, step + 1)))
  known = [
    (batch[name] != schema.UNKNOWN).sum(dtype=np.float32) for name in schema.LABELS
  ]
  return batch | {'known': np.concatenate([known] * jax.device_count())}


def assert_equal(found, expected):
  assert found.keys() == expected.keys()
  for key, values in expected.items():
    np.testing.assert_array_equal(found[key], values)
    assert found[key].dtype == values.dtype


@pytest.mark.parametrize('cache', source_lib.CACHES)
@pytest.mark.parametrize('start', [0, 5])
def test_every_step_finds_its_examples(source, monkeypatch, cache, start):
  # Few steps ahead, so that calls of three cross what is there.
  monkeypatch.setattr(feed, '_STEPS_AHEAD', 7)
  calls = [range(s, s + 3) for s in range(start, 36 + start, 3)]
  calls.append(range(calls[-1].stop, calls[-1].stop + 1))
  found = seen(source, cache, calls, steps_per_call=3)
  assert len(found) == 37
  for step, batch in enumerate(found, start):
    assert_equal(batch, wanted(source, step))


def test_a_call_longer_than_what_goes_ahead(source, monkeypatch):
  monkeypatch.setattr(feed, '_STEPS_AHEAD', 2)
  found = seen(source, 'memmap', [range(1, 6)], steps_per_call=5)
  for step, batch in enumerate(found, 1):
    assert_equal(batch, wanted(source, step))


def test_labels_and_resident_pictures_stay_for_many_calls(source):
  calls = [range(step, step + 1) for step in range(feed._STEPS_AHEAD + 1)]
  stream = feed.Feed(config_of('device'), source, calls)
  taken = [stream.take()[0] for _ in calls]
  assert taken[0]['labels'] is taken[-2]['labels'] is not taken[-1]['labels']
  assert taken[0]['image'] is taken[-2]['image'] is taken[-1]['image']


@pytest.mark.parametrize('cache', source_lib.CACHES)
def test_a_device_takes_one_array_a_call(source, cache):
  # Each more costs every step, however small.
  stream = feed.Feed(config_of(cache), source, [range(1)])
  leaves = jax.tree.leaves(stream.take())
  new = [leaf for leaf in leaves if not isinstance(leaf, jax.Array)]
  assert len(new) == (cache != 'device')
  stream.close()


def test_known_labels_are_counted_by_batch():
  labels = {
    'age': np.array([3, -1, 5, 7, -1, -1], np.float32),
    'age_group': np.array([0, 1, -1, 2, 3, -1], np.int32),
    'gender': np.array([1, 1, 1, -1, -1, -1], np.int32),
    'age_low': np.array([3, 8, 5, 7, 2, -1], np.int32),
    'age_high': np.array([3, 9, 5, 7, 4, -1], np.int32),
    'mask': np.array([1, 1, 0, 1, 1, 0], np.float32),
  }
  found = feed.count_known(labels, 2)
  np.testing.assert_array_equal(found, [[1, 2, 2, 2, 2], [1, 2, 0, 2, 2]])
  assert found.dtype == np.float32


def test_processes_share_what_a_step_takes(source, monkeypatch):
  halves = []
  for index in range(2):
    monkeypatch.setattr(feed.jax, 'process_count', lambda: 2)
    monkeypatch.setattr(feed.jax, 'process_index', lambda index=index: index)
    stream = feed.Feed(config_of('memmap'), source, [range(2, 3)])
    data, batches = stream.take()
    stream.close()
    halves.append(
      {key: value[:, 2] for key, value in data['labels'].items()}
      | {'image': batches['image'][:, 0]}
    )
  for key, values in wanted(source, 2).items():
    parts = [devices.unshard(half[key]) for half in halves]
    # Of the whole batch, on every device of every process.
    for part in parts if key == 'known' else [np.concatenate(parts)]:
      np.testing.assert_array_equal(part, values)


def test_nothing_to_train_is_no_error(source):
  feed.Feed(config_of('memmap'), source, []).close()


def test_pictures_larger_than_a_device_are_refused(source, monkeypatch):
  class Small:
    def memory_stats(self):
      return {'bytes_limit': 1000}

  monkeypatch.setattr(feed.jax, 'local_devices', lambda: [Small()])
  with pytest.raises(errors.UserError, match='cache=memmap or a smaller'):
    feed.Feed(config_of('device'), source, [range(1)])
