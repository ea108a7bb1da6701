"""IMDB-WIKI (Rothe, Timofte & Van Gool 2015): crawled celebrities, for DEX."""

import numpy as np
import scipy

from agegender_jax import errors, schema
from agegender_jax.data import raw
from agegender_jax.data.datasets import base

# The owners publish that a face must be detected and no second one strongly;
# the least score is the customary one, theirs is not printed.
MIN_FACE_SCORE = 1.0
OLDEST = 100  # DEX has the classes 0 to 100.
_EPOCH = 719529  # 1970-01-01 as a Matlab serial date number.
_FIELDS = (
  'dob', 'photo_taken', 'full_path', 'gender', 'face_score',
  'second_face_score',
)  # fmt: skip


class ImdbWiki(base.FaceBuilder):
  """Crops with the age from birth date and year; splits by the image."""

  name = 'imdb_wiki'
  LICENCE = 'academic research only; the copyright stays with the owners'
  HOMEPAGE = 'https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/'
  DESCRIPTION = 'Up to 523,051 faces from IMDb and Wikipedia.'
  LABEL_FILES = ('imdb.mat', 'wiki.mat')
  NEEDED_LABEL_FILES = 1
  WANTED = (
    'give the folder that holds the unpacked imdb_crop/ or wiki_crop/ (or both) '
    f'with imdb.mat or wiki.mat, which the owners offer at {HOMEPAGE} for '
    'academic research only'
  )
  REASONS = base.FaceBuilder.REASONS | {
    'no_face': 'rows without a detected face, skipped',
    'low_face_score': 'rows whose face is detected too weakly, skipped',
    'second_face': 'rows with a second face, skipped',
    'age_out_of_range': 'rows with an age outside 0-100, skipped',
  }

  def label_images(self, images, found):
    for path in self.source.labels:
      columns = read_metadata(path)
      folder = path.parent.relative_to(self.source.path).as_posix()
      places = ['' if folder == '.' else f'{folder}/', f'{path.stem}_crop/']
      label_rows(columns, images, places, found)


def read_metadata(path) -> dict[str, np.ndarray]:
  """Reads the owners' table, a struct named after the file.

  Args:
    path: of imdb.mat or wiki.mat.

  Returns:
    float64 [N] of dob (Matlab serial date number), photo_taken (year), gender
    (the owners' 0 female, 1 male, NaN unknown), face_score (-inf: no face),
    second_face_score (NaN: none); full_path, a list of N strings.

  Raises:
    errors.UserError: not such a file.
  """
  try:
    table = scipy.io.loadmat(path)[path.stem][0, 0]
    columns = {name: table[name].ravel() for name in _FIELDS}
    paths = [str(cell[0]) for cell in columns.pop('full_path')]
    columns = {k: v.astype(np.float64) for k, v in columns.items()}
  except Exception as error:  # scipy raises whatever it met.
    raise errors.UserError(
      f'"{path}" is not the owners\' metadata ({errors.one_line(error)}); '
      f'{ImdbWiki.WANTED}'
    ) from None
  return columns | {'full_path': paths}


def label_rows(
  columns: dict, images: dict[str, raw.RawFile], places: list[str], found
) -> None:
  """Labels the images that pass the owners' rules and are there.

  Args:
    columns: of `read_metadata`.
    images: of `raw.Source.by_path`.
    places: folders in which the paths of the table may begin.
    found: base.Collected, gets the examples, each drop by its first reason.
  """
  age = ages(columns['dob'], columns['photo_taken'])
  score = columns['face_score']
  reason = np.select(
    [
      ~np.isfinite(score),
      score < MIN_FACE_SCORE,
      ~np.isnan(columns['second_face_score']),
      ~((age >= 0) & (age <= OLDEST)),  # Also where it is NaN.
    ],
    ['no_face', 'low_face_score', 'second_face', 'age_out_of_range'],
    '',
  )
  genders = {1.0: schema.MALE, 0.0: schema.FEMALE}  # The reverse of this package's.
  found.counts['label_rows'] += len(age)
  for row, path in enumerate(columns['full_path']):
    if reason[row]:
      found.counts[str(reason[row])] += 1
      continue
    place = next((p for p in places if raw.lookup_key(p + path) in images), '')
    if example := found.add_image(images, place + path, age=float(age[row])):
      code = float(columns['gender'][row])
      gender = schema.UNKNOWN if np.isnan(code) else genders.get(code)
      example.gender = found.add_gender(code, gender)


def ages(birth: np.ndarray, year: np.ndarray) -> np.ndarray:
  """Computes ages on the first of July of the year, as the owners do.

  Args:
    birth: float [N], Matlab serial date numbers.
    year: float [N], in which the photo was taken.

  Returns:
    float64 [N], completed years; NaN where either is no date.
  """
  is_date = np.isfinite(birth) & np.isfinite(year)
  days = np.where(is_date, birth, 0).astype(np.int64) - _EPOCH
  date = days.astype('datetime64[D]')
  first = date.astype('datetime64[Y]')
  july = first.astype('datetime64[M]') + np.timedelta64(6, 'M')
  is_later = date > july.astype('datetime64[D]')
  age = year - (first.astype(np.int64) + 1970) - is_later
  return np.where(is_date, age, np.nan)
