"""Adience (Eidinger, Enbar & Hassner 2014): faces of five folds by subject."""

import collections
import os
import re

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from agegender_jax import errors, schema
from agegender_jax.data import splits
from agegender_jax.data.datasets import common, raw
from agegender_jax.data.datasets import examples as examples_lib

NUM_FOLDS = 5
HOMEPAGE = 'https://talhassner.github.io/home/projects/Adience/Adience-data.html'
WANTED = (
  'give the folder that holds fold_0_data.txt to fold_4_data.txt and the '
  'unpacked aligned/ or faces/, which the owners offer after registration at '
  f'{HOMEPAGE} for research (Creative Commons pictures)'
)
GENDERS = {'m': schema.MALE, 'f': schema.FEMALE}
# As the owners' files write what they do not know.
_NO_AGE = ('', 'None')
_NO_GENDER = ('', 'u')
# The trees in which the owners offer the faces, the better aligned one first.
_TREES = {
  'aligned': 'aligned/{}/landmark_aligned_face.{}.{}',
  'faces': 'faces/{}/coarse_tilt_aligned_face.{}.{}',
}
# The users, one a fold, that scripts/stand_in_folds.py makes up.
STAND_IN_ALBUMS = tuple(f'{10_000_000 + fold}@N00' for fold in range(NUM_FOLDS))
# The ages that seed 003's printed code knows; the files say (8, 12).
_SEED003_AGES = (
  '(0, 2)', '(4, 6)', '(8, 13)', '(15, 20)', '(25, 32)', '(38, 43)',
  '(48, 53)', '(60, 100)',
)  # fmt: skip


def _atoms(folds, parts=('train', 'validation')):
  return '+'.join(f'part{fold}_{part}' for fold in folds for part in parts)


class Adience(common.FaceBuilder):
  """The owners' five folds, and a validation part within four of them.

  `fold{k}` is the owners' fold k. `fold{k}_validation` is, of the other four,
  every subject whose `splits.percent` of the face_id (its decimal digits in
  ASCII; SHA-1, first four bytes, big-endian, mod 100) is 20 to 29, and
  `fold{k}_train` the rest of those four. A subject is a face_id: the user_id
  only names the owner of the album.
  """

  name = 'adience'
  LICENCE = 'research only; Creative Commons pictures of their owners'
  HOMEPAGE = HOMEPAGE
  DESCRIPTION = 'Flickr faces in eight age groups, five folds by subject.'
  HAS_INTERVALS = True
  SPLITS = {'all': _atoms(range(NUM_FOLDS))} | {
    name: atoms
    for fold in range(NUM_FOLDS)
    for others in [[k for k in range(NUM_FOLDS) if k != fold]]
    for name, atoms in {
      f'fold{fold}': _atoms([fold]),
      f'fold{fold}_train': _atoms(others, ['train']),
      f'fold{fold}_validation': _atoms(others, ['validation']),
    }.items()
  }

  def extra_features(self):
    return {
      'fold': np.int64,
      'user_id': tfds.features.Text(),
      'face_id': tfds.features.Text(),
    }

  def collect(self):
    source = self.builder_config.source
    rows, counts = read_rows(source.labels)
    examples = label_rows(rows, source.by_path(), counts)
    if not examples:
      raise errors.UserError(
        f'"{source.path}" holds none of the {len(rows)} pictures of its label '
        f'files, such as {_path("aligned", rows[0])} or '
        f'{_path("faces", rows[0])}; {WANTED}'
      )
    return examples, counts

  def split_examples(self, examples):
    groups = collections.defaultdict(list)
    for example in examples:
      value = splits.percent(example.extras['face_id'].encode())
      held = splits.split_of(value) == 'validation'
      part = 'validation' if held else 'train'
      groups[f'part{example.extras["fold"]}_{part}'].append(example)
    return groups


class StandIn(Adience, skip_registration=True):
  """What scripts/stand_in_folds.py writes: other pictures in this layout.

  Their groups are not Adience's, so what counts against those is left out.
  """

  LICENCE = f'{schema.STAND_IN} made of FairFace, not Adience; CC BY 4.0'

  def collect(self):
    examples, counts = super().collect()
    for key in ('odd_interval', 'ungrouped_age', 'seed003_mislabelled_age'):
      del counts[key]
    return examples, counts


