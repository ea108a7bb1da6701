"""Label codings, names and files as people have them: read, counted or refused."""

import io
import os
import pathlib
import tarfile
import unicodedata
import warnings

import faces_on_disk
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from PIL import Image

from agegender_jax import errors, schema
from agegender_jax.data import images, labels, raw
from agegender_jax.data.datasets import adience, fairface, utkface

U = schema.UNKNOWN


def write_table(folder, rows, header='path,age,gender', count=None):
  """Writes a table and images 0.jpg, 1.jpg ... and returns its path."""
  for number in range(len(rows) if count is None else count):
    (folder / f'{number}.jpg').write_bytes(faces_on_disk.jpeg(number))
  table = folder / 'labels.csv'
  table.write_text('\n'.join([header, *rows]) + '\n')
  return table


def open_all(name, source_dir, tmp_path, **options):
  return faces_on_disk.open_source(
    name, 'all', source_dir=str(source_dir), data_dir=str(tmp_path / 'prepared'),
    image_size=8, cache='none', **options,
  )  # fmt: skip


@pytest.mark.parametrize(
  'text, expected',
  [
    ('0.0', 0), ('1.0', 1), ('1.00', 1), ('-1.0', U), ('nan', U), ('Man', 0),
    ('WOMAN', 1), ('boy', 0), ('girl', 1), ('uomo', 0), ('donna', 1), ('homme', 0),
    ('Frau', 1), ('2', None), ('0.5', None), ('inf', None), ('robot', None),
  ],
)  # fmt: skip
def test_parse_gender_of_words_and_floats(text, expected):
  assert labels.parse_gender(text) == expected


@pytest.mark.parametrize(
  'text, expected',
  [('20.0', 20), ('-1', U), ('-1.0', U), ('nan', U), ('121', None), ('-2', None),
   ('1e999', None), ('old', None), (' 7 ', 7)],
)  # fmt: skip
def test_parse_age(text, expected):
  assert labels.parse_age(text) == expected


def test_genders_that_went_through_pandas_are_read(tmp_path):
  rows = [f'{n}.jpg,20.0,{n % 2}.0' for n in range(39)] + ['39.jpg,30.0,']
  source = open_all('folder', write_table(tmp_path, rows), tmp_path)
  counts = np.bincount(source.labels['gender'] + 1)
  assert counts.tolist() == [1, 20, 19]


def test_another_coding_is_refused_with_the_values_seen(tmp_path):
  table = write_table(tmp_path, [f'{n}.jpg,20,{1 + n % 2}' for n in range(40)])
  message = (
    r"20 of 40 labels of gender cannot be read; the values are '1' \(20 times\), "
    r"'2' \(20 times\); known: 0, m, male.*allow_unread_labels=True"
  )
  with pytest.raises(errors.UserError, match=message) as caught:
    open_all('folder', table, tmp_path)
  assert '\n' not in str(caught.value)
  assert not list((tmp_path / 'prepared').rglob('*.array_record*'))
  allowed = open_all('folder', table, tmp_path, allow_unread_labels=True)
  assert sorted(set(allowed.labels['gender'])) == [U, 1]
  # What was prepared under the permission is refused without it, too.
  with pytest.raises(errors.UserError, match='20 of 40 labels'):
    open_all('folder', table, tmp_path)


def test_the_label_lines_name_values_readings_and_shares():
  tally = labels.Tally()
  for value in ['0'] * 3 + ['woman'] * 2 + ['', 'x']:
    tally.add('gender', value, labels.parse_gender(value))
  for age in range(20):
    tally.add('age', str(age), age)
  assert labels.describe(tally.summary()) == [
    'gender: 0 = male (3), woman = female (2), empty = unknown (1); '
    'not read: 1 of 7 (14.3%)',
    'age: 0 (1), 1 (1), 2 (1), 3 (1), 4 (1), 5 (1), 6 (1), 7 (1), 12 more values; '
    'not read: 0 of 20 (0.0%)',
  ]


@pytest.mark.parametrize('name', ['folder', 'utkface'])
def test_names_of_another_convention_are_refused(name, tmp_path):
  folder = tmp_path / 'agedb'
  folder.mkdir()
  for n in range(40):
    image = folder / f'{n}_Person{n}_{20 + n}_{"mf"[n % 2]}.jpg'
    image.write_bytes(faces_on_disk.jpeg(n))
  with pytest.raises(errors.UserError, match='no image in .* is named age_gender_race'):
    open_all(name, folder, tmp_path)


def test_a_protocol_over_names_takes_no_name_twice(tmp_path):
  names = [f'{1 + i % 90}_{i % 2}_{i % 5}_2016{i:013d}.jpg.chip.jpg'
           for i in range(9000)]  # fmt: skip
  one, four = utkface.seed5k_rows(names), utkface.seed5k_rows(names * 4)
  assert one == four and len(one) == 5000  # The first copies.
  faces_on_disk.write_utkface(tmp_path / 'raw' / 'UTKFace', 9)
  faces_on_disk.write_utkface(tmp_path / 'raw' / 'crop_part1', 5)
  source = open_all('utkface', tmp_path / 'raw', tmp_path)
  assert len(source) == 9
  assert {name.split('/')[0] for name in source.names} == {'UTKFace'}
  assert source.preparation['repeated_name'] == 5


