"""Own faces: a table of labels, or a folder in UTKFace naming."""

import collections
import csv
import io
import math
import os
import pathlib
import re

import numpy as np
import tensorflow_datasets as tfds

from agegender_jax import errors, schema
from agegender_jax.data.datasets import common, raw, utkface
from agegender_jax.data.datasets import examples as examples_lib

WANTED = (
  'give a CSV file with the columns path, age, gender (either label may be '
  'empty, paths are relative to the file), or a folder of pictures named '
  'age_gender_race_anything.jpg; gender 0 is male, 1 female'
)
GENDERS = {
  'm': schema.MALE, 'male': schema.MALE, '0': schema.MALE,
  'f': schema.FEMALE, 'female': schema.FEMALE, '1': schema.FEMALE,
  '': schema.UNKNOWN, '-1': schema.UNKNOWN,
}  # fmt: skip
_COLUMNS = ('path', 'age', 'gender')
_RESERVED = (
  'image', 'name', 'mask', 'row', 'hash', 'conflict', 'age_group', 'age_low',
  'age_high', 'age_pred', 'age_group_pred', 'gender_prob',
)  # fmt: skip


class Folder(common.FaceBuilder):
  """Pictures of the user's own; a table's further columns are kept."""

  name = 'folder'
  LICENCE = 'that of the pictures given'
  DESCRIPTION = 'Faces from a folder or a table.'
  # Of a folder: a table's own columns are text, which no code equals.
  VALUE_NAMES = utkface.UTKFace.VALUE_NAMES

  def extra_features(self):
    source = self.builder_config.source
    if isinstance(source, raw.Source):
      return {'race': np.int64}
    return {key: tfds.features.Text() for key in _extra_columns(source)}

  def collect(self):
    source = self.builder_config.source
    if not isinstance(source, raw.Source):
      return label_by_table(source)
    examples, counts = utkface.label_by_name(source.pictures())
    if not examples:
      raise errors.UserError(
        f'no picture in "{source.path}" has a name with labels; {WANTED}'
      )
    return examples, counts


def create_builder(
  source_dir: str, data_dir: str | None, **options
) -> tfds.core.DatasetBuilder:
  """Creates the builder of a table or a folder.

  Args:
    source_dir: the CSV file or the folder.
    data_dir: where the prepared data go; None = TFDS's own.
    **options: those of other builders, not used.

  Raises:
    errors.UserError: the raw data are absent or the table lacks a column.
  """
  del options
  source = pathlib.Path(source_dir).expanduser()
  if source.suffix.lower() == '.csv' and source.is_file():
    name = _table_fingerprint(source)
  else:
    source = raw.find(source_dir, WANTED)
    name = source.fingerprint()
  config = common.SourceConfig(name=name, source=source)
  return Folder(data_dir=data_dir, config=config, file_format='array_record')


def read_table(
  path: pathlib.Path, needed: tuple[str, ...] = _COLUMNS, wanted: str = WANTED
) -> tuple[list[str], list[dict[str, str]]]:
  """Reads a CSV file with a header, whose names are lowered and stripped.

  Args:
    path: of the file.
    needed: columns that it must have.
    wanted: what to say where it is not such a file.

  Returns:
    The columns, and a dict a row.

  Raises:
    errors.UserError: not text, or a column is missing.
  """
  try:
    text = path.read_bytes().decode('utf-8-sig')
    table = csv.DictReader(io.StringIO(text, newline=''))
    columns = [name.strip().lower() for name in table.fieldnames or ()]
    table.fieldnames = columns
    rows = list(table)
  except (UnicodeDecodeError, csv.Error) as error:
    raise errors.UserError(
      f'"{path}" is no CSV file in UTF-8 ({error}); {wanted}'
    ) from error
  missing = [name for name in needed if name not in columns]
  if missing:
    raise errors.UserError(f'"{path}" has no column {", ".join(missing)}; {wanted}')
  if not rows:
    raise errors.UserError(f'"{path}" has no row; {wanted}')
  return columns, rows


def label_by_table(path: pathlib.Path):
  """Labels the pictures that a table names.

  Returns:
    A list of examples.Example, and a Counter of what was wrong.
  """
  _, rows = read_table(path)
  examples, counts = [], collections.Counter(pictures=len(rows))
  extras = _extra_columns(path)
  for row in rows:
    age, gender = parse_age(row['age']), parse_gender(row['gender'])
    counts['bad_age'] += age is None
    counts['bad_gender'] += gender is None
    name = (row['path'] or '').strip()
    examples.append(
      examples_lib.Example(
        name,
        (path.parent / name).read_bytes,
        schema.UNKNOWN if age is None else age,
        schema.UNKNOWN if gender is None else gender,
        {key: row[key] or '' for key in extras},
      )
    )
  return examples, counts


def parse_age(text: str | None) -> float | None:
  """Reads years: UNKNOWN where empty or -1, None where it is no age."""
  text = (text or '').strip()
  if text in ('', '-1'):
    return float(schema.UNKNOWN)
  try:
    age = float(text)
  except ValueError:
    return None
  return age if math.isfinite(age) and 0 <= age <= examples_lib.OLDEST else None


def parse_gender(text: str | None) -> int | None:
  """Reads a gender: UNKNOWN where empty, None where it is none."""
  return GENDERS.get((text or '').strip().lower())


def _extra_columns(path):
  columns, _ = read_table(path)
  return [
    name
    for name in columns
    if re.fullmatch(r'[a-z]\w*', name)
    and name not in _COLUMNS
    and name not in _RESERVED
  ]


def _table_fingerprint(path):
  _, rows = read_table(path)
  parts = []
  for row in rows:
    picture = path.parent / (row['path'] or '').strip()
    size = os.stat(picture).st_size if picture.is_file() else -1
    parts.append((*(str(value) for value in row.values()), size))
  return raw.digest_rows(parts)
