import hashlib
import itertools
import shutil

import faces_on_disk
import numpy as np
import pytest

from agegender_jax import errors, schema
from agegender_jax.data import raw
from agegender_jax.data.datasets import adience

U = schema.UNKNOWN
HEADER = 'user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy'
# fold, face_id, age, gender; the SHA-1 of a face_id says that 26, 27 and 70
# are of the validation subjects.
ROWS = [
  (0, '1', '(25, 32)', 'f'), (0, '26', '(8, 12)', 'm'), (0, '2', '35', 'u'),
  (1, '3', '(38, 48)', ''), (1, '27', 'None', 'm'), (2, '4', '(8, 23)', 'x'),
  (2, '5', 'young', 'f'), (3, '6', '(60, 100)', 'f'), (3, '70', '2', 'm'),
  (4, '7', '', 'm'),
]  # fmt: skip


def write(folder, rows=ROWS, tree='aligned', missing=()):
  """Writes label files and images as the owners lay them out."""
  folder.mkdir(parents=True)
  prefix = {
    'aligned': 'landmark_aligned_face',
    'faces': 'coarse_tilt_aligned_face',
  }
  for fold in range(5):
    lines = [HEADER]
    for index, (row_fold, face, age, gender) in enumerate(rows):
      if row_fold != fold:
        continue
      user, image = f'{index}@N0{fold}', f'{index}_o.jpg'
      lines.append(f'{user}\t{image}\t{face}\t{age}\t{gender}\t0\t0\t9\t9')
      if face not in missing:
        path = folder / tree / user / f'{prefix[tree]}.{face}.{image}'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(faces_on_disk.jpeg(index, 16))
    text = '\r\n'.join(lines) + '\r\n'
    (folder / f'fold_{fold}_data.txt').write_bytes(text.encode())


def open_split(tmp_path, split, **options):
  options = {'allow_unread_labels': True} | options
  return faces_on_disk.open_source(
    'adience', split, source_dir=str(tmp_path / 'raw'),
    data_dir=str(tmp_path / 'prepared'), image_size=8, cache='none', **options,
  )  # fmt: skip


@pytest.mark.parametrize(
  'text, expected',
  [
    ('(25, 32)', (U, (25, 32), '')),
    ('(38, 48)', (U, (38, 48), 'odd_interval')),
    ('35', (35, (35, 35), 'single_age')),
    ('None', (U, (U, U), 'unknown_age')),
    ('', (U, (U, U), 'unknown_age')),
    ('(32, 25)', (U, (U, U), 'bad_age')),
    ('25-32', (U, (U, U), 'bad_age')),
    ('350', (U, (U, U), 'bad_age')),
  ],
)
def test_parse_age(text, expected):
  assert adience.parse_age(text) == expected


def test_labels_and_dirt(tmp_path):
  write(tmp_path / 'raw', missing=['7'])
  with (tmp_path / 'raw' / 'fold_4_data.txt').open('a') as file:
    file.write('33627988@N04\t9509')  # Cut short.
  source = open_split(tmp_path, 'all')
  order = np.argsort([int(name.split('/')[1][0]) for name in source.names])
  assert source.names[order[1]] == ('aligned/1@N00/landmark_aligned_face.26.1_o.jpg')
  labels = {key: value[order].tolist() for key, value in source.labels.items()}
  assert labels == {
    'age': [U, U, 35, U, U, U, U, U, 2],
    'age_group': [4, 2, U, 5, U, U, U, 7, 0],
    'gender': [1, 0, U, U, 0, U, 1, 1, 0],
    'age_low': [25, 8, 35, 38, U, 8, U, 60, 2],
    'age_high': [32, 12, 35, 48, U, 23, U, 116, 2],
  }
  extras = {key: [v[row] for row in order] for key, v in source.extras.items()}
  assert extras == {
    'fold': [0, 0, 0, 1, 1, 2, 2, 3, 3],
    'user_id': [f'{i}@N0{row[0]}' for i, row in enumerate(ROWS[:9])],
    'face_id': [row[1] for row in ROWS[:9]],
  }
  assert source.preparation == {
    'label_rows': 11, 'short_row': 1, 'missing_image': 1, 'images': 9,
    'examples': 9, 'unknown_age': 2, 'single_age': 2, 'odd_interval': 2,
    'bad_age': 1, 'ungrouped_age': 2, 'unknown_gender': 2, 'bad_gender': 1,
  }  # fmt: skip


def test_groups_of_another_data_set(tmp_path):
  write(tmp_path / 'raw')
  source = open_split(tmp_path, 'all', age_groups='fairface')
  found = dict(zip(source.extras['face_id'], source.labels['age_group'], strict=True))
  assert found == {
    '1': 3, '26': 2, '2': 4, '3': 5, '27': U, '4': 2, '5': U, '6': 8, '70': 0,
    '7': U,
  }  # fmt: skip


def test_folds_and_subjects(tmp_path):
  write(tmp_path / 'raw')

  def faces(split):
    return sorted(open_split(tmp_path, split).extras['face_id'], key=int)

  for face in ('26', '27', '70'):
    head = hashlib.sha1(face.encode()).digest()[:4]
    assert 20 <= int.from_bytes(head, 'big') % 100 < 30
  assert faces('fold0') == ['1', '2', '26']
  assert faces('fold0_validation') == ['27', '70']
  assert faces('fold0_train') == ['3', '4', '5', '6', '7']
  assert faces('fold1_validation') == ['26', '70']
  everything = faces('all')
  for fold in range(5):
    parts = [faces(f'fold{fold}{part}')
             for part in ('', '_train', '_validation')]  # fmt: skip
    assert sorted(itertools.chain(*parts), key=int) == everything


