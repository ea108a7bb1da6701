import inspect
import os
import pathlib
import re
import shutil
import tarfile
import time

import faces_on_disk
import numpy as np
import pytest

from agegender_jax import errors, files, schema
from agegender_jax.data import datasets, images, labels, raw, splits
from agegender_jax.data.datasets import base, utkface
from agegender_jax.data.synthetic_faces import faces

U = schema.UNKNOWN


def open_all(name, tmp_path, **options):
  options = {'cache': 'none', 'image_size': 8} | options
  data_dir = str(tmp_path / 'prepared')
  return faces_on_disk.open_source(name, 'all', data_dir=data_dir, **options)


@pytest.mark.parametrize(
  'name, expected',
  [
    ('26_1_3_20170104.jpg.chip.jpg', (26, 1, 3, '')),
    ('24_0_1_20170116220224657 .jpg.chip.jpg', (24, 0, 1, '')),
    ('55_0_0_20170116232725357jpg.chip.jpg', (55, 0, 0, '')),
    ('61_1_20170109142408075.jpg.chip.jpg', (61, U, U, 'missing_field')),
    ('61_3_20170109150557335.jpg.chip.jpg', (61, U, 3, 'missing_field')),
    ('53__0_20170116184028385.jpg', (53, U, 0, 'missing_field')),
    ('44_3_2_20170116.jpg', (44, U, 2, 'bad_gender')),
    ('44_1_7_20170116.jpg', (44, 1, U, 'bad_race')),
    ('300_1_2_20170116.jpg', (U, 1, 2, 'bad_age')),
    ('25_1_2_aunt_mary.PNG', (25, 1, 2, '')),
    ('holiday.jpg', None),
    ('x_1_2_20170116.jpg', None),
    ('25_1.jpg', None),
  ],
)
def test_parse_name(name, expected):
  assert utkface.parse_name(name) == expected


def test_seed5k_rows_takes_the_first_by_sha1(monkeypatch):
  # Their SHA-1 begin ad8a, bd6e and b607; the last name is not well-formed.
  names = [f'1_0_0_{n}.jpg.chip.jpg' for n in range(3)] + ['1_0_0_3.jpg']
  monkeypatch.setattr(utkface, 'SEED_EXAMPLES', 2)
  assert utkface.seed5k_rows(names) == {0, 2}


def test_utkface_splits_are_the_rule(tmp_path, monkeypatch):
  monkeypatch.setattr(utkface, 'SEED_EXAMPLES', 30)
  names = faces_on_disk.write_utkface(tmp_path / 'raw', 80)
  options = {
    'source_dir': str(tmp_path / 'raw'),
    'data_dir': str(tmp_path / 'prepared'),
    'image_size': 8,
    'cache': 'none',
  }

  def open_split(split):
    return faces_on_disk.open_source('utkface', split, **options)

  everything = open_split('all')
  assert sorted(everything.names) == sorted(names)
  by_part = {}
  for part in ('train', 'validation', 'test'):
    source = open_split(part)
    by_part[part] = set(source.names)
    for value in source.hashes:
      percent = splits.percent(int(value).to_bytes(8, 'big'))
      assert splits.split_of(percent) == part
  assert sum(map(len, by_part.values())) == 80
  seed = set(open_split('seed5k').names)
  assert len(seed) == 30
  test = set(open_split('seed5k_test').names)
  assert test == seed & by_part['test']
  assert set(open_split('seed5k_trainval').names) == seed - test
  rest = set()
  for part in ('train', 'validation', 'test'):
    names = set(open_split(f'rest_{part}').names)
    assert names == by_part[part] - seed
    rest |= names
  assert len(rest) == 50
  source = open_split('train')
  for row, name in enumerate(source.names):
    age, gender, race, _ = name.split('_')
    assert source.labels['age'][row] == float(age)
    assert source.labels['gender'][row] == int(gender)
    assert source.extras['race'][row] == utkface.RACES[int(race)]
  assert source.labels['age'].dtype == np.float32
  assert source.labels['gender'].dtype == np.int32


