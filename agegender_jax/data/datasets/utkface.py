"""UTKFace (Zhang, Song & Qi 2017): the aligned and cropped faces."""

import hashlib
import os
import re

import numpy as np

from agegender_jax import errors, schema
from agegender_jax.data import labels as labels_lib
from agegender_jax.data import splits
from agegender_jax.data.datasets import base

WELL_FORMED = re.compile(r'\d+_[01]_[0-4]_\d+\.jpg\.chip\.jpg', re.ASCII)
SEED_EXAMPLES = 5000
# What the names' codes 0 to 4 mean, in the owners' words.
RACES = ('White', 'Black', 'Asian', 'Indian', 'Others')
# A blank before the extension or a missing dot leaves the fields readable.
_STEM = re.compile(r'(?P<stem>.*?)\s*\.?(jpe?g)?\s*(\.chip)?\s*\.[a-z]+', re.IGNORECASE)
_SEED5K = [f'seed5k_{part}' for part in splits.PARTS]
_REST = [f'rest_{part}' for part in splits.PARTS]
NAME_REASONS = {
  'missing_field': 'names without a field, which is unknown',
  'unusable_name': 'names without labels, skipped',
  'bad_race': 'races that cannot be read, set to unknown',
}


class UTKFace(base.FaceBuilder):
  """Faces named age_gender_race_date; gender 0 male, 1 female; race 0-4."""

  name = 'utkface'
  LICENCE = 'non-commercial research only; the copyright stays with the owners'
  HOMEPAGE = 'https://susanqq.github.io/UTKFace/'
  DESCRIPTION = 'About 23,700 faces of age 1 to 116, 200 x 200 pixels.'
  WANTED = (
    "give the folder of UTKFace's aligned and cropped faces, or UTKFace.tar.gz, "
    f'which its owners offer at {HOMEPAGE} for non-commercial research'
  )
  SPLITS = {
    **{part: f'seed5k_{part}+rest_{part}' for part in splits.PARTS},
    **{name: name for name in _SEED5K},
    'seed5k_trainval': 'seed5k_train+seed5k_validation',
    'seed5k': '+'.join(_SEED5K),
    'all': '+'.join(_SEED5K + _REST),
    # Outside the 5,000: what a run on them may be calibrated on.
    **{name: name for name in _REST},
  }
  VALUE_NAMES = {'race': dict(enumerate(RACES))}
  REASONS = (
    base.FaceBuilder.REASONS
    | NAME_REASONS
    | {
      'repaired_name': 'malformed names, read all the same',
      'repeated_name': 'further copies of a name in other folders, skipped',
    }
  )

  def extra_features(self):
    return {'race': np.int64}

  def collect(self):
    found = label_by_name(self.source, self.WANTED)
    first, kept = set(), []
    for example in found.examples:
      base_name = os.path.basename(example.name)
      if base_name in first:
        found.counts['repeated_name'] += 1
        continue
      first.add(base_name)
      kept.append(example)
      labels = example.age, example.gender, example.extras['race']
      if schema.UNKNOWN not in labels and not WELL_FORMED.fullmatch(base_name):
        example.problems += ('repaired_name',)
        found.counts['repaired_name'] += 1
    found.examples = kept
    return found

  def split_examples(self, examples):
    seed = seed5k_rows([os.path.basename(example.name) for example in examples])
    seed = {id(examples[row]) for row in seed}
    return base.group_by(
      examples, lambda e: f'{"seed5k" if id(e) in seed else "rest"}_{e.part}'
    )


def label_by_name(source, wanted: str) -> base.Collected:
  """Labels images by their names.

  Args:
    source: raw.Source.
    wanted: what to say where the names are others.

  Raises:
    errors.UserError: the names are of another convention.
  """
  found = base.Collected()
  files, passed_over = source.images()
  found.counts.update(images=len(files), passed_over=passed_over.total())
  named = 0
  for file in files:
    name = os.path.basename(file.name)
    labels = parse_name(name)
    found.labels.add('name', name if labels is None else 'with labels', labels)
    if labels is None:
      found.counts['unusable_name'] += 1
      found.skipped.append(
        base.Example(file.name, file.read, problems=('unusable_name',))
      )
      continue
    age, gender, race, problem = labels
    fields = _fields(name)
    for column, text, value, bad in (
      ('age', fields[0], age, 'bad_age'),
      ('gender', fields[1], gender, 'bad_gender'),
      ('race', fields[2], race, 'bad_race'),
    ):
      unread = text and value == schema.UNKNOWN
      found.labels.add(column, text, None if unread else value)
      found.counts[bad] += bool(unread)
    found.counts['missing_field'] += problem == 'missing_field'
    named += schema.UNKNOWN not in (gender, race)
    found.examples.append(
      base.Example(
        file.name,
        file.read,
        age,
        gender,
        {'race': race},
        problems=(problem,) if problem else (),
      )
    )
  if not named:
    example = f', such as "{files[0].name}"' if files else ''
    raise errors.UserError(
      f'no image in "{source.path}" is named age_gender_race_date.jpg with codes '
      f'of gender and race{example}; {wanted}'
    )
  return found


def parse_name(name: str) -> tuple[float, int, int, str] | None:
  """Reads age, gender and race off a file name, as far as they are certain.

  Args:
    name: the file name without folders.

  Returns:
    (age in years, gender, race, what is wrong or ''), each UNKNOWN where it is
    missing or ambiguous; None where the name has no such labels.
  """
  fields = _fields(name)
  if not fields:
    return None
  problem = 'missing_field' if '' in fields[1:3] else ''
  age = float(fields[0])
  if age > labels_lib.OLDEST:
    age, problem = float(schema.UNKNOWN), 'bad_age'
  gender, race = schema.UNKNOWN, schema.UNKNOWN
  if fields[1] in ('0', '1'):
    gender = int(fields[1])
  elif fields[1]:
    problem = 'bad_gender'
  if fields[2] in ('0', '1', '2', '3', '4'):
    race = int(fields[2])
  elif fields[2]:
    problem = problem or 'bad_race'
  return age, gender, race, problem


def seed5k_rows(names: list[str]) -> set[int]:
  """Picks the images of the protocol `seed5k`.

  Args:
    names: file names without folders.

  Returns:
    The rows of the first 5,000 well-formed names by their SHA-1's hex digits,
    of several copies of a name the first.
  """
  rows = {}
  for row, name in enumerate(names):
    if WELL_FORMED.fullmatch(name):
      rows.setdefault(name, row)
  order = sorted(rows, key=lambda name: hashlib.sha1(name.encode()).hexdigest())
  return {rows[name] for name in order[:SEED_EXAMPLES]}


def _fields(name):
  """Returns age, gender, race and the rest, '' where missing; () for no labels."""
  match = _STEM.fullmatch(name)
  fields = match['stem'].split('_', 3) if match else []
  if len(fields) == 3 and re.fullmatch(r'\d{8,}', fields[2], re.ASCII):
    # Gender or race is missing; only 2-4 can be nothing but a race.
    is_race = fields[1] in ('2', '3', '4')
    fields = [fields[0], '', fields[1] if is_race else '', fields[2]]
  if len(fields) != 4 or not re.fullmatch(r'\d{1,3}', fields[0], re.ASCII):
    return ()
  return fields
