"""FairFace (Karkkainen & Joo 2021): nine age groups, gender and race."""

import re

import tensorflow_datasets as tfds

from agegender_jax import schema
from agegender_jax.data import labels as labels_lib
from agegender_jax.data import raw
from agegender_jax.data.datasets import base

COLUMNS = ('file', 'age', 'gender')
_MONTHS = (
  'jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov',
  'dec',
)  # fmt: skip


class FairFace(base.FaceBuilder):
  """The owners' val is `test`; of their train 20-29 of 100 are validation.

  Which these are follows from the published rule, `splits.percent` of the
  image's difference hash; `train` is the rest, `train_all` the owners' train.
  """

  VERSION = tfds.core.Version('1.2.1')
  name = 'fairface'
  LICENCE = 'CC BY 4.0'
  HOMEPAGE = 'https://github.com/joojs/fairface'
  DESCRIPTION = 'About 97,700 faces balanced over seven races.'
  LABEL_FILES = ('fairface_label_train.csv', 'fairface_label_val.csv')
  WANTED = (
    'give the folder that holds fairface_label_train.csv, '
    'fairface_label_val.csv, train/ and val/, which the owners offer at '
    f'{HOMEPAGE} under CC BY 4.0'
  )
  KNOWN = labels_lib.KNOWN | {'age': 'groups such as 20-29 and more than 70'}
  HAS_INTERVALS = True
  SPLITS = base.PARTS | {'train_all': 'train+validation'}
  REASONS = base.FaceBuilder.REASONS | {
    'repaired_age': 'ages that a spreadsheet took for dates, read all the same',
  }

  def extra_features(self):
    return {'race': tfds.features.Text()}

  def label_images(self, images, found):
    for path in self.source.labels:
      _, rows, counts = raw.read_table(path, COLUMNS, self.WANTED)
      found.counts += counts
      for row in rows:
        self._label_row(row, images, found)

  def _label_row(self, row, images, found):
    interval, problem = parse_age(row['age'])
    found.add_interval(row['age'], interval, problem)
    gender = found.add_gender(row['gender'], labels_lib.parse_gender(row['gender']))
    found.counts['label_rows'] += 1
    name, race = row['file'].strip(), row.get('race', '').strip()
    extras = {'race': race}
    found.add_image(images, name, gender=gender, extras=extras, interval=interval)

  def split_examples(self, examples):
    def part(example):
      if raw.lookup_key(example.name).startswith('val/'):
        return 'test'
      return 'validation' if example.part == 'validation' else 'train'

    return base.group_by(examples, part)


def parse_age(text: str | None) -> tuple[tuple[int, int], str]:
  """Reads an age group, also one that a spreadsheet took for a date.

  `3-9` becomes `03-Sep`, `9-Mar` or `Mar-09` there, `10-19` becomes `Oct-19`:
  a month stands for its number, and of two orders the ascending one is meant.

  Returns:
    ((first, last year), what is odd or ''), UNKNOWN where not known.
  """
  nothing = (schema.UNKNOWN, schema.UNKNOWN)
  text = (text or '').strip().lower()
  if text in labels_lib.UNKNOWN_WORDS:
    return nothing, 'unknown_age'
  groups = schema.AGE_GROUPS['fairface']
  if text == f'more than {groups[-1][0]}':
    return groups[-1], ''
  words = re.findall(r'[a-z]+|[0-9]+', text)
  months = [word[:3] in _MONTHS for word in words]
  numbers = [
    _MONTHS.index(word[:3]) + 1 if is_month else int(word[:9])
    for word, is_month in zip(words, months, strict=True)
    if is_month or word.isdigit()
  ]
  interval = tuple(sorted(numbers) if any(months) else numbers)
  if len(numbers) != len(words) or interval not in groups[:-1]:
    return nothing, 'bad_age'
  return interval, 'repaired_age' if any(months) else ''
