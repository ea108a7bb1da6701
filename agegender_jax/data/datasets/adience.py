"""Adience (Eidinger, Enbar & Hassner 2014): faces of five folds by subject."""

import collections
import re

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from agegender_jax import errors, schema
from agegender_jax.data import labels as labels_lib
from agegender_jax.data import raw, splits
from agegender_jax.data.datasets import base

NUM_FOLDS = 5
# The trees in which the owners offer the faces, the better aligned one first.
_TREES = {
  'aligned': 'aligned/{}/landmark_aligned_face.{}.{}',
  'faces': 'faces/{}/coarse_tilt_aligned_face.{}.{}',
}


def _atoms(folds, parts=('train', 'validation')):
  return '+'.join(f'part{fold}_{part}' for fold in folds for part in parts)


def _splits():
  found = {'all': _atoms(range(NUM_FOLDS))}
  for fold in range(NUM_FOLDS):
    others = [other for other in range(NUM_FOLDS) if other != fold]
    found[f'fold{fold}'] = _atoms([fold])
    for part in ('train', 'validation'):
      found[f'fold{fold}_{part}'] = _atoms(others, [part])
  return found


class Adience(base.FaceBuilder):
  """The owners' five folds, and a validation part within four of them.

  `fold{k}` is the owners' fold k. `fold{k}_validation` is, of the other four,
  every subject whose `splits.percent` of the face_id (its decimal digits in
  ASCII; SHA-1, first four bytes, big-endian, mod 100) is 20 to 29, and
  `fold{k}_train` the rest of those four. A subject is a face_id: the user_id
  only names the owner of the album.
  """

  VERSION = tfds.core.Version('1.2.1')
  name = 'adience'
  LICENCE = 'research only; Creative Commons images of their owners'
  HOMEPAGE = 'https://talhassner.github.io/home/projects/Adience/Adience-data.html'
  DESCRIPTION = 'Flickr faces in eight age groups, five folds by subject.'
  LABEL_FILES = tuple(f'fold_{fold}_data.txt' for fold in range(NUM_FOLDS))
  WANTED = (
    'give the folder that holds fold_0_data.txt to fold_4_data.txt and the '
    'unpacked aligned/ or faces/, which the owners offer after registration at '
    f'{HOMEPAGE} for research (Creative Commons images)'
  )
  KNOWN = {'age': 'groups such as (25, 32), or years', 'gender': 'm, f, u'}
  HAS_INTERVALS = True
  SPLITS = _splits()
  REASONS = base.FaceBuilder.REASONS | {
    'short_row': 'rows cut short, skipped',
    'single_age': 'ages given as one year where groups are the rule',
    'odd_interval': 'ages given as another interval than the groups',
    'ungrouped_age': 'ages that fit no group, whose group is unknown',
  }

  def extra_features(self):
    return {
      'fold': np.int64,
      'user_id': tfds.features.Text(),
      'face_id': tfds.features.Text(),
    }

  def label_images(self, images, found):
    rows, counts = read_rows(self.source.labels)
    found.counts += counts
    tree = next(
      (
        tree
        for tree in _TREES
        if any(raw.lookup_key(_path(tree, row)) in images for row in rows)
      ),
      None,
    )
    if tree is None:
      raise errors.UserError(
        f'"{self.source.path}" holds none of the {len(rows)} images of its label '
        f'files, such as {_path("aligned", rows[0])} or {_path("faces", rows[0])}; '
        f'{self.WANTED}'
      )
    logging.info('adience: images of %s/', tree)
    for row in rows:
      self._label_row(row, _path(tree, row), images, found)

  def _label_row(self, row, name, images, found):
    age, interval, problem = parse_age(row['age'])
    found.add_interval(row['age'], interval, problem)
    gender = found.add_gender(row['gender'], labels_lib.parse_gender(row['gender']))
    is_known = interval[0] != schema.UNKNOWN
    group = schema.group_of_interval(*interval, 'adience')
    found.counts['ungrouped_age'] += int(is_known and group == schema.UNKNOWN)
    extras = {key: row[key] for key in ('fold', 'user_id', 'face_id')}
    found.add_image(
      images, name, age=age, gender=gender, extras=extras, interval=interval
    )

  def split_examples(self, examples):
    def part(example):
      value = splits.percent(example.extras['face_id'].encode())
      held = splits.split_of(value) == 'validation'
      return f'part{example.extras["fold"]}_{"validation" if held else "train"}'

    return base.group_by(examples, part)


def read_rows(paths) -> tuple[list[dict], collections.Counter]:
  """Reads the label files, in the order of the folds.

  Returns:
    A dict per row (user_id, original_image, face_id, age, gender as written,
    fold), and a Counter of label_rows and those cut short.

  Raises:
    errors.UserError: a file is not one of the owners'.
  """
  rows, counts = [], collections.Counter()
  needed = ('age', 'face_id', 'gender', 'original_image', 'user_id')
  for fold, path in enumerate(paths):
    _, found, dirt = raw.read_table(path, needed, Adience.WANTED, '\t')
    counts += dirt + collections.Counter(label_rows=len(found))
    for row in found:
      row = {column: text.strip() for column, text in row.items()}
      counts['short_row'] += not row['face_id']
      if row['face_id']:
        rows.append(row | {'fold': fold})
  return rows, counts


def parse_age(text: str) -> tuple[float, tuple[int, int], str]:
  """Reads an age label.

  `35` gives the years, which are known then; `(25, 32)` gives only between
  which years they lie. Either is in the group that covers at least half of
  its years (`schema.group_of_interval`): 35 is in none.

  Returns:
    (years, (first, last year), what is odd or ''), UNKNOWN where not known.
  """
  nothing = float(schema.UNKNOWN), (schema.UNKNOWN, schema.UNKNOWN)
  if text.lower() in labels_lib.UNKNOWN_WORDS:
    return *nothing, 'unknown_age'
  is_age = re.fullmatch(r'\d{1,3}|\(\d{1,3}, *\d{1,3}\)', text, re.ASCII)
  years = [int(word) for word in re.findall(r'\d+', text)] if is_age else [1, 0]
  if not years[0] <= years[-1] <= labels_lib.OLDEST:
    return *nothing, 'bad_age'
  if len(years) == 1:
    return float(years[0]), (years[0], years[0]), 'single_age'
  is_group = tuple(years) in schema.AGE_GROUPS['adience']
  return nothing[0], tuple(years), '' if is_group else 'odd_interval'


def _path(tree, row):
  return _TREES[tree].format(row['user_id'], row['face_id'], row['original_image'])
