import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import types

import faces_on_disk
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors as errors_lib
from agegender_jax import files, schema
from agegender_jax.data import decoded_cache, images
from agegender_jax.data import source as source_lib


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sources')
  faces_on_disk.write_utkface(folder / 'raw', 60)
  return {
    'source_dir': str(folder / 'raw'),
    'data_dir': str(folder / 'prepared'),
    'image_size': 16,
  }


@pytest.mark.parametrize('kind', source_lib.CACHES)
@pytest.mark.parametrize('crop', [0.0, 0.1])
def test_gather_returns_the_prepared_images(data, kind, crop):
  source = faces_on_disk.open_source('utkface', 'all', cache=kind, crop=crop, **data)
  rows = np.array([59, 0, 17, 17, 33])
  pixels = source.gather(rows)
  assert pixels.dtype == np.uint8 and pixels.shape == (5, 16, 16, 3)
  for row, image in zip(rows, pixels, strict=True):
    path = os.path.join(data['source_dir'], source.names[row])
    expected = images.prepare(images.decode(path), 16, crop)
    np.testing.assert_array_equal(image, expected)
  again = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(again.gather(rows), pixels)
  assert len(pickle.dumps(source)) < 50_000  # Paths travel, not pixels.


def test_gather_takes_rows_of_several_files_in_the_order_asked_for(tmp_path):
  random = np.random.default_rng(0)
  parts = [
    random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8) for count in (2, 7, 0, 3)
  ]
  paths = [tmp_path / f'{place}.npy' for place in range(len(parts))]
  for path, part in zip(paths, parts, strict=True):
    np.save(path, part)
  pixels, whole = decoded_cache.MemmapPixels(paths), np.concatenate(parts)
  for rows in ([11, 0, 5, 2, 5, 9, 1, 8], [3, 8], [10, 11, 9, 2], []):
    rows = np.array(rows, np.int64)
    np.testing.assert_array_equal(pixels.gather(rows), whole[rows])


def test_gather_returns_fresh_writable_arrays(data):
  source = faces_on_disk.open_source('utkface', 'all', **data)
  first = source.gather(np.array([0, 1]))
  first[:] = 0
  assert source.gather(np.array([0, 1])).any()


def test_age_groups_are_those_asked_for(data):
  for groups in schema.AGE_GROUPS:
    source = faces_on_disk.open_source('utkface', 'all', age_groups=groups, **data)
    age = source.labels['age']
    np.testing.assert_array_equal(
      source.labels['age_group'], schema.group_of_interval(age, age, groups)
    )


@pytest.mark.parametrize('kind', source_lib.CACHES)
def test_conflicts_are_dropped_on_request(kind, tmp_path):
  faces_on_disk.write_utkface(tmp_path / 'raw', 20)
  for labels in ('20_0_0_1', '30_0_0_2', '20_0_0_3'):
    name = f'{labels}.jpg.chip.jpg'
    (tmp_path / 'raw' / name).write_bytes(faces_on_disk.jpeg(500))
  whole, kept = (
    faces_on_disk.open_source(
      'utkface', 'all', source_dir=str(tmp_path / 'raw'), image_size=8,
      data_dir=str(tmp_path / 'prepared'), cache=kind, drop_conflicts=drop,
    )
    for drop in (False, True)
  )  # fmt: skip
  assert len(whole) == 23 and len(kept) == 20 and not kept.conflicts.any()
  rows = np.flatnonzero(~whole.conflicts)
  assert kept.names == [whole.names[row] for row in rows]
  for key, values in whole.labels.items():
    np.testing.assert_array_equal(kept.labels[key], values[rows])
  np.testing.assert_array_equal(kept.hashes, whole.hashes[rows])
  # Whatever lay before a row that was dropped, its image is its own.
  assert rows.tolist() != list(range(20))
  np.testing.assert_array_equal(kept.gather(np.arange(20)), whole.gather(rows))
  assert kept.extras['race'] == [whole.extras['race'][row] for row in rows]


def test_only_the_split_trained_on_drops_conflicts(data):
  config = config_lib.default_config()
  config.data.update(data)
  config.data.drop_conflicts = True
  dropping = {}

  def open_source(data, builders, name, split, source_dir, drop_conflicts):
    dropping[split] = drop_conflicts
    return types.SimpleNamespace(sizes=())

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(source_lib, 'open_source', open_source)
    for split in ('train', 'validation', 'test', 'all'):
      source_lib.create_source(config.data, split)
    assert [split for split, drops in dropping.items() if drops] == ['train']
    config.data.validation_split = 'train'
    source_lib.create_source(config.data, 'train')
    assert not dropping['train']


