"""IMDB-WIKI (Rothe, Timofte & Van Gool 2015): crawled celebrities, for DEX."""

import collections

import numpy as np
import scipy
import tensorflow_datasets as tfds

from agegender_jax import errors, schema
from agegender_jax.data.datasets import common, raw
from agegender_jax.data.datasets import examples as examples_lib

HOMEPAGE = 'https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/'
LABELS = ('imdb.mat', 'wiki.mat')
WANTED = (
  'give the folder that holds the unpacked imdb_crop/ or wiki_crop/ (or both) '
  f'with imdb.mat or wiki.mat, which the owners offer at {HOMEPAGE} for '
  'academic research only'
)
# The owners publish that a face must be detected and no second one strongly;
# the least score is the customary one, theirs is not printed.
MIN_FACE_SCORE = 1.0
OLDEST = 100  # DEX has the classes 0 to 100.
_EPOCH = 719529  # 1970-01-01 as a Matlab serial date number.
_FIELDS = (
  'dob', 'photo_taken', 'full_path', 'gender', 'face_score',
  'second_face_score',
)  # fmt: skip


class ImdbWiki(common.FaceBuilder):
  """Crops with the age from birth date and year; splits by the picture."""

  name = 'imdb_wiki'
  LICENCE = 'academic research only; the copyright stays with the owners'
  HOMEPAGE = HOMEPAGE
  DESCRIPTION = 'Up to 523,051 faces from IMDb and Wikipedia.'

  def collect(self):
    source = self.builder_config.source
    files = source.by_path()
    examples, counts = [], collections.Counter()
    for path in source.labels:
      columns = read_metadata(path)
      folder = path.parent.relative_to(source.path).as_posix()
      places = ['' if folder == '.' else f'{folder}/', f'{path.stem}_crop/']
      examples += label_rows(columns, files, places, counts)
    if not counts['pictures']:
      raise errors.UserError(
        f'"{source.path}" holds none of the {counts["label_rows"]} pictures '
        f'of its label files; {WANTED}'
      )
    return sorted(examples, key=lambda example: example.name), counts


def create_builder(
  source_dir: str, data_dir: str | None, **options
) -> tfds.core.DatasetBuilder:
  """Creates the builder of one or both of the owners' parts.

  Args:
    source_dir: holds imdb.mat or wiki.mat or both, and the crops.
    data_dir: where the prepared data go; None = TFDS's own.
    **options: those of other builders, not used.

  Raises:
    errors.UserError: the raw data are absent.
  """
  del options
  source = raw.find_labelled(source_dir, LABELS, WANTED, at_least=1)
  config = common.SourceConfig(name=source.fingerprint(), source=source)
  return ImdbWiki(data_dir=data_dir, config=config, file_format='array_record')


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
      f'"{path}" is not the owners\' metadata ({type(error).__name__}: '
      f'{error}); {WANTED}'
    ) from None
  return columns | {'full_path': paths}


def label_rows(
  columns: dict,
  files: dict[str, raw.RawFile],
  places: list[str],
  counts: collections.Counter,
) -> list[examples_lib.Example]:
  """Labels the pictures that pass the owners' rules and are there.

  Args:
    columns: of `read_metadata`.
    files: of `raw.Source.by_path`.
    places: folders in which the paths of the table may begin.
    counts: gets one more for each row, each drop by its first reason.
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
  # The owners' code is the reverse of ours.
  gender = np.select(
    [columns['gender'] == 1, columns['gender'] == 0],
    [schema.MALE, schema.FEMALE],
    schema.UNKNOWN,
  )
  counts['label_rows'] += len(age)
  examples = []
  for row, path in enumerate(columns['full_path']):
    if reason[row]:
      counts[str(reason[row])] += 1
      continue
    name = next((p + path for p in places if p + path in files), None)
    if name is None:
      counts['missing_picture'] += 1
      continue
    counts['pictures'] += 1
    counts['unknown_gender'] += int(gender[row] == schema.UNKNOWN)
    examples.append(
      examples_lib.Example(name, files[name].read, float(age[row]), int(gender[row]))
    )
  return examples


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