def test_utkface_counts_what_is_wrong(tmp_path):
  raw_dir = tmp_path / 'raw'
  faces_on_disk.write_utkface(raw_dir, 100)
  data = faces_on_disk.jpeg(500)
  for name in ('20_0_0_1.jpg.chip.jpg', '30_0_0_2.jpg.chip.jpg'):
    (raw_dir / name).write_bytes(data)  # One contradicting pair,
  data = faces_on_disk.jpeg(501)
  for name in ('20_0_0_3.jpg.chip.jpg', '20_0_1_4.jpg.chip.jpg'):
    (raw_dir / name).write_bytes(data)  # one that agrees,
  data = faces_on_disk.jpeg(502)
  for name in ('20_1_0_5 .jpg.chip.jpg', '20_1_20170101.jpg.chip.jpg'):
    (raw_dir / name).write_bytes(data)  # and one that knows less.
  (raw_dir / 'cat.jpg').write_bytes(data)
  (raw_dir / '20_0_0_6.jpg.chip.jpg').write_bytes(b'no image')
  (raw_dir / '._20_0_0_6.jpg.chip.jpg').write_bytes(b'of a Mac')
  source = open_all('utkface', tmp_path, source_dir=str(raw_dir))
  assert source.preparation == {
    'images': 108,
    'examples': 106,
    'passed_over': 1,
    'unreadable': 1,
    'unusable_name': 1,
    'repaired_name': 1,
    'missing_field': 1,
    'identical_groups': 3,
    'identical_images': 6,
    'contradicting_groups': 1,
    'contradicting_images': 2,
  }
  assert len(source) == 106 and 'research' in source.licence
  conflicts = np.flatnonzero(source.conflicts)
  assert sorted(source.names[row] for row in conflicts) == [
    '20_0_0_1.jpg.chip.jpg', '30_0_0_2.jpg.chip.jpg',
  ]  # fmt: skip


@pytest.mark.parametrize(
  'labels, expected',
  [
    # Age or None, interval or None, gender.
    ([(20, None, 0), (30, None, 0)], [1, 1]),
    ([(20, None, 0), (20, None, 1)], [1, 1]),
    ([(20, None, 0), (20, None, U)], [0, 0]),
    ([(20, None, 0), (U, None, 0)], [0, 0]),
    ([(20, None, 0), (30, None, 0), (U, None, 0)], [1, 1, 0]),
    ([(U, (25, 32), 0), (U, (38, 43), 0)], [1, 1]),
    ([(U, (25, 32), 0), (U, (27, 40), 0)], [0, 0]),
    ([(U, (8, 12), 0), (U, (8, 23), 0), (U, (15, 20), 0)], [1, 0, 1]),
    ([(28, None, 0), (U, (25, 32), 0)], [0, 0]),
    ([(24, None, 0), (U, (25, 32), 0)], [1, 1]),
  ],
)
def test_conflicts_are_labels_that_cannot_both_be_right(labels, expected):
  examples = [
    base.Example(
      str(row), bytes, age, gender, interval=interval or (U, U), digest=b'same'
    )
    for row, (age, interval, gender) in enumerate(labels)
  ]
  examples.append(base.Example('other', bytes, 99, 1, digest=b'other'))
  counts = base.mark_conflicts(examples)
  assert [int(example.conflict) for example in examples] == [*expected, 0]
  assert counts == {
    'identical_groups': 1,
    'identical_images': len(labels),
    'contradicting_groups': max(expected),
    'contradicting_images': sum(expected),
  }


def test_utkface_archive_equals_folder(tmp_path):
  names = faces_on_disk.write_utkface(tmp_path / 'UTKFace', 12)
  archive = tmp_path / 'owners' / 'UTKFace.tar.gz'
  archive.parent.mkdir()
  with tarfile.open(archive, 'w:gz') as tar:
    tar.add(tmp_path / 'UTKFace', 'UTKFace')
  loaded = [
    open_all('utkface', tmp_path, source_dir=str(path))
    for path in (tmp_path / 'UTKFace', archive, archive.parent)
  ]
  for source in loaded:
    assert sorted(source.names) == sorted(names)
    assert source.names == loaded[0].names
    np.testing.assert_array_equal(
      source.gather(np.arange(12)), loaded[0].gather(np.arange(12))
    )


def test_changed_source_is_prepared_anew(tmp_path):
  faces_on_disk.write_utkface(tmp_path / 'a', 12)
  faces_on_disk.write_utkface(tmp_path / 'b', 7, first=50)
  sizes = [
    len(open_all('utkface', tmp_path, source_dir=str(tmp_path / name)))
    for name in ('a', 'b')
  ]
  faces_on_disk.write_utkface(tmp_path / 'a', 1, first=90)
  source = open_all('utkface', tmp_path, source_dir=str(tmp_path / 'a'))
  assert sizes == [12, 7] and len(source) == 13