def test_years_are_their_own_intervals(data):
  source = faces_on_disk.open_source('utkface', 'all', **data)
  for key in ('age_low', 'age_high'):
    np.testing.assert_array_equal(source.labels[key], source.labels['age'])
  assert set(source.extras) == {'race'}


def test_second_open_prepares_and_decodes_nothing(data, monkeypatch):
  first = faces_on_disk.open_source('utkface', 'train', **data)

  def fail(*args, **kwargs):
    raise AssertionError('prepared or decoded again')

  monkeypatch.setattr(images, 'load', fail)
  second = faces_on_disk.open_source('utkface', 'train', **data)
  assert second.names == first.names
  assert second.preparation == first.preparation
  assert second.preparation['images'] == 60
  # Another size or crop is decoded again.
  with pytest.raises(AssertionError, match='decoded again'):
    faces_on_disk.open_source('utkface', 'train', **data | {'image_size': 17})
  with pytest.raises(AssertionError, match='decoded again'):
    faces_on_disk.open_source('utkface', 'train', crop=0.2, **data)


def test_data_dir_defaults_to_the_environment(data, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', data['data_dir'])
  monkeypatch.setattr(images, 'load', None)
  source = faces_on_disk.open_source('utkface', 'all', **data | {'data_dir': ''})
  assert len(source) == 60


@pytest.mark.parametrize(
  'change, message',
  [
    ({'name': 'utkfaces'}, 'did you mean "utkface".*known: .*synthetic'),
    ({'split': 'tset'}, 'did you mean "test".*known: .*seed5k_trainval'),
    ({'cache': 'disk'}, 'known: device, memmap, none'),
    ({'age_groups': 'decades'}, 'known: adience, fairface'),
    ({'image_size': 0}, 'image_size is 0'),
    ({'crop': 0.5}, 'crop is 0.5'),
  ],
)
def test_unknown_choices_are_named(data, change, message):
  arguments = {'name': 'utkface', 'split': 'test'} | data | change
  with pytest.raises(errors_lib.UserError, match=message):
    faces_on_disk.open_source(**arguments)


def test_empty_split_is_an_error(tmp_path):
  faces_on_disk.write_utkface(tmp_path / 'raw', 1)
  opened, errors = [], []
  for split in ('train', 'validation', 'test'):
    try:
      source = faces_on_disk.open_source(
        'utkface', split, source_dir=str(tmp_path / 'raw'),
        data_dir=str(tmp_path / 'prepared'), image_size=8,
      )  # fmt: skip
      opened.append(len(source))
    except errors_lib.UserError as error:
      errors.append(str(error))
  assert opened == [1] and len(errors) == 2
  assert 'holds no example' in errors[0]


def test_unwritable_data_dir_is_an_error(data, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors_lib.UserError, match='another config.data.data_dir'):
    faces_on_disk.open_source(
      'utkface', 'test', **data | {'data_dir': str(tmp_path / 'file')}
    )


def test_full_disk_is_an_error(data, monkeypatch):
  faces_on_disk.open_source('utkface', 'test', **data)
  monkeypatch.setattr(
    decoded_cache.shutil,
    'disk_usage',
    lambda _: decoded_cache.shutil._ntuple_diskusage(1, 1, 0),
  )
  with pytest.raises(errors_lib.UserError, match='0.0 GB free.*cache=none'):
    faces_on_disk.open_source('utkface', 'test', **data | {'image_size': 9})


def test_full_disk_while_preparing_is_an_error(data, tmp_path, monkeypatch):
  monkeypatch.setattr(
    decoded_cache.shutil,
    'disk_usage',
    lambda _: decoded_cache.shutil._ntuple_diskusage(1, 1, 0),
  )
  with pytest.raises(errors_lib.UserError, match='cannot be prepared in'):
    faces_on_disk.open_source('utkface', 'test', **data | {'data_dir': str(tmp_path)})


def test_write_once_leaves_nothing_half_written(tmp_path):
  path = tmp_path / 'folder' / 'pixels.npy'

  def fail(temporary):
    temporary.write_bytes(b'half')
    raise OSError('killed')

  with pytest.raises(OSError, match='killed'):
    decoded_cache.write_once(path, fail)
  assert not path.exists()
  decoded_cache.write_once(path, lambda temporary: temporary.write_bytes(b'whole'))
  assert path.read_bytes() == b'whole'
  decoded_cache.write_once(path, fail)  # Already there: not called.


def test_what_is_written_is_on_the_disk_before_it_is_sealed(tmp_path, monkeypatch):
  synced = []
  monkeypatch.setattr(files, 'sync', lambda path: synced.append(path))
  decoded_cache.write_once(tmp_path / 'a', lambda path: path.write_bytes(b'12345'))
  assert synced[:2] == [tmp_path / 'a.unfinished', tmp_path]


_KILLED = """
import sys
from agegender_jax import config
from agegender_jax.data import images, source
name, source_dir, data_dir = sys.argv[1:]
real, count = images.load, 0
def load(*arguments, **options):
  global count
  count += 1
  if count == 70:  # The sixty of the preparation and ten of the cache.
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
  return real(*arguments, **options)
images.load = load
data = config.default_config().data
data.update(source_dir=source_dir, data_dir=data_dir, image_size=16)
source.create_source(data, 'all')
"""


def test_killed_run_leaves_no_cache_that_is_read(data, tmp_path):
  options = data | {'data_dir': str(tmp_path)}
  run = subprocess.run(
    [sys.executable, '-c', _KILLED, 'x', data['source_dir'], str(tmp_path)],
    capture_output=True,
  )
  assert run.returncode == -signal.SIGKILL, run.stderr.decode()
  assert list(tmp_path.rglob('*.npy.unfinished'))
  killed = faces_on_disk.open_source('utkface', 'all', **options)
  whole = faces_on_disk.open_source('utkface', 'all', **data)
  rows = np.arange(60)
  np.testing.assert_array_equal(killed.gather(rows), whole.gather(rows))
  assert not list(tmp_path.rglob('*.unfinished'))


def test_killed_preparation_is_cleared_away(data, tmp_path):
  faces_on_disk.open_source('utkface', 'all', **data | {'data_dir': str(tmp_path)})
  version = next(tmp_path.glob('utkface/*/1.2.0'))
  leftover = version.with_name('incomplete.ABCDEF_1.2.0')
  version.rename(leftover)
  source = faces_on_disk.open_source(
    'utkface', 'all', **data | {'data_dir': str(tmp_path)}
  )
  assert len(source) == 60 and not leftover.exists()


@pytest.fixture
def copied(data, tmp_path):
  """Options of a copy of raw and prepared data, which has other times."""
  faces_on_disk.open_source('utkface', 'all', **data)
  for name in ('source_dir', 'data_dir'):
    shutil.copytree(data[name], tmp_path / name)
  return data | {name: str(tmp_path / name) for name in ('source_dir', 'data_dir')}


def test_copied_and_touched_data_are_not_prepared_again(copied, monkeypatch):
  monkeypatch.setattr(images, 'load', lambda *_: pytest.fail('decoded again'))
  for _ in range(2):
    source = faces_on_disk.open_source('utkface', 'all', **copied)
    assert len(source) == 60
    for folder, _, names in os.walk(os.path.dirname(copied['data_dir'])):
      for name in names:
        os.utime(os.path.join(folder, name))


@pytest.mark.parametrize('pattern', ['*.array_record*', '*.npy', '*.json'])
@pytest.mark.parametrize('damage', ['flip', 'cut', 'delete'])
def test_damaged_prepared_data_are_made_again(copied, data, pattern, damage):
  root = pathlib.Path(copied['data_dir'])
  paths = [p for p in root.glob(f'utkface/*/1.2.0/**/{pattern}') if p.is_file()]
  assert paths
  for path in paths:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    if damage == 'delete':
      path.unlink()
    else:
      path.write_bytes(content if damage == 'flip' else content[: len(content) // 2])
  found = faces_on_disk.open_source('utkface', 'all', **copied)
  whole = faces_on_disk.open_source('utkface', 'all', **data)
  assert found.names == whole.names
  np.testing.assert_array_equal(found.labels['age'], whole.labels['age'])
  rows = np.arange(60)
  np.testing.assert_array_equal(found.gather(rows), whole.gather(rows))


def test_other_pixels_of_the_same_size_are_other_data(copied):
  first = faces_on_disk.open_source('utkface', 'all', **copied)
  path = pathlib.Path(copied['source_dir']) / first.names[0]
  content = bytearray(path.read_bytes())
  content[-3] ^= 1
  path.write_bytes(content)
  second = faces_on_disk.open_source('utkface', 'all', **copied)
  assert second.fingerprint != first.fingerprint