def test_blank_rows_are_no_rows(tmp_path):
  rows = ['0.jpg,20,m', '1.jpg,30,f', ',,', ' , ,', '']
  source = open_all('folder', write_table(tmp_path, rows, count=2), tmp_path)
  assert len(source) == 2
  assert source.preparation['images'] == 2
  assert source.preparation['blank_row'] == 3


def test_two_columns_of_one_name_are_refused(tmp_path):
  table = write_table(tmp_path, ['0.jpg,20,m,f'], 'path,age,gender, Gender ')
  with pytest.raises(errors.UserError, match='several columns gender'):
    open_all('folder', table, tmp_path)


@pytest.mark.parametrize('on_disk', ['NFC', 'NFD'])
@pytest.mark.parametrize('written', ['NFC', 'NFD'])
def test_names_equal_to_the_eye_are_found(on_disk, written, tmp_path):
  (tmp_path / 'faces').mkdir()
  image = tmp_path / 'faces' / unicodedata.normalize(on_disk, 'José.jpg')
  image.write_bytes(faces_on_disk.jpeg(0))
  (tmp_path / 'faces' / 'p.jpg').write_bytes(faces_on_disk.jpeg(1))
  name = unicodedata.normalize(written, 'José.jpg')
  table = write_table(tmp_path, [f'faces/{name},20,m', 'faces\\p.jpg,30,f'], count=0)
  assert len(open_all('folder', table, tmp_path)) == 2
  assert raw.lookup_key(f'faces\\{name}') == raw.lookup_key(f'faces/{image.name}')


def test_links_are_followed_once_and_what_is_passed_over_is_counted(tmp_path):
  photos, elsewhere = tmp_path / 'photos', tmp_path / 'elsewhere'
  for folder in (photos, elsewhere, photos / 'real'):
    folder.mkdir()
  (photos / 'edge.jfif').write_bytes(faces_on_disk.jpeg(0))
  Image.new('L', (9, 9)).save(photos / 'orl.pgm')
  (photos / 'real' / 'a.jpe').write_bytes(faces_on_disk.jpeg(1))
  (elsewhere / 'b.jpg').write_bytes(faces_on_disk.jpeg(2))
  (photos / 'album').symlink_to(elsewhere)
  (photos / 'a_link_to_real').symlink_to(photos / 'real')
  (elsewhere / 'loop').symlink_to(photos)
  (photos / 'notes.txt').write_text('')
  (photos / '.hidden.jpg').write_text('')
  os.mkfifo(photos / 'pipe.jpg')
  found, passed_over = raw.list_folder(photos)
  assert [file.name for file in found] == [
    'album/b.jpg', 'edge.jfif', 'orl.pgm', 'real/a.jpe',
  ]  # fmt: skip
  assert passed_over == {
    'links to folders that are searched already': 2, '.txt': 1, 'hidden': 1,
    'not regular files': 1,
  }  # fmt: skip
  text = raw.describe_passed_over(passed_over)
  assert text.startswith('5 files passed over: 2 links to folders')


def test_a_part_of_fairface_may_be_a_link(tmp_path):
  source_dir, other = tmp_path / 'fairface', tmp_path / 'other'
  for folder in (source_dir / 'val', other):
    folder.mkdir(parents=True)
  (source_dir / 'train').symlink_to(other)
  (other / '1.jpg').write_bytes(faces_on_disk.jpeg(0))
  (source_dir / 'val' / '1.jpg').write_bytes(faces_on_disk.jpeg(1))
  (tmp_path / 'out.jpg').write_bytes(faces_on_disk.jpeg(2))
  for part, extra in (('train', '../out.jpg'), ('val', '/out.jpg')):
    rows = f'{part}/1.jpg,20-29,Male,White\n{extra},20-29,Male,White\n'
    table = source_dir / f'fairface_label_{part}.csv'
    table.write_text('file,age,gender,race\n' + rows)
  source = open_all('fairface', source_dir, tmp_path)
  assert sorted(source.names) == ['train/1.jpg', 'val/1.jpg']
  assert source.preparation['outside_path'] == 2