def test_aligned_is_preferred_and_faces_will_do(tmp_path):
  write(tmp_path / 'raw', tree='faces')
  assert open_split(tmp_path, 'fold4').names == [
    'faces/9@N04/coarse_tilt_aligned_face.7.9_o.jpg'
  ]
  write(tmp_path / 'both', missing=['7'])
  shutil.move(tmp_path / 'both' / 'aligned', tmp_path / 'raw')
  source = open_split(tmp_path, 'all')
  # No mixture of alignments: what aligned/ lacks is missing.
  assert {name.split('/')[0] for name in source.names} == {'aligned'}
  assert source.preparation['missing_image'] == 1


def test_a_stand_in_says_so_in_its_licence(tmp_path):
  write(tmp_path / 'raw')
  assert open_split(tmp_path, 'all').licence == adience.Adience.LICENCE
  text = f'{schema.STAND_IN} made of others, not Adience; CC0\nMore of it.\n'
  (tmp_path / 'raw' / raw.STAND_IN_FILE).write_text(text)
  assert open_split(tmp_path, 'all').licence == text.splitlines()[0]


@pytest.mark.parametrize(
  'content, licence', [(b'', 'a stand-in'), (b'\xffx\ny', '\ufffdx')]
)
def test_any_file_marks_a_stand_in(tmp_path, content, licence):
  (tmp_path / raw.STAND_IN_FILE).write_bytes(content)
  assert raw.Source(tmp_path).licence == licence


def test_over_a_percent_of_unread_labels_is_refused(tmp_path):
  write(tmp_path / 'raw')
  with pytest.raises(errors.UserError, match="1 of 10 labels of age .*'young'"):
    open_split(tmp_path, 'all', allow_unread_labels=False)


def test_labels_count_in_the_fingerprint(tmp_path):
  write(tmp_path / 'raw')
  first = open_split(tmp_path, 'all')
  path = tmp_path / 'raw' / 'fold_4_data.txt'
  path.write_text(path.read_text().replace('\tm\t', '\tf\t'))
  second = open_split(tmp_path, 'all')
  assert first.fingerprint != second.fingerprint
  assert (first.labels['gender'] == 1).sum() == 3
  assert (second.labels['gender'] == 1).sum() == 4


@pytest.mark.parametrize(
  'break_, message',
  [
    (lambda raw: shutil.rmtree(raw / 'aligned'), 'holds no image'),
    (
      lambda raw: (raw / 'aligned').rename(raw / 'cropped'),
      'none of the 10 images .*aligned/0@N00/landmark_aligned_face.1.0_o.jpg',
    ),
    (
      lambda raw: (raw / 'fold_3_data.txt').unlink(),
      'holds no fold_3_data.txt; give',
    ),
    (
      lambda raw: (raw / 'fold_3_data.txt').write_text('user_id\tage\n'),
      'no column face_id, gender, original_image',
    ),
    (shutil.rmtree, 'does not exist'),
  ],
)
def test_absent_data_say_what_is_wanted(break_, message, tmp_path):
  write(tmp_path / 'raw')
  break_(tmp_path / 'raw')
  with pytest.raises(errors.UserError, match=message) as caught:
    open_split(tmp_path, 'all')
  text = str(caught.value)
  for word in ('fold_0_data.txt', 'talhassner', 'research', 'aligned/'):
    assert word in text
  assert '\n' not in text


def test_the_real_label_files(shared, tmp_path):
  """Real labels, drawn images for the first hundred rows of each fold."""
  folder = shared / 'data' / 'adience'
  if not folder.is_dir():
    pytest.skip(f'{folder} is absent (set AGEGENDER_SHARED)')
  raw_dir = tmp_path / 'raw'
  raw_dir.mkdir()
  count = 0
  for fold in range(5):
    shutil.copy(folder / f'fold_{fold}_data.txt', raw_dir)
    lines = (raw_dir / f'fold_{fold}_data.txt').read_text().splitlines()
    for line in lines[1:101]:
      user, image, face = line.split('\t')[:3]
      path = raw_dir / 'aligned' / user / f'landmark_aligned_face.{face}.{image}'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(faces_on_disk.jpeg(count, 16))
      count += 1
  source = open_split(tmp_path, 'all')
  counts = source.preparation
  assert len(source) == counts['examples'] == counts['images'] == 500
  assert counts['label_rows'] == 19_370
  assert counts['missing_image'] == 19_370 - 500
  assert 'short_row' not in counts
  assert counts['odd_interval'] == 77 + 46 + 6 + 1
  assert counts['unknown_age'] == 748 and 'bad_age' not in counts
  assert 'bad_gender' not in counts
  for fold in range(5):
    assert len(open_split(tmp_path, f'fold{fold}')) == 100
    train, held = (
      set(open_split(tmp_path, f'fold{fold}_{part}').extras['face_id'])
      for part in ('train', 'validation')
    )
    assert held and not train & held
