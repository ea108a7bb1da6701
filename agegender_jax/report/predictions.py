"""The columns of predictions.csv."""

import csv
import dataclasses

import numpy as np

from agegender_jax import schema
from agegender_jax.report import stored

_FLOATS = ('age', 'age_pred', 'age_low', 'age_high', 'gender_prob')
_CODES = ('age_group', 'age_group_pred', 'gender')


@dataclasses.dataclass(frozen=True)
class Predictions:
  """The columns of predictions.csv; N rows.

  Attributes:
    name: N names.
    age, age_pred, age_low, age_high: float [N], years; NaN where unknown.
    age_group, age_group_pred: int [N], row of the age groups or UNKNOWN.
    gender: int [N], schema's code.
    gender_prob: float [N], P(female); NaN where unknown.
    extra: the data's own columns, N texts each.
  """

  name: list
  age: np.ndarray
  age_pred: np.ndarray
  age_low: np.ndarray
  age_high: np.ndarray
  age_group: np.ndarray
  age_group_pred: np.ndarray
  gender: np.ndarray
  gender_prob: np.ndarray
  extra: dict

  @property
  def table(self) -> dict:
    """What `scoring` takes: `name` and the columns that say anything."""
    columns = {key: getattr(self, key) for key in (*_FLOATS, *_CODES)}
    labels = ('age', 'age_group', 'gender')
    return {'name': self.name} | {
      key: column
      for key, column in columns.items()
      if key in labels or (np.isfinite(column) & (column != schema.UNKNOWN)).any()
    }

  @property
  def gender_pred(self) -> np.ndarray:
    """int [N], the likelier gender, UNKNOWN where not predicted."""
    female = self.gender_prob > 0.5
    code = np.where(female, schema.FEMALE, schema.MALE)
    return np.where(np.isnan(self.gender_prob), schema.UNKNOWN, code)

  @property
  def gender_known(self) -> np.ndarray:
    """bool [N], both the label and the prediction are there."""
    labelled = self.gender != schema.UNKNOWN
    return labelled & (self.gender_pred != schema.UNKNOWN)

  @property
  def age_known(self) -> np.ndarray:
    """bool [N], both the labelled and the predicted years are there."""
    return ~np.isnan(self.age) & ~np.isnan(self.age_pred)


def read(path, group_names) -> Predictions | None:
  """Reads predictions.csv; None where it is absent.

  Args:
    path: of the file.
    group_names: name of each age group.

  Returns:
    The columns.

  Raises:
    errors.UserError: a number in it is none.
  """
  if not path.is_file():
    return None
  with path.open(newline='', encoding='utf-8') as file:
    reader = csv.DictReader(file)
    rows = list(reader)
    columns = reader.fieldnames or []
  names = {
    'gender': {name: code for code, name in enumerate(schema.GENDERS)},
    'age_group': {name: code for code, name in enumerate(group_names)},
  }
  names['age_group_pred'] = names['age_group']
  values = {}
  try:
    for key in _FLOATS:
      column = [row.get(key) or 'nan' for row in rows]
      values[key] = np.array([float(text) for text in column], np.float64)
    for key in _CODES:
      column = [row.get(key) or schema.UNKNOWN for row in rows]
      values[key] = np.array(
        [names[key].get(text, text) for text in column], np.float64
      ).astype(np.int64)
  except ValueError as error:
    raise stored.damaged(path, error) from None
  values['age'][values['age'] == schema.UNKNOWN] = np.nan
  extra = {
    key: [row[key] or '' for row in rows]
    for key in columns
    # Whether a picture is a twin is no group of the data.
    if key not in ('name', 'twin', *_FLOATS, *_CODES)
  }
  name = [row.get('name') or '' for row in rows]
  return Predictions(name=name, extra=extra, **values)
