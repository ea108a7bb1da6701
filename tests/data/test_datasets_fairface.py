import shutil

import faces_on_disk
import numpy as np
import pytest

from agegender_jax import errors, schema
from agegender_jax.data import splits
from agegender_jax.data.datasets import base, fairface

U = schema.UNKNOWN


def write(folder, rows, missing=()):
  """Writes label files and images; rows of (file, age, gender, race)."""
  for part in ('train', 'val'):
    (folder / part).mkdir(parents=True)
    lines = ['file,age,gender,race,service_test']
    for index, row in enumerate(rows):
      if row[0].startswith(f'{part}/'):
        lines.append(','.join([*row, 'TRUE']))
        if row[0] not in missing:
          (folder / row[0]).write_bytes(faces_on_disk.jpeg(index, 16))
    table = folder / f'fairface_label_{part}.csv'
    table.write_text('\n'.join(lines) + '\n')


def open_split(tmp_path, split, **options):
  options = {'age_groups': 'fairface', 'allow_unread_labels': True} | options
  return faces_on_disk.open_source(
    'fairface', split, source_dir=str(tmp_path / 'raw'),
    data_dir=str(tmp_path / 'prepared'), image_size=8, cache='none', **options,
  )  # fmt: skip


@pytest.mark.parametrize(
  'text, expected',
  [
    ('0-2', ((0, 2), '')),
    ('3-9', ((3, 9), '')),
    ('10-19', ((10, 19), '')),
    ('60-69', ((60, 69), '')),
    ('more than 70', ((70, 120), '')),
    # What spreadsheets make of it, day or month or year first.
    ('03-Sep', ((3, 9), 'repaired_age')),
    ('9-Mar', ((3, 9), 'repaired_age')),
    ('Sep-03', ((3, 9), 'repaired_age')),
    ('3 September', ((3, 9), 'repaired_age')),
    ('Oct-19', ((10, 19), 'repaired_age')),
    ('19. Oct', ((10, 19), 'repaired_age')),
    ('Feb-00', ((0, 2), 'repaired_age')),
    # Not a group, so no age.
    ('9-3', ((U, U), 'bad_age')),
    ('04-Sep', ((U, U), 'bad_age')),
    ('Sep', ((U, U), 'bad_age')),
    ('20-25', ((U, U), 'bad_age')),
    ('old', ((U, U), 'bad_age')),
    ('', ((U, U), 'unknown_age')),
    (None, ((U, U), 'unknown_age')),
  ],
)
def test_parse_age(text, expected):
  assert fairface.parse_age(text) == expected


def test_labels_and_dirt(tmp_path):
  write(
    tmp_path / 'raw',
    [
      ('train/1.jpg', '03-Sep', 'Female', 'East Asian'),
      ('train/2.jpg', 'more than 70', 'Male', 'White'),
      ('train/3.jpg', '', '', 'Black'),
      ('train/4.jpg', 'x', 'robot', ''),
      ('train/5.jpg', '20-29', 'Male', 'White'),
      ('val/1.jpg', 'Oct-19', 'Female', 'Indian'),
    ],
    missing=['train/5.jpg'],
  )
  source = open_split(tmp_path, 'all')
  order = np.argsort(source.names)
  assert [source.names[row] for row in order] == [
    'train/1.jpg', 'train/2.jpg', 'train/3.jpg', 'train/4.jpg', 'val/1.jpg',
  ]  # fmt: skip
  labels = {key: value[order].tolist() for key, value in source.labels.items()}
  assert labels == {
    'age': [U] * 5,  # A group is never turned into years.
    'age_group': [1, 8, U, U, 2],
    'gender': [1, 0, U, U, 1],
    'age_low': [3, 70, U, U, 10],
    'age_high': [9, schema.LAST_YEAR, U, U, 19],
  }
  assert set(source.extras) == {'race'}
  assert [source.extras['race'][row] for row in order] == [
    'East Asian', 'White', 'Black', '', 'Indian',
  ]  # fmt: skip
  assert source.preparation == {
    'label_rows': 6, 'missing_image': 1, 'images': 5, 'examples': 5,
    'repaired_age': 2, 'bad_age': 1, 'unknown_age': 1, 'bad_gender': 1,
    'unknown_gender': 1, 'no_label': 2,
  }  # fmt: skip
  adience = open_split(tmp_path, 'all', age_groups='adience')
  # 3-9 is mostly in gaps; 10-19 has five of its ten years in 15-20.
  assert adience.labels['age_group'][order].tolist() == [U, 7, U, U, 3]


