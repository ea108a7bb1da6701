"""Reads one workdir; every file but config.json may be absent."""

import csv
import pathlib
import zipfile

import numpy as np

from agegender_jax import errors, files, schema
from agegender_jax.evaluation import artifacts

# Kind of images in faces.npz -> prefix of its arrays.
_FACES = {'faces': '', 'worst': 'worst_', 'contradictory': 'contradictory_'}


class Run:
  """The files of a workdir as they are; empty where a file is absent."""

  def __init__(self, workdir):
    """Reads a workdir.

    Args:
      workdir: folder that a training run wrote, finished or not.

    Raises:
      errors.UserError: the folder has no config.json, or a file is damaged.
    """
    folder = self.workdir = pathlib.Path(workdir)
    if not (folder / 'config.json').is_file():
      raise errors.UserError(
        f'"{workdir}" has no config.json, so it is no workdir: give the '
        '--workdir of a training run'
      )
    content = files.read_json(folder / 'config.json')
    if not isinstance(content.get('config'), dict):
      raise _damaged(folder / 'config.json', 'no "config"')

    def read(name):
      return files.read_json(folder / name, {})

    self.config: dict = content['config']  # Resolved, nested.
    self.versions: dict = content.get('versions', {})  # Package -> version.
    self.recipe: str = content.get('recipe') or ''  # Its path and argument.
    self.metrics = _read_metrics(folder)  # A dict per logged step, by step.
    self.scores = read('scores.json')
    self.predictions = read_predictions(folder / 'predictions.csv')
    self.details = read('details.json')  # See artifacts.details.
    # What scores and details were computed with.
    self.calibration = self.part('calibration', 'fitted')
    self.data = read('data.json')
    self.info = read('run.json')
    self.init = read('init.json')  # The origin of the first weights.
    self.layers = files.read_json(folder / 'layers.json', [])
    count = len(self.predictions.get('name', ()))
    # Pairs of image, uint8 [S, S, 3], and row of the predictions.
    arrays = _read_arrays(folder / 'faces.npz')
    self.faces = {kind: _rows(arrays, prefix, count) for kind, prefix in _FACES.items()}
    # Image, row and {task: float [h, w] in [0, 1]}.
    self.saliency = _read_saliency(folder / 'saliency.npz', count)
    places = sorted(folder.glob('eval/*/scores.json'))
    self.evaluations = [files.read_json(path, {}) for path in places]
    card = folder / 'model_card.md'
    self.model_card = card.name if card.is_file() else ''

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
  def baseline(self) -> dict:
    """Scores of the majority baseline, which knows the training labels only."""
    return self.data.get('majority', {})

  @property
  def finished(self) -> bool:
    return bool(self.info.get('finished')) and bool(self.scores)

  @property
  def predictions_file(self) -> str:
    """The file that --mode=score scored: nothing here was trained; '' of a run."""
    return self.info.get('predictions', '')

  @property
  def group_names(self) -> list:
    return schema.age_group_names(self.config['data']['age_groups'])

  def groups_of(self, column: str) -> list:
    """Returns the groups of a column of details.json that are not empty."""
    groups = self.details.get('groups', [])
    return [row for row in groups if row['column'] == column and row['count']]

  def part(self, *keys):
    """Returns a nested entry of details.json, {} if it is absent."""
    found = self.details
    for key in keys:
      found = found.get(key) or {}
    return found


def read_predictions(path: pathlib.Path) -> dict:
  """Reads the columns of predictions.csv, {} if it is absent.

  Returns:
    `name`: list [N]; schema.PREDICTION_COLUMNS: float64 [N], years, codes and
    P(female), NaN where unknown; `gender_pred`: likewise, from P(female).

  Raises:
    errors.UserError: a field is not a number.
  """
  if not path.is_file():
    return {}
  try:
    with path.open(newline='', encoding='utf-8') as file:
      rows = list(csv.DictReader(file))
    columns: dict = {
      'name': [files.unquote_cell(row.get('name') or '') for row in rows]
    }
    for key in schema.PREDICTION_COLUMNS[1:]:
      columns[key] = np.array([float(row.get(key) or 'nan') for row in rows])
  except (ValueError, csv.Error) as error:
    raise _damaged(path, error) from None
  probability = columns['gender_prob']
  is_known = np.isfinite(probability)
  columns['gender_pred'] = np.where(is_known, probability > 0.5, np.nan)
  return columns


def _damaged(path, why):
  return errors.UserError(
    f'{path} is damaged ({why}): delete it and run the same command again'
  )


def _read_metrics(folder):
  """Returns one dict per step; later rows of a step complete earlier ones."""
  steps: dict = {}
  for row in artifacts.read_metrics(folder):
    steps.setdefault(row['step'], {}).update(row)
  return [steps[step] for step in sorted(steps)]


def _read_arrays(path):
  if not path.is_file():
    return {}
  try:
    with np.load(path) as arrays:
      return dict(arrays)
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise _damaged(path, error) from None


def _rows(arrays, prefix, count):
  """Returns pairs of image and row, of the rows that the predictions have."""
  images, rows = arrays.get(f'{prefix}images', ()), arrays.get(f'{prefix}row')
  pairs = zip(images, () if rows is None else rows.tolist(), strict=True)
  return [(image, row) for image, row in pairs if row < count]


def _read_saliency(path, count):
  arrays = _read_arrays(path)
  tasks = [task for task in ('age', 'gender') if task in arrays]
  return [
    (image, row, {task: arrays[task][index] for task in tasks})
    for index, (image, row) in enumerate(_rows(arrays, '', count))
  ]
