"""What the devices get: the same examples, however they come."""

import jax
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import feed, parallel, schema
from agegender_jax.data import input_pipeline, sources

BATCH, SEED = 4, 3
LABELS = tuple(key for key in schema.BATCH_KEYS if key != 'image')


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  return sources.open_source(
    'synthetic', 'train', data_dir=str(tmp_path_factory.mktemp('data')),
    synthetic_examples=40, image_size=8,
  )  # fmt: skip


def config_of(cache):
  config = config_lib.default_config()
  config.data.cache, config.train.batch_size = cache, BATCH
  config.seed = SEED
  return config


def fed(source, cache, calls):
  """Yields the batch of each step as a device's program finds it."""
  stream = feed.Feed(config_of(cache), source, calls)
  for call in calls:
    data, batches = stream.take(call)
    lengths = {leaf.shape[:2] for leaf in jax.tree.leaves(batches)}
    assert lengths == {(jax.local_device_count(), len(call))}
    for place, step in enumerate(call):
      batch = {
        key: values[:, step % values.shape[1]]
        for key, values in data['labels'].items()
      }
      if cache == 'device':
        rows = np.asarray(batch['row'])
        batch['image'] = np.asarray(data['image'])[:, rows[0]]
        for device, part in enumerate(rows):
          batch['image'][device] = data['image'][device][part]
      else:
        batch['image'] = batches['image'][:, place]
      yield {key: parallel.unshard(value) for key, value in batch.items()}
  stream.close()


@pytest.mark.parametrize('cache', sources.CACHES)
@pytest.mark.parametrize('start', [0, 5])
def test_every_step_finds_its_examples(source, monkeypatch, cache, start):
  # Few steps ahead, so that calls of three cross what is there.
  monkeypatch.setattr(feed, '_STEPS_AHEAD', 7)
  calls = [range(s, s + 3) for s in range(start, 36 + start, 3)]
  calls.append(range(calls[-1].stop, calls[-1].stop + 1))
  order = input_pipeline.Order(len(source), BATCH, SEED)
  steps = range(start, calls[-1].stop)
  for step, found in zip(steps, fed(source, cache, calls), strict=True):
    rows = order.rows(range(step, step + 1))
    expected = input_pipeline.make_batch(source, rows)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
      np.testing.assert_array_equal(found[key], values)
      assert found[key].dtype == values.dtype


def test_a_call_longer_than_what_goes_ahead(source, monkeypatch):
  monkeypatch.setattr(feed, '_STEPS_AHEAD', 2)
  calls = [range(1, 6)]
  rows = np.concatenate([b['row'] for b in fed(source, 'memmap', calls)])
  order = input_pipeline.Order(len(source), BATCH, SEED)
  np.testing.assert_array_equal(rows, order.rows(calls[0]))


def test_labels_and_resident_pictures_stay_for_many_calls(source):
  calls = [range(step, step + 1) for step in range(feed._STEPS_AHEAD + 1)]
  stream = feed.Feed(config_of('device'), source, calls)
  first, again, later = (
    dict(stream.take(calls[step])[0]) for step in (0, 1, len(calls) - 1)
  )
  assert again['labels'] is first['labels'] is not later['labels']
  assert again['image'] is first['image'] is later['image']


def test_a_device_takes_one_array_a_call(source):
  # Each more costs every step, however small.
  for cache in sources.CACHES:
    stream = feed.Feed(config_of(cache), source, [range(1)])
    data, batches = stream.take(range(1))
    new = [x for x in jax.tree.leaves((data, batches))
           if not isinstance(x, jax.Array)]  # fmt: skip
    assert len(new) == (cache != 'device')
    stream.close()


def test_nothing_to_train_is_no_error(source):
  feed.Feed(config_of('memmap'), source, []).close()


def test_pictures_larger_than_a_device_are_refused(source, monkeypatch):
  class Small:
    def memory_stats(self):
      return {'bytes_limit': 1000}

  monkeypatch.setattr(feed.jax, 'local_devices', lambda: [Small()])
  with pytest.raises(schema.UserError, match='cache=memmap or a smaller'):
    feed.Feed(config_of('device'), source, [range(1)])