def test_splits_are_the_owners_and_the_rule(tmp_path):
  rows = [(f'train/{i}.jpg', '20-29', 'Male', '') for i in range(60)]
  rows += [(f'val/{i}.jpg', '20-29', 'Male', '') for i in range(20)]
  write(tmp_path / 'raw', rows)
  parts = {
    name: open_split(tmp_path, name)
    for name in ('train', 'validation', 'test', 'train_all', 'all')
  }
  names = {name: set(part.names) for name, part in parts.items()}
  assert names['test'] == {f'val/{i}.jpg' for i in range(20)}
  assert names['train_all'] == {f'train/{i}.jpg' for i in range(60)}
  assert names['validation'] and names['train']
  assert names['train'] == names['train_all'] - names['validation']
  assert names['all'] == names['train_all'] | names['test']
  for name, is_held in (('validation', True), ('train', False)):
    for value in parts[name].hashes:
      percent = splits.percent(int(value).to_bytes(8, 'big'))
      assert (20 <= percent < 30) == is_held


@pytest.mark.parametrize('name', ['val/1.jpg', './val/1.jpg', 'val\\1.jpg'])
def test_the_owners_val_is_test_however_it_is_written(name):
  example = base.Example(name, bytes, difference=bytes(8))
  assert [*fairface.FairFace.split_examples(None, [example])] == ['test']


@pytest.mark.parametrize(
  'break_, message',
  [
    (lambda raw: shutil.rmtree(raw / 'train'), 'holds no image'),
    (
      lambda raw: (raw / 'train').rename(raw / 'faces'),
      'none of the 2 images',
    ),
    (
      lambda raw: (raw / 'fairface_label_val.csv').unlink(),
      'holds no fairface_label_val.csv; give',
    ),
    (
      lambda raw: (raw / 'fairface_label_val.csv').write_text('file,age\n'),
      'no column gender',
    ),
    (shutil.rmtree, 'does not exist'),
  ],
)
def test_absent_data_say_what_is_wanted(break_, message, tmp_path):
  raw = tmp_path / 'raw'
  names = ('train/1.jpg', 'val/1.jpg')
  write(raw, [(name, '0-2', 'Male', '') for name in names], names[1:])
  break_(raw)
  with pytest.raises(errors.UserError, match=message) as caught:
    open_split(tmp_path, 'all')
  for word in ('fairface_label_train.csv', 'joojs/fairface', 'CC BY 4.0'):
    assert word in str(caught.value)


def test_the_real_label_files(shared, tmp_path):
  """Real labels with the first images of each part only."""
  folder = shared / 'data' / 'fairface'
  if not folder.is_dir():
    pytest.skip(f'{folder} is absent (set AGEGENDER_SHARED)')
  raw = tmp_path / 'raw'
  for part, count in (('train', 90), ('val', 30)):
    (raw / part).mkdir(parents=True)
    table = folder / f'fairface_label_{part}.csv'
    shutil.copy(table, raw)
    for line in table.read_text().splitlines()[1 : count + 1]:
      name = line.split(',')[0]
      shutil.copy(folder / name, raw / name)
  source = open_split(tmp_path, 'all')
  assert source.preparation == {
    'label_rows': 35_000, 'missing_image': 34_880, 'images': 120,
    'examples': 120, 'repaired_age': 3_873 + 3_413 + 375 + 331,
  }  # fmt: skip
  assert len(open_split(tmp_path, 'test')) == 30
  assert (source.labels['age_group'] != U).all()
  assert (source.labels['gender'] != U).all()
  assert len(set(source.extras['race'])) == 7
  row = source.names.index('train/8.jpg')
  assert source.labels['age_group'][row] == 4
  assert [source.labels[key][row] for key in ('age_low', 'age_high')] == [30, 39]
  assert source.labels['gender'][row] == schema.FEMALE
  assert source.extras['race'][row] == 'Indian'
