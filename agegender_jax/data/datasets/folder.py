"""Own faces: a table of labels, or a folder in UTKFace naming."""

import os
import pathlib
import re
import unicodedata

import numpy as np
import tensorflow_datasets as tfds

from agegender_jax.data import labels as labels_lib
from agegender_jax.data import raw, splits
from agegender_jax.data.datasets import base, utkface

_COLUMNS = ('path', 'age', 'gender')
_RESERVED = (
  *_COLUMNS, 'split', 'image', 'name', 'mask', 'row', 'hash', 'conflict', 'data',
  'duplicate', 'age_group', 'age_low', 'age_high', 'age_pred', 'age_group_pred',
  'gender_prob',
)  # fmt: skip
_PARTS = {name: name for name in (*splits.PARTS, '')}
_PARTS['val'] = 'validation'


class Folder(base.FaceBuilder):
  """Images of the user's own; a table's further columns are kept.

  Its column `split`, where it has one, counts instead of the rule.
  """

  name = 'folder'
  LICENCE = 'that of the images given'
  DESCRIPTION = 'Faces from a folder or a table.'
  WANTED = (
    'give a CSV file with the columns path, age, gender (either label may be '
    'empty, paths are relative to the file), or a folder of images named '
    'age_gender_race_anything.jpg; gender 0 is male, 1 female'
  )
  # Of a folder: a table's own columns are text, which no code equals.
  VALUE_NAMES = utkface.UTKFace.VALUE_NAMES
  REASONS = (
    base.FaceBuilder.REASONS
    | utkface.NAME_REASONS
    | {'bad_split': 'rows whose split cannot be read, skipped'}
  )

  @classmethod
  def find_source(cls, data, source_dir, data_dir):
    path = pathlib.Path(source_dir).expanduser()
    if path.suffix.lower() != '.csv' or not path.is_file():
      return super().find_source(data, source_dir, data_dir)
    _, rows, _ = raw.read_table(path, _COLUMNS, cls.WANTED)
    files = [_find_image(path.parent, row['path']) for row in rows]
    source = raw.Source(path, tuple(files), labels=(path,))
    return source, source.fingerprint(data_dir)

  def extra_features(self):
    if not self.source.labels:
      return {'race': np.int64}
    return {key: tfds.features.Text() for key in self._extra_columns()}

  def collect(self):
    if not self.source.labels:
      return utkface.label_by_name(self.source, self.WANTED)
    return self._label_by_table()

  def _extra_columns(self):
    columns, _, _ = raw.read_table(self.source.path, _COLUMNS, self.WANTED)
    return [
      name
      for name in columns
      if re.fullmatch(r'[a-z]\w*', name) and name not in _RESERVED
    ]

  def _label_by_table(self):
    found = base.Collected()
    _, rows, found.counts = raw.read_table(self.source.path, _COLUMNS, self.WANTED)
    found.counts['images'] = len(rows)
    extras = self._extra_columns()
    for row, file in zip(rows, self.source.files, strict=True):
      age = labels_lib.parse_age(row['age'])
      gender = labels_lib.parse_gender(row['gender'])
      part = _PARTS.get(row.get('split', '').strip().lower())
      read = {'bad_age': age, 'bad_gender': gender, 'bad_split': part}
      problems = tuple(reason for reason, value in read.items() if value is None)
      if 'split' in row:
        found.labels.add('split', row['split'], part)
        found.counts['bad_split'] += part is None
      example = base.Example(
        file.name,
        file.read,
        found.add_age(row['age'], age),
        found.add_gender(row['gender'], gender),
        {key: row[key] for key in extras},
        problems=problems,
        owners_part=part or '',
      )
      (found.skipped if part is None else found.examples).append(example)
    return found


def _find_image(folder, name):
  """Returns the image that a row names, in whichever spelling it is there."""
  name = name.strip()
  names = [name, name.replace('\\', '/')]  # And with accents of either form.
  names += [unicodedata.normalize(form, n) for form in ('NFC', 'NFD') for n in names]
  paths = [str(folder / spelling) for spelling in names]
  return raw.RawFile(name, next(filter(os.path.exists, paths), paths[0]))
