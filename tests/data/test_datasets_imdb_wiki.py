import datetime

import faces_on_disk
import numpy as np
import pytest
import scipy.io

from agegender_jax import errors, schema
from agegender_jax.data.datasets import imdb_wiki

U = schema.UNKNOWN
NAN, INF = float('nan'), float('inf')


def matlab(year, month, day):
  """Returns a serial date number: 1 is the first of January of year 0."""
  return datetime.date(year, month, day).toordinal() + 366


# path, born, year of the photo, gender (1 male), face score, second score.
ROWS = [
  ('17/a_1980-07-01_2010.jpg', matlab(1980, 7, 1), 2010, 1.0, 3.5, NAN),
  ('17/b_1980-07-02_2010.jpg', matlab(1980, 7, 2), 2010, 0.0, 3.5, NAN),
  ('17/c_1910-01-01_2010.jpg', matlab(1910, 1, 1), 2010, NAN, 1.0, NAN),
  ('17/d_no_face.jpg', matlab(1980, 1, 1), 2010, 1.0, -INF, NAN),
  ('17/e_weak.jpg', matlab(1980, 1, 1), 2010, 1.0, 0.99, NAN),
  ('17/f_two.jpg', matlab(1980, 1, 1), 2010, 1.0, 4.0, 1.5),
  ('17/g_old.jpg', matlab(1909, 1, 1), 2010, 1.0, 4.0, NAN),
  ('17/h_unborn.jpg', matlab(2011, 1, 1), 2010, 1.0, 4.0, NAN),
  ('17/i_year_0.jpg', 47, 2010, 1.0, 4.0, NAN),
  ('17/j_absent.jpg', matlab(1980, 1, 1), 2010, 1.0, 4.0, NAN),
]


def write(folder, name='imdb', rows=ROWS, absent=('17/j_absent.jpg',)):
  """Writes crops and metadata as the owners' archive unpacks."""
  folder = folder / f'{name}_crop'
  for index, row in enumerate(rows):
    if row[0] not in absent:
      path = folder / row[0]
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(faces_on_disk.jpeg(index, 16))

  def cells(values):
    result = np.empty((1, len(values)), object)
    result[0] = values
    return result

  columns = list(zip(*rows, strict=True))
  table = {
    'dob': np.array([columns[1]], np.int32),
    'photo_taken': np.array([columns[2]], np.uint16),
    'full_path': cells(columns[0]),
    'gender': np.array([columns[3]]),
    'name': cells(['A Name'] * len(rows)),
    'face_location': cells([np.array([[1.0, 1.0, 9.0, 9.0]])] * len(rows)),
    'face_score': np.array([columns[4]]),
    'second_face_score': np.array([columns[5]]),
  }
  scipy.io.savemat(folder / f'{name}.mat', {name: table})


def open_all(tmp_path, where='raw'):
  return faces_on_disk.open_source(
    'imdb_wiki', 'all', source_dir=str(tmp_path / where),
    data_dir=str(tmp_path / 'prepared'), image_size=8, cache='none',
  )  # fmt: skip


def test_ages_are_those_of_the_first_of_july():
  born = [matlab(2000, 7, 1), matlab(2000, 7, 2), matlab(2000, 2, 29), NAN]
  ages = imdb_wiki.ages(np.array(born), np.full(4, 2020.0))
  np.testing.assert_array_equal(ages, [20, 19, 20, NAN])
  # The owners: dob 693726 is the tenth of May 1899.
  assert imdb_wiki.ages(np.array([693726]), np.array([1968]))[0] == 69


@pytest.mark.parametrize('where', ['raw', 'raw/imdb_crop'])
def test_labels_and_drops(where, tmp_path):
  write(tmp_path / 'raw')
  source = open_all(tmp_path, where)
  order = np.argsort(source.names)
  prefix = 'imdb_crop/' if where == 'raw' else ''
  assert [source.names[row] for row in order] == [prefix + row[0] for row in ROWS[:3]]
  assert source.labels['age'][order].tolist() == [30, 29, 100]
  # The owners' 1 is male.
  assert source.labels['gender'][order].tolist() == [0, 1, U]
  assert source.preparation == {
    'label_rows': 10, 'no_face': 1, 'low_face_score': 1, 'second_face': 1,
    'age_out_of_range': 3, 'missing_image': 1, 'images': 3, 'examples': 3,
    'unknown_gender': 1,
  }  # fmt: skip
  assert 'academic research' in source.licence


def test_both_parts_are_read(tmp_path):
  write(tmp_path / 'raw')
  write(tmp_path / 'raw', 'wiki', [('00/z.jpg', *ROWS[0][1:])])
  names = open_all(tmp_path).names
  assert len(names) == 4 and 'wiki_crop/00/z.jpg' in names


def test_metadata_may_lie_beside_the_crops(tmp_path):
  write(tmp_path / 'raw')
  (tmp_path / 'raw/imdb_crop/imdb.mat').rename(tmp_path / 'raw/imdb.mat')
  assert len(open_all(tmp_path)) == 3


@pytest.mark.parametrize(
  'break_, message',
  [
    (lambda mat: mat.unlink(), 'holds no imdb.mat, no wiki.mat'),
    (lambda mat: mat.write_bytes(b'no mat'), 'not the owners. metadata'),
    (
      lambda mat: scipy.io.savemat(mat, {'imdb': {'dob': np.ones((1, 3))}}),
      'not the owners. metadata',
    ),
    (
      lambda mat: (mat.parent / '17').rename(mat.parent / '18'),
      'none of the 10 images',
    ),
  ],
)
def test_absent_data_say_what_is_wanted(break_, message, tmp_path):
  write(tmp_path / 'raw')
  break_(tmp_path / 'raw/imdb_crop/imdb.mat')
  with pytest.raises(errors.UserError, match=message) as caught:
    open_all(tmp_path)
  for word in ('imdb_crop/', 'data.vision.ee.ethz.ch', 'academic research'):
    assert word in str(caught.value)
  assert '\n' not in str(caught.value)
