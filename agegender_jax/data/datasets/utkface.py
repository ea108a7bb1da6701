"""UTKFace (Zhang, Song & Qi 2017): the aligned and cropped faces."""

import collections
import hashlib
import re

import numpy as np
import tensorflow_datasets as tfds

from agegender_jax import errors, schema
from agegender_jax.data.datasets import common, raw
from agegender_jax.data.datasets import examples as examples_lib

LICENCE = 'non-commercial research only; the copyright stays with the owners'
WANTED = (
  'give the folder of UTKFace\'s aligned and cropped faces, or UTKFace.tar.gz, '
  'which its owners offer at https://susanqq.github.io/UTKFace/ for '
  'non-commercial research'
)  # fmt: skip
WELL_FORMED = re.compile(r'\d+_[01]_[0-4]_\d+\.jpg\.chip\.jpg')
SEED_EXAMPLES = 5000
# What the names' codes 0 to 4 mean, in the owners' words.
RACES = ('White', 'Black', 'Asian', 'Indian', 'Others')
# A blank before the extension or a missing dot leaves the fields readable.
_STEM = re.compile(r'(?P<stem>.*?)\s*\.?(jpe?g)?\s*(\.chip)?\s*\.[a-z]+', re.IGNORECASE)


class UTKFace(common.FaceBuilder):
  """Faces named age_gender_race_date; gender 0 male, 1 female; race 0-4."""

  name = 'utkface'
  LICENCE = LICENCE
  HOMEPAGE = 'https://susanqq.github.io/UTKFace/'
  DESCRIPTION = 'About 23,700 faces of age 1 to 116, 200 x 200 pixels.'
  SPLITS = {
    part: f'seed5k_{part}+rest_{part}' for part in ('train', 'validation', 'test')
  } | {
    'seed5k_train': 'seed5k_train',
    'seed5k_validation': 'seed5k_validation',
    'seed5k_test': 'seed5k_test',
    'seed5k_trainval': 'seed5k_train+seed5k_validation',
    'seed5k': 'seed5k_train+seed5k_validation+seed5k_test',
    'all': (
      'seed5k_train+seed5k_validation+seed5k_test+rest_train+rest_validation+rest_test'
    ),
    # Outside the 5,000: what a run on them may be calibrated on.
    'rest_train': 'rest_train',
    'rest_validation': 'rest_validation',
    'rest_test': 'rest_test',
  }
  VALUE_NAMES = {'race': dict(enumerate(RACES))}

  def extra_features(self):
    return {'race': np.int64}

  def collect(self):
    source = self.builder_config.source
    files = source.pictures()
    examples, counts = label_by_name(files)
    counts['repaired_name'] = sum(
      not WELL_FORMED.fullmatch(_base(example.name))
      and schema.UNKNOWN not in (example.age, example.gender, example.extras['race'])
      for example in examples
    )
    if not examples:
      raise errors.UserError(
        f'no picture in "{source.path}" is named age_gender_race_date.jpg; {WANTED}'
      )
    return examples, counts

  def split_examples(self, examples):
    names = [_base(example.name) for example in examples]
    seed = seed5k_rows(names)
    groups = collections.defaultdict(list)
    for row, example in enumerate(examples):
      prefix = 'seed5k' if row in seed else 'rest'
      groups[f'{prefix}_{example.part}'].append(example)
    return groups


def create_builder(
  source_dir: str, data_dir: str | None, **options
) -> tfds.core.DatasetBuilder:
  """Creates the builder of a folder or of the owners' archive.

  Args:
    source_dir: the folder or the .tar.gz.
    data_dir: where the prepared data go; None = TFDS's own.
    **options: those of other builders, not used.

  Raises:
    errors.UserError: the raw data are absent.
  """
  del options
  source = raw.find(source_dir, WANTED)
  config = common.SourceConfig(name=source.fingerprint(), source=source)
  return UTKFace(data_dir=data_dir, config=config, file_format='array_record')


def label_by_name(files: list[raw.RawFile]):
  """Labels pictures by their names.

  Returns:
    A list of examples.Example, and a Counter of what was wrong.
  """
  examples, counts = [], collections.Counter(pictures=len(files))
  for file in files:
    labels = parse_name(_base(file.name))
    if labels is None:
      counts['unusable_name'] += 1
      continue
    age, gender, race, problem = labels
    if problem:
      counts[problem] += 1
    examples.append(
      examples_lib.Example(file.name, file.read, age, gender, {'race': race})
    )
  return examples, counts


def parse_name(name: str) -> tuple[float, int, int, str] | None:
  """Reads age, gender and race off a file name, as far as they are certain.

  Args:
    name: the file name without folders.

  Returns:
    (age in years, gender, race, what is wrong or ''), each UNKNOWN where it is
    missing or ambiguous; None where the name has no such labels.
  """
  match = _STEM.fullmatch(name)
  fields = match['stem'].split('_', 3) if match else []
  if len(fields) == 3 and re.fullmatch(r'\d{8,}', fields[2]):
    # Gender or race is missing; only 2-4 can be nothing but a race.
    is_race = fields[1] in ('2', '3', '4')
    fields = [fields[0], '', fields[1] if is_race else '', fields[2]]
  if len(fields) != 4 or not re.fullmatch(r'\d{1,3}', fields[0], re.ASCII):
    return None
  problem = 'missing_field' if '' in fields[1:3] else ''
  age = float(fields[0])
  if age > examples_lib.OLDEST:
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
  """Picks the pictures of the seeds' protocol.

  Args:
    names: file names without folders.

  Returns:
    The rows of the first 5,000 well-formed names by their SHA-1's hex digits.
  """
  rows = [row for row, name in enumerate(names) if WELL_FORMED.fullmatch(name)]
  rows.sort(key=lambda row: hashlib.sha1(names[row].encode()).hexdigest())
  return set(rows[:SEED_EXAMPLES])


def _base(name):
  return name.rsplit('/', 1)[-1]