def test_hostile_members_of_an_archive_are_counted(tmp_path, monkeypatch):
  monkeypatch.setattr(raw, 'MAX_MEMBER_BYTES', 5000)
  names = ['20_0_0_1.jpg', '../21_0_0_1.jpg', '/etc/22_0_0_1.jpg', 'a/../../b.jpg']
  data = faces_on_disk.jpeg(0)
  with tarfile.open(tmp_path / 'faces.tar', 'w') as tar:
    for name, content in [(n, data) for n in names] + [('big.jpg', bytes(6000))]:
      member = tarfile.TarInfo(name)
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
    link = tarfile.TarInfo('30_0_0_1.jpg')
    link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
    tar.addfile(link)
  found, passed_over = raw.read_archive(tmp_path / 'faces.tar')
  assert [file.name for file in found] == ['20_0_0_1.jpg']
  assert passed_over == {
    'with a path that leaves the archive': 3, 'of more than 0 MiB': 1,
    'links and devices': 1,
  }  # fmt: skip


def test_rows_that_name_no_file_are_counted(tmp_path):
  rows = [f'{n}.jpg,20,{"mf"[n % 2]}' for n in range(400)]
  rows += ['a\0b.jpg,20,m', f'{"x" * 5000}.jpg,20,m', 'pipe.jpg,20,m']
  table = write_table(tmp_path, [*rows, '"0.jpg,20,m'], count=400)
  os.mkfifo(tmp_path / 'pipe.jpg')
  source = open_all('folder', table, tmp_path)
  assert len(source) == 400
  assert source.preparation['unreadable'] == 3
  assert source.preparation['broken_row'] == 1


def test_a_column_split_counts_instead_of_the_rule(tmp_path):
  parts = ['train', 'Val', 'test', 'validation']
  rows = [f'{n}.jpg,20,m,{parts[n % 4]}' for n in range(12)]
  table = write_table(tmp_path, rows, 'path,age,gender,split')
  for part, numbers in (('train', {0}), ('validation', {1, 3}), ('test', {2})):
    source = faces_on_disk.open_source(
      'folder', part, source_dir=str(table), data_dir=str(tmp_path / 'prepared'),
      image_size=8, cache='none',
    )  # fmt: skip
    assert {int(name.split('.')[0]) % 4 for name in source.names} == numbers
    assert 'split' not in source.extras
  table = write_table(tmp_path, [*rows, '12.jpg,20,m,tset'], 'path,age,gender,split')
  with pytest.raises(errors.UserError, match="labels of split .*'tset'"):
    open_all('folder', table, tmp_path)


@pytest.mark.parametrize('megapixels, is_read', [(95, True), (110, False)])
def test_a_large_image_is_refused_before_it_is_decoded(megapixels, is_read):
  stream = io.BytesIO()
  Image.new('1', (megapixels * 100, 10_000)).save(stream, 'PNG')
  limit = Image.MAX_IMAGE_PIXELS
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    if is_read:
      assert images.load(stream.getvalue()).width == 9500
    else:
      with pytest.raises(images.UnreadableError, match='110 megapixels, more than'):
        images.load(stream.getvalue())
      assert images.load(stream.getvalue(), max_megapixels=120).width == 11_000
  assert limit == Image.MAX_IMAGE_PIXELS  # Pillow's own, as it was.


_NAMES = strategies.text(max_size=60) | strategies.from_regex(
  r'[0-9]{1,4}_[0-9a-z]{0,2}_[0-9]{0,2}_?[0-9]{0,17}( ?\.jpg)?(\.chip)?\.jpg'
)


@hypothesis.given(_NAMES)
def test_any_file_name_has_labels_or_none(name):
  found = utkface.parse_name(name)
  if found is not None:
    age, gender, race, _ = found
    assert age == U or 0 <= age <= labels.OLDEST
    assert gender in (U, 0, 1) and race in (U, *range(5))
  raw.lookup_key(name)
  assert isinstance(raw.leaves_folder(name), bool)


@hypothesis.given(strategies.text(max_size=30))
def test_any_label_is_read_or_not(text):
  assert labels.parse_gender(text) in (None, U, 0, 1)
  age = labels.parse_age(text)
  assert age is None or age == U or 0 <= age <= labels.OLDEST
  for parse in (adience.parse_age, fairface.parse_age):
    *_, (low, high), problem = parse(text)
    assert low <= high <= labels.OLDEST or problem


@hypothesis.settings(
  max_examples=60,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
  strategies.lists(strategies.text(max_size=40), max_size=6), strategies.booleans()
)
def test_any_table_is_rows_counts_or_one_line(tmp_path, lines, has_header):
  table = tmp_path / 'labels.csv'
  text = '\n'.join((['path,age,gender'] if has_header else []) + lines)
  table.write_bytes(text.encode('utf-8', 'surrogatepass'))
  try:
    builder = faces_on_disk.create_builder(
      'folder', source_dir=str(table), data_dir=str(tmp_path / 'prepared')
    )
    found = builder.collect()
  except errors.UserError as error:
    assert str(error)
    return
  rows = len(found.examples) + len(found.skipped)
  assert rows == found.counts['images'] > 0
  for example in found.examples:
    with pytest.raises(OSError):
      if not pathlib.Path(tmp_path, example.name).is_file():
        example.read()
      raise OSError
