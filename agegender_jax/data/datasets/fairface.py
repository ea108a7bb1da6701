"""FairFace (Karkkainen & Joo 2021): nine age groups, gender and race."""

import collections
import re

import tensorflow_datasets as tfds

from agegender_jax import errors, schema
from agegender_jax.data.datasets import common, folder, raw
from agegender_jax.data.datasets import examples as examples_lib

HOMEPAGE = 'https://github.com/joojs/fairface'
LABELS = ('fairface_label_train.csv', 'fairface_label_val.csv')
WANTED = (
  'give the folder that holds fairface_label_train.csv, '
  'fairface_label_val.csv, train/ and val/, which the owners offer at '
  f'{HOMEPAGE} under CC BY 4.0'
)
_COLUMNS = ('file', 'age', 'gender')
_MONTHS = (
  'jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov',
  'dec',
)  # fmt: skip


class FairFace(common.FaceBuilder):
  """The owners' val is `test`; of their train 20-29 of 100 are validation.

  Which these are says the published rule, `splits.percent` of the picture's
  difference hash; `train` is the rest, `train_all` the owners' whole train.
  """

  name = 'fairface'
  LICENCE = 'CC BY 4.0'
  HOMEPAGE = HOMEPAGE
  DESCRIPTION = 'About 97,700 faces balanced over seven races.'
  HAS_INTERVALS = True
  SPLITS = common.PARTS | {'train_all': 'train+validation'}

  def extra_features(self):
    return {'race': tfds.features.Text()}

  def collect(self):
    source = self.builder_config.source
    return label_rows(source.labels, source.by_path(), source.path)

  def split_examples(self, examples):
    groups = collections.defaultdict(list)
    for example in examples:
      part = 'validation' if example.part == 'validation' else 'train'
      is_test = example.name.startswith('val/')
      groups['test' if is_test else part].append(example)
    return groups


def create_builder(
  source_dir: str, data_dir: str | None, **options
) -> tfds.core.DatasetBuilder:
  """Creates the builder of the owners' folder.

  Args:
    source_dir: holds the two label files, train/ and val/.
    data_dir: where the prepared data go; None = TFDS's own.
    **options: those of other builders, not used.

  Raises:
    errors.UserError: the raw data are absent.
  """
  del options
  source = raw.find_labelled(source_dir, LABELS, WANTED)
  config = common.SourceConfig(name=source.fingerprint(), source=source)
  return FairFace(data_dir=data_dir, config=config, file_format='array_record')


def label_rows(tables, files: dict[str, raw.RawFile], where):
  """Labels the pictures that are there.

  Args:
    tables: the label files.
    files: of `raw.Source.by_path`.
    where: the folder, for the message.

  Returns:
    A list of examples.Example, and a Counter of what was wrong.

  Raises:
    errors.UserError: a table lacks a column, or no picture is there.
  """
  examples, counts = [], collections.Counter()
  for path in tables:
    for row in folder.read_table(path, _COLUMNS, WANTED)[1]:
      counts['label_rows'] += 1
      interval, problem = parse_age(row['age'])
      if problem:
        counts[problem] += 1
      gender = folder.parse_gender(row['gender'])
      counts['bad_gender'] += gender is None
      counts['unknown_gender'] += gender == schema.UNKNOWN
      name = (row['file'] or '').strip()
      if name not in files:
        counts['missing_picture'] += 1
        continue
      counts['pictures'] += 1
      examples.append(
        examples_lib.Example(
          name,
          files[name].read,
          gender=schema.UNKNOWN if gender is None else gender,
          extras={'race': (row.get('race') or '').strip()},
          interval=interval,
        )
      )
  if not examples:
    raise errors.UserError(
      f'"{where}" holds none of the {counts["label_rows"]} pictures of its '
      f'label files; {WANTED}'
    )
  # Rows of a split lie in the order of the names.
  return sorted(examples, key=lambda example: example.name), counts


def parse_age(text: str | None) -> tuple[tuple[int, int], str]:
  """Reads an age group, also one that a spreadsheet took for a date.

  `3-9` becomes `03-Sep`, `9-Mar` or `Mar-09` there, `10-19` becomes `Oct-19`:
  a month stands for its number, and of two orders the ascending one is meant.

  Returns:
    ((first, last year), what is odd or ''), UNKNOWN where not known.
  """
  nothing = (schema.UNKNOWN, schema.UNKNOWN)
  text = (text or '').strip().lower()
  if not text:
    return nothing, 'unknown_age'
  groups = schema.AGE_GROUPS['fairface']
  if text == f'more than {groups[-1][0]}':
    return groups[-1], ''
  words = re.findall(r'[a-z]+|\d+', text)
  months = [word[:3] in _MONTHS for word in words]
  numbers = [
    _MONTHS.index(word[:3]) + 1 if is_month else int(word)
    for word, is_month in zip(words, months, strict=True)
    if is_month or word.isdigit()
  ]
  interval = tuple(sorted(numbers) if any(months) else numbers)
  if len(numbers) != len(words) or interval not in groups[:-1]:
    return nothing, 'bad_age'
  return interval, 'repaired_age' if any(months) else ''