def test_split_over_the_limit_is_written_in_parts(tmp_path, monkeypatch):
  names = faces_on_disk.write_utkface(tmp_path / 'raw', 40)
  monkeypatch.setattr(base, 'MAX_SPLIT_BYTES', 2000)
  source = open_all('utkface', tmp_path, source_dir=str(tmp_path / 'raw'))
  written = list((tmp_path / 'prepared').rglob('*__11.array_record*'))
  assert sorted(source.names) == sorted(names) and written
  source = faces_on_disk.open_source(
    'utkface', 'seed5k_train', source_dir=str(tmp_path / 'raw'),
    data_dir=str(tmp_path / 'prepared'), image_size=8,
  )  # fmt: skip
  assert source.names == sorted(source.names)
  path = tmp_path / 'raw' / source.names[-1]
  np.testing.assert_array_equal(
    source.gather(np.array([len(source) - 1]))[0],
    images.prepare(images.decode(path), 8),
  )


def test_unreadable_images_over_a_percent_are_an_error(tmp_path):
  faces_on_disk.write_utkface(tmp_path / 'raw', 10)
  (tmp_path / 'raw' / '20_0_0_6.jpg').write_bytes(b'no image')
  with pytest.raises(errors.UserError, match='1 of 11 .*20_0_0_6.jpg'):
    open_all('utkface', tmp_path, source_dir=str(tmp_path / 'raw'))
  assert not list((tmp_path / 'prepared').rglob('*.json'))


def test_no_readable_image_is_an_error(tmp_path):
  (tmp_path / '20_0_0_6.jpg').write_bytes(b'no image')
  with pytest.raises(errors.UserError, match='none of the 1 images'):
    open_all('utkface', tmp_path, source_dir=str(tmp_path))


@pytest.mark.parametrize('name', ['utkface', 'folder'])
@pytest.mark.parametrize('source_dir', ['', 'absent', 'empty', 'labels.txt'])
def test_absent_data_say_what_is_wanted(name, source_dir, tmp_path):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'labels.txt').write_text('')
  path = str(tmp_path / source_dir) if source_dir else ''
  wanted = 'susanqq.github.io.*research' if name == 'utkface' else 'CSV'
  with pytest.raises(errors.UserError, match=wanted):
    open_all(name, tmp_path, source_dir=path)


def test_damaged_archive_is_an_error(tmp_path):
  (tmp_path / 'UTKFace.tar.gz').write_bytes(b'\x1f\x8b damaged')
  with pytest.raises(errors.UserError, match='cannot read the archive'):
    open_all('utkface', tmp_path, source_dir=str(tmp_path))


def test_folder_reads_a_table(tmp_path):
  (tmp_path / 'images').mkdir()
  rows = [
    ('a.jpg', '20.5', 'F', 'Ann'), ('b.jpg', '', 'male', 'Bob'),
    ('c.jpg', '30', '', ''), ('d.jpg', 'old', 'x', ''),
    ('e.jpg', '', '', 'Émile'), ('f.jpg', '400', '1', ''),
  ]  # fmt: skip
  lines = ['path, Age,gender,who']
  for seed, (path, *texts) in enumerate(rows):
    (tmp_path / 'images' / path).write_bytes(faces_on_disk.jpeg(seed))
    lines.append(','.join([f'images/{path}', *texts]))
  table = tmp_path / 'faces.csv'
  table.write_text('\n'.join(lines), 'utf-8-sig')
  source = open_all('folder', tmp_path, source_dir=str(table), allow_unread_labels=True)
  order = np.argsort(source.names)
  age = source.labels['age'][order]
  gender = source.labels['gender'][order]
  np.testing.assert_array_equal(age, [20.5, U, 30, U, U, U])
  np.testing.assert_array_equal(gender, [1, 0, U, U, U, 1])
  who = [source.extras['who'][row] for row in order]
  assert who == ['Ann', 'Bob', '', '', 'Émile', '']
  assert source.preparation == {
    'images': 6, 'examples': 6, 'bad_age': 2, 'bad_gender': 1, 'unknown_age': 2,
    'unknown_gender': 2, 'no_label': 2,
  }  # fmt: skip
  # Another label is another source.
  table.write_text('\n'.join(lines).replace('30', '31'), 'utf-8-sig')
  source = open_all('folder', tmp_path, source_dir=str(table), allow_unread_labels=True)
  assert 31 in source.labels['age']


def test_folder_reads_names(tmp_path):
  names = faces_on_disk.write_utkface(tmp_path / 'raw', 5)
  # Whichever name the data are given: the images and their labels are the
  # same, and so is the fingerprint of the source.
  source, other = (
    open_all(name, tmp_path, source_dir=str(tmp_path / 'raw'))
    for name in ('folder', 'utkface')
  )
  assert sorted(source.names) == sorted(names) == sorted(other.names)
  assert source.fingerprint == other.fingerprint

  def labels(source):
    columns = (*source.labels.values(), source.extras['race'])
    return dict(zip(source.names, zip(*columns, strict=True), strict=True))

  assert labels(source) == labels(other)