def create_builder(
  source_dir: str, data_dir: str | None, **options
) -> tfds.core.DatasetBuilder:
  """Creates the builder of the owners' folder.

  Args:
    source_dir: holds the five label files and aligned/ or faces/.
    data_dir: where the prepared data go; None = TFDS's own.
    **options: those of other builders, not used.

  Raises:
    errors.UserError: the raw data are absent.
  """
  del options
  names = tuple(f'fold_{fold}_data.txt' for fold in range(NUM_FOLDS))
  source = raw.find_labelled(source_dir, names, WANTED)
  config = common.SourceConfig(name=source.fingerprint(), source=source)
  albums = {os.path.basename(os.path.dirname(f.path)) for f in source.files}
  kind = Adience if albums.isdisjoint(STAND_IN_ALBUMS) else StandIn
  return kind(data_dir=data_dir, config=config, file_format='array_record')


def read_rows(paths) -> tuple[list[dict], collections.Counter]:
  """Reads the label files, in the order of the folds.

  Returns:
    A dict a row (user_id, original_image, face_id, age, gender as written,
    fold), and a Counter of what was wrong with the labels; seed003_* count
    the rows to which seed 003's printed code gives the previous row's age
    (it knows `(8, 13)` alone, the files say `(8, 12)`), or `female` for want
    of an `m`.

  Raises:
    errors.UserError: a file is not one of the owners'.
  """
  rows, counts = [], collections.Counter()
  for fold, path in enumerate(paths):
    lines = path.read_text('utf-8', 'replace').splitlines()
    columns = lines[0].split('\t') if lines else []
    missing = {'user_id', 'original_image', 'face_id', 'age', 'gender'}
    missing -= set(columns)
    if missing:
      raise errors.UserError(
        f'"{path}" has no column {", ".join(sorted(missing))}; {WANTED}'
      )
    for line in filter(None, lines[1:]):
      row = dict.fromkeys(columns, '')
      row |= zip(columns, map(str.strip, line.split('\t')), strict=False)
      row['fold'] = fold
      counts['label_rows'] += 1
      counts['seed003_mislabelled_age'] += row['age'] not in _SEED003_AGES
      counts['seed003_mislabelled_gender'] += row['gender'] not in GENDERS
      if row['face_id']:
        rows.append(row)
      else:
        counts['short_row'] += 1
  return rows, counts


def label_rows(
  rows: list[dict], files: dict[str, raw.RawFile], counts: collections.Counter
) -> list[examples_lib.Example]:
  """Labels the pictures that are there; adds to the counts what is wrong.

  Args:
    rows: of `read_rows`.
    files: of `raw.Source.by_path`.
    counts: gets one more for each thing that is wrong.

  Returns:
    Examples of one tree: aligned/ where it holds a picture, else faces/.
  """
  tree = next(
    (tree for tree in _TREES if any(_path(tree, row) in files for row in rows)),
    None,
  )
  logging.info('adience: pictures of %s/', tree)
  examples = []
  for row in rows:
    age, interval, problem = parse_age(row['age'])
    if problem:
      counts[problem] += 1
    group = schema.group_of_interval(*interval, 'adience')
    if interval[0] != schema.UNKNOWN and group == schema.UNKNOWN:
      counts['ungrouped_age'] += 1
    if row['gender'] not in GENDERS:
      is_unknown = row['gender'] in _NO_GENDER
      counts['unknown_gender' if is_unknown else 'bad_gender'] += 1
    name = _path(tree, row) if tree else ''
    if name not in files:
      counts['missing_picture'] += 1
      continue
    counts['pictures'] += 1
    extras = {key: row[key] for key in ('fold', 'user_id', 'face_id')}
    gender = GENDERS.get(row['gender'], schema.UNKNOWN)
    examples.append(
      examples_lib.Example(name, files[name].read, age, gender, extras, interval)
    )
  # Rows of a split lie in the order of the names.
  return sorted(examples, key=lambda example: example.name)


def parse_age(text: str) -> tuple[float, tuple[int, int], str]:
  """Reads an age label.

  `35` gives the years, which are known then; `(25, 32)` gives only between
  which years they lie. Either is in the group that covers at least half of
  its years (`schema.group_of_interval`): 35 is in none.

  Returns:
    (years, (first, last year), what is odd or ''), UNKNOWN where not known.
  """
  nothing = float(schema.UNKNOWN), (schema.UNKNOWN, schema.UNKNOWN)
  if text in _NO_AGE:
    return *nothing, 'unknown_age'
  years = [int(word) for word in re.findall(r'\d+', text)]
  is_age = re.fullmatch(r'\d{1,3}|\(\d{1,3}, *\d{1,3}\)', text, re.ASCII)
  if not is_age or not years[0] <= years[-1] <= examples_lib.OLDEST:
    return *nothing, 'bad_age'
  if len(years) == 1:
    return float(years[0]), (years[0], years[0]), 'single_age'
  is_group = tuple(years) in schema.AGE_GROUPS['adience']
  return nothing[0], tuple(years), '' if is_group else 'odd_interval'


def _path(tree, row):
  return _TREES[tree].format(row['user_id'], row['face_id'], row['original_image'])
