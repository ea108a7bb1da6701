"""Reads one workdir into a dataclass; every file but config.json may lack."""

import csv
import dataclasses
import json
import pathlib
import zipfile

import numpy as np

from agegender_jax import schema

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

  @property
  def group_known(self) -> np.ndarray:
    """bool [N], both the labelled and the predicted group are there."""
    labelled = self.age_group != schema.UNKNOWN
    return labelled & (self.age_group_pred != schema.UNKNOWN)


@dataclasses.dataclass(frozen=True)
class Run:
  """What a workdir says about its run; empty where a file is absent.

  Attributes:
    workdir: the folder.
    config: the resolved configuration, nested.
    versions: version a package.
    recipe: the recipe's path with its argument, or ''.
    metrics: a dict a logged step, sorted by step.
    scores: the flat scores.json.
    predictions: the columns of predictions.csv, or None.
    data: data.json.
    info: run.json.
    faces: pairs (uint8 [S, S, 3] picture, row of the predictions).
  """

  workdir: pathlib.Path
  config: dict
  versions: dict
  recipe: str
  metrics: list
  scores: dict
  predictions: Predictions | None
  data: dict
  info: dict
  faces: list

  @property
  def data_name(self) -> str:
    return self.data.get('name') or self.config['data']['name']

  @property
  def test_split(self) -> str:
    return self.scores.get('split') or self.config['data']['test_split']

  @property
  def recipe_name(self) -> str:
    """The recipe's name with its argument, else the workdir's."""
    path, colon, argument = self.recipe.partition(':')
    if not path:
      return self.workdir.name
    return pathlib.PurePath(path).stem + colon + argument

  @property
  def protocol(self) -> tuple:
    """Data set, split and size of what was scored: equal = comparable."""
    return self.data_name, self.test_split, self.scores.get('num_examples')

  @property
  def trivial(self) -> dict:
    """Scores of the predictor that knows the training labels only."""
    return self.data.get('trivial', {})

  @property
  def finished(self) -> bool:
    return bool(self.info.get('finished')) and bool(self.scores)

  @property
  def group_names(self) -> list:
    return schema.age_group_names(self.config['data']['age_groups'])


def read_run(workdir) -> Run:
  """Reads a workdir.

  Args:
    workdir: folder that a training run wrote, finished or not.

  Returns:
    A Run.

  Raises:
    schema.UserError: the folder has no config.json, or a file is damaged.
  """
  folder = pathlib.Path(workdir)
  if not (folder / 'config.json').is_file():
    raise schema.UserError(
      f'"{workdir}" has no config.json, so it is no workdir: give the '
      '--workdir of a training run'
    )
  stored = _read_json(folder / 'config.json')
  config = stored.get('config', {})
  for block, field in (('data', 'name'), ('data', 'age_groups')):
    if field not in config.get(block, {}):
      raise schema.UserError(
        f'{folder / "config.json"} lacks config.{block}.{field}: train again '
        'into an empty --workdir'
      )
  predictions = _read_predictions(
    folder / 'predictions.csv',
    schema.age_group_names(config['data']['age_groups']),
  )
  return Run(
    workdir=folder,
    config=config,
    versions=stored.get('versions', {}),
    recipe=stored.get('recipe') or '',
    metrics=_read_metrics(folder / 'metrics.jsonl'),
    scores=_read_json(folder / 'scores.json'),
    predictions=predictions,
    data=_read_json(folder / 'data.json'),
    info=_read_json(folder / 'run.json'),
    faces=_read_faces(folder / 'faces.npz', predictions),
  )


def _damaged(path, why):
  return schema.UserError(
    f'{path} is damaged ({why}): delete it and run the same command again'
  )


def _read_json(path):
  if not path.is_file():
    return {}
  try:
    value = json.loads(path.read_text('utf-8'))
  except ValueError as error:
    raise _damaged(path, error) from None
  if not isinstance(value, dict):
    raise _damaged(path, 'not a JSON object')
  return value


def _read_metrics(path):
  """Returns one dict a step; a resumed run's second row of a step wins."""
  rows = {}
  if not path.is_file():
    return []
  for line in path.read_text('utf-8').splitlines():
    try:
      row = json.loads(line)
    except ValueError:
      continue  # A killed run leaves half a line behind.
    if isinstance(row, dict) and 'step' in row:
      rows.setdefault(row['step'], {}).update(row)
  return [rows[step] for step in sorted(rows)]


def _read_predictions(path, group_names):
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
    raise _damaged(path, error) from None
  values['age'][values['age'] == schema.UNKNOWN] = np.nan
  extra = {
    key: [row[key] or '' for row in rows]
    for key in columns
    if key not in ('name', *_FLOATS, *_CODES)
  }
  name = [row.get('name') or '' for row in rows]
  return Predictions(name=name, extra=extra, **values)


def _read_faces(path, predictions):
  if predictions is None or not path.is_file():
    return []
  try:
    with np.load(path) as stored:
      images, rows = stored['images'], stored['row']
  except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise _damaged(path, error) from None
  count = len(predictions.name)
  pairs = zip(images, rows.tolist(), strict=True)
  return [(image, row) for image, row in pairs if 0 <= row < count]