@pytest.mark.parametrize(
  'text, message',
  [
    ('path,age\na.jpg,3\n', 'no column gender'),
    ('', 'no column path, age, gender'),
    ('path,age,gender\n', 'no row'),
    ('path,age,gender\na.jpg,3,m\n', 'none of the 1 images'),
  ],
)
def test_folder_rejects_a_table(text, message, tmp_path):
  (tmp_path / 'faces.csv').write_text(text)
  with pytest.raises(errors.UserError, match=message):
    open_all('folder', tmp_path, source_dir=str(tmp_path / 'faces.csv'))


@pytest.mark.parametrize(
  'text, expected',
  [(' Female ', 1), ('m', 0), ('0', 0), ('', U), (None, U), ('x', None), ('u', U)],
)
def test_parse_gender(text, expected):
  assert labels.parse_gender(text) == expected


def test_synthetic_is_drawn_once_by_seed(tmp_path, monkeypatch):
  def draw(seed, index):
    image = faces_on_disk.jpeg(1000 * seed + index)
    return {'image': image, 'age': index + 0.5, 'gender': index % 2,
            'name': f'{seed}_{index}'}  # fmt: skip

  monkeypatch.setattr(faces, 'draw_example', draw)
  for seed, count in ((0, 9), (1, 9), (0, 5)):
    options = {'synthetic_examples': count, 'synthetic_seed': seed}
    source = open_all('synthetic', tmp_path, **options)
    names = {f'{seed}_{index}' for index in range(count)}
    assert set(source.names) == names
    index = [int(name.split('_')[1]) for name in source.names]
    np.testing.assert_array_equal(source.labels['age'], np.array(index) + 0.5)
  with pytest.raises(errors.UserError, match='synthetic_examples is 0'):
    open_all('synthetic', tmp_path, synthetic_examples=0)


def test_fingerprint_sees_names_and_contents(tmp_path):
  folder_ = tmp_path / 'raw'
  faces_on_disk.write_utkface(folder_, 2)

  def fingerprint(folder=folder_):
    return raw.find(str(folder), '').fingerprint(tmp_path / 'cache.json')

  first = fingerprint()
  assert first == fingerprint(tmp_path) and len(first) == 12
  image = next(folder_.iterdir())
  data = bytearray(image.read_bytes())
  data[-3] ^= 1  # Other pixels, the same number of bytes.
  image.write_bytes(data)
  second = fingerprint()
  image.rename(folder_ / '1_1_1_1.jpg')
  third = fingerprint()
  assert len({first, second, third}) == 3


def test_a_copy_and_a_touch_keep_the_fingerprint_and_are_read_once(
  tmp_path, monkeypatch
):
  faces_on_disk.write_utkface(tmp_path / 'raw', 3)
  old = time.time() - 100
  for path in (tmp_path / 'raw').iterdir():
    os.utime(path, (old, old))
  now = time.time_ns() + 10**10
  monkeypatch.setattr(raw.time, 'time_ns', lambda: now)
  reads = []
  real = files.sha256
  monkeypatch.setattr(files, 'sha256', lambda path: reads.append(path) or real(path))

  def fingerprint(name):
    return raw.find(str(tmp_path / name), '').fingerprint(tmp_path / f'of_{name}')

  first = fingerprint('raw')
  assert len(reads) == 3
  assert fingerprint('raw') == first and len(reads) == 3
  os.utime(next((tmp_path / 'raw').iterdir()))
  assert fingerprint('raw') == first and len(reads) == 4
  shutil.copytree(tmp_path / 'raw', tmp_path / 'copy')
  assert fingerprint('copy') == first


@pytest.mark.parametrize('kind', datasets.DATASETS.values())
def test_every_reason_is_explained_by_its_data_set(kind):
  """Whatever a module counts has a text in its class."""
  text = pathlib.Path(inspect.getfile(kind)).read_text()
  counted = set(re.findall(r"counts\['(\w+)'\]", text))
  counted |= set(base.mark_conflicts([]))
  assert counted <= set(kind.REASONS)


def test_a_reason_of_a_data_set_of_its_own_is_logged(tmp_path, monkeypatch):
  class Own(utkface.UTKFace, skip_registration=True):
    def collect(self):
      found = super().collect()
      found.counts['upside_down'] = 3
      return found

  faces_on_disk.write_utkface(tmp_path / 'raw', 3)
  builder = Own.create(
    faces_on_disk.data_of(data_dir=str(tmp_path / 'out')), str(tmp_path / 'raw')
  )
  lines = []
  monkeypatch.setattr(base.logging, 'info', lambda *texts: lines.append(texts))
  builder.download_and_prepare()
  assert ('own', 3, 'upside down') in [line[1:] for line in lines]
