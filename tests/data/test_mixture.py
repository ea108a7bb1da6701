"""Several data sets as one, and prepared data that are damaged."""

import os

import faces_on_disk
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.data import pipeline
from agegender_jax.data import source as source_lib


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  root = tmp_path_factory.mktemp('mixture')
  faces_on_disk.write_utkface(root / 'utkface', 60)
  table = root / 'labels.csv'
  rows = []
  for number in range(40):
    # The first ten are images of UTKFace, too.
    first = 0 if number < 10 else 100
    (root / f'{number}.jpg').write_bytes(faces_on_disk.jpeg(first + number))
    part = 'train' if number < 30 else ('validation' if number < 35 else 'test')
    rows.append(f'{number}.jpg,{number},{"mf"[number % 2]},{part}')
  table.write_text('\n'.join(['path,age,gender,split', *rows]) + '\n')
  config = config_lib.default_config()
  config.data.update({
    'name': 'utkface+folder', 'image_size': 8, 'data_dir': str(root / 'prepared'),
    'source_dir': f'{root / "utkface"}:{table}',
  })  # fmt: skip
  return config


def test_a_mixture_has_the_rows_of_both(data):
  whole = source_lib.create_source(data.data, 'test')
  parts = []
  for name, _, folder in source_lib.split_names(
    data.data.name, 'test', data.data.source_dir
  ):
    parts.append(
      faces_on_disk.open_source(
        name, 'test', source_dir=folder, data_dir=data.data.data_dir, image_size=8
      )
    )
  assert whole.sizes == tuple(map(len, parts)) and whole.sizes[1] == 5
  assert whole.names == [f'utkface/{n}' for n in parts[0].names] + [
    f'folder/{n}' for n in parts[1].names
  ]
  expected = np.concatenate([part.gather(np.arange(len(part))) for part in parts])
  np.testing.assert_array_equal(whole.gather(np.arange(len(whole))), expected)
  assert whole.extras['data'] == ['utkface'] * len(parts[0]) + ['folder'] * 5
  assert whole.fingerprint == '+'.join(part.fingerprint for part in parts)
  assert whole.licence == (
    f'utkface: {parts[0].licence}; folder: that of the images given'
  )
  assert whole.fingerprint == source_lib.find_fingerprint(data.data)


def test_training_leaves_out_duplicates_of_scored_images(data):
  train = source_lib.create_source(data.data, 'train')
  scored = [source_lib.create_source(data.data, s) for s in ('validation', 'test')]
  hashes = {int(value) for source in scored for value in source.hashes}
  assert not hashes & {int(value) for value in train.hashes}
  left_out = train.preparation['duplicates_of_scored']
  assert left_out > 0
  whole = faces_on_disk.open_source(
    data.data.name, 'train', source_dir=data.data.source_dir, image_size=8,
    data_dir=data.data.data_dir,
  )  # fmt: skip
  assert len(train) == len(whole) - left_out == sum(train.sizes)
  rows = [whole.names.index(name) for name in train.names]
  np.testing.assert_array_equal(
    train.gather(np.arange(len(train))), whole.gather(np.array(rows))
  )
  sets = [name.split('/')[0] for name in train.names]
  assert train.sizes == (sets.count('utkface'), sets.count('folder'))


def test_hold_out_names_other_sets(data):
  config = data.copy_and_resolve_references()
  config.data.name, config.data.source_dir = 'folder', config.data.source_dir.split(
    ':')[1]  # fmt: skip
  before = len(source_lib.create_source(config.data, 'train'))
  config.data.hold_out = 'folder:test'
  assert len(source_lib.create_source(config.data, 'train')) == before == 30
  config.data.hold_out = ':train'  # Of the run's own data: nothing is left.
  assert len(source_lib.create_source(config.data, 'train')) == 0


def test_an_epoch_takes_each_set_as_often_as_its_weight():
  weights = np.repeat([0.5, 2.0], [5, 4])
  order = pipeline.Order(9, 4, 0, weights=weights)
  assert order.epoch_size == 3 + 8  # The half image is a whole one.
  rows = order.rows(range(11)).reshape(4, 11)  # Four epochs.
  for epoch in rows:
    counts = np.bincount(epoch, minlength=9)
    assert counts[:5].max() == 1 and counts[:5].sum() == 3
    assert counts[5:].tolist() == [2, 2, 2, 2]
  assert len({tuple(sorted(epoch[epoch < 5])) for epoch in rows}) > 1
  again = pipeline.Order(9, 4, 0, weights=weights)
  np.testing.assert_array_equal(again.rows(range(5, 9)), order.rows(range(5, 9)))


def test_weights_are_named_and_checked(data):
  source = source_lib.create_source(data.data, 'train')
  config = data.copy_and_resolve_references()
  config.data.mix_weights = 'folder=0.5'
  order = pipeline.create_order(config, source)
  np.testing.assert_array_equal(order.weights, np.repeat([1.0, 0.5], source.sizes))
  for text, message in (
    ('fold=1', 'did you mean "folder"'),
    ('folder=x', 'number'),
    ('folder=1e9', 'below 1000'),
    ('folder=1e-9 utkface=1e-9', 'leaves no image in an epoch'),
  ):
    config.data.mix_weights = text
    with pytest.raises(errors.UserError, match=message):
      pipeline.create_order(config, source)


@pytest.mark.parametrize(
  'split, source_dir', [('train+test+all', ''), ('train', 'a:b:c')]
)
def test_a_wrong_number_of_names_is_refused(split, source_dir):
  with pytest.raises(errors.UserError, match='mixes 2 data sets'):
    source_lib.split_names('utkface+folder', split, source_dir)


def test_a_data_set_is_named_once():
  with pytest.raises(errors.UserError, match='names folder twice: join'):
    source_lib.split_names('folder+folder', 'train', 'a:b')


@pytest.mark.parametrize('pattern', ['*.npy', '*.json', '*seed5k_train.array_record*'])
def test_damaged_files_are_made_again(pattern, tmp_path):
  faces_on_disk.write_utkface(tmp_path / 'raw', 20)

  def open_train():
    return faces_on_disk.open_source(
      'utkface', 'seed5k_train', source_dir=str(tmp_path / 'raw'), image_size=8,
      data_dir=str(tmp_path / 'prepared'),
    )  # fmt: skip

  before = open_train()
  pixels, ages = before.gather(np.arange(len(before))), before.labels['age']
  folder = tmp_path / 'prepared' / 'utkface'
  path = next(p for p in folder.rglob(pattern) if not p.name.startswith('.')
              and (pattern != '*.json' or p.parent.name == 'cache'))  # fmt: skip
  stamp = path.stat().st_ino
  os.utime(path)  # Touched, not changed.
  open_train()
  assert path.stat().st_ino == stamp
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  after = open_train()
  np.testing.assert_array_equal(after.gather(np.arange(len(after))), pixels)
  np.testing.assert_array_equal(after.labels['age'], ages)
