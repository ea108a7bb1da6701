"""Reads one workdir into a dataclass; every file but config.json may lack."""

import dataclasses
import math
import pathlib

from agegender_jax import errors, schema
from agegender_jax.report import details as details_lib
from agegender_jax.report import predictions as predictions_lib
from agegender_jax.report import stored


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
    faces, worst, contradictory: pairs (uint8 [S, S, 3] picture, row of the
      predictions): some, the largest age errors, the labels that the network
      contradicts most confidently.
    details: see details.
    saliency: tuples (picture, row, {task: float [h, w] in [0, 1]}).
    layers: a dict a layer, in the order of the forward pass.
    evaluations: the flat scores.json of each folder in eval/.
    calibration: what the scores were calibrated with, as calibration.json
      has it; {} without.
    model_card: name of the model card's file, or ''.
  """

  workdir: pathlib.Path
  config: dict
  versions: dict
  recipe: str
  metrics: list
  scores: dict
  predictions: predictions_lib.Predictions | None
  data: dict
  info: dict
  faces: list
  worst: list
  contradictory: list
  details: details_lib.Details
  saliency: list
  layers: list
  evaluations: list
  calibration: dict
  model_card: str

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
    return self.data.get('majority', {})

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
    errors.UserError: the folder has no config.json, or a file is damaged.
  """
  folder = pathlib.Path(workdir)
  if not (folder / 'config.json').is_file():
    raise errors.UserError(
      f'"{workdir}" has no config.json, so it is no workdir: give the '
      '--workdir of a training run'
    )
  content = stored.read_json(folder / 'config.json')
  config = content.get('config', {})
  for block, field in (('data', 'name'), ('data', 'age_groups')):
    if field not in config.get(block, {}):
      raise errors.UserError(
        f'{folder / "config.json"} lacks config.{block}.{field}: train again '
        'into an empty --workdir'
      )
  group_names = schema.age_group_names(config['data']['age_groups'])
  calibration = stored.read_json(folder / 'calibration.json')
  scores, results = _results(folder, config, calibration)
  predictions = predictions_lib.read(results / 'predictions.csv', group_names)
  details = details_lib.read(results / 'details.json', predictions, group_names)
  return Run(
    workdir=folder,
    config=config,
    versions=content.get('versions', {}),
    recipe=content.get('recipe') or '',
    metrics=stored.read_json_lines(folder / 'metrics.jsonl'),
    scores=scores,
    predictions=predictions,
    data=stored.read_json(folder / 'data.json'),
    info=stored.read_json(folder / 'run.json'),
    details=details,
    layers=_read_layers(folder / 'layers.json'),
    evaluations=[
      stored.read_json(path) for path in sorted(folder.glob('eval/*/scores.json'))
    ],
    calibration=_applied(details, calibration),
    model_card='model_card.md' if (folder / 'model_card.md').is_file() else '',
    # The rows of both folders are the same pictures.
    saliency=_read_saliency(results / 'saliency.npz', predictions)
    or _read_saliency(folder / 'saliency.npz', predictions),
    **_read_faces(results / 'faces.npz', predictions),
  )


def is_same(one, two) -> bool:
  """Says whether two flat scores are of one step on the same pictures.

  A calibration or a resampling may differ; other views of the pictures give
  other scores.
  """
  facts = ('data', 'split', 'num_examples', 'step')
  scores = ('age_mae', 'age_group_accuracy', 'gender_accuracy')
  return all(one.get(key) == two.get(key) for key in facts) and all(
    math.isclose(one.get(key) or 0, two.get(key) or 0, rel_tol=1e-4) for key in scores
  )


def _results(folder, config, calibration):
  """Returns the run's scores and the folder with what is behind them.

  Evaluating a run again, with the same step on the same pictures, leaves in
  eval/ what an older version did not write, and scores by a calibration that
  is newer than the run's own scores.
  """
  scores = stored.read_json(folder / 'scores.json')
  own_path = folder / 'details.json'
  if scores and _fitted(own_path) != calibration:
    own = {'data': config['data']['name'], **scores}
    for path in sorted(folder.glob('eval/*/details.json')):
      found = stored.read_json(path.parent / 'scores.json')
      is_newer = not own_path.is_file() or _fitted(path) == calibration
      if is_newer and is_same(own, found):
        return found, path.parent
  return scores, folder


def _fitted(path):
  """Returns the calibration that a details.json says it was computed with."""
  return details_lib.read(path, None, ()).fitted


def _applied(details, calibration):
  """Returns the calibration that details were computed with, {} for none."""
  if details.fitted is not None:
    return details.fitted
  # An older version's: it tells whether there was one, but not which.
  has_any = details.intervals or 'calibrated' in details.reliability
  return calibration if has_any else {}


def _pictures(path, arrays, prefix, predictions, others=()):
  """Returns tuples (picture, row, *others' entries) of rows that exist."""
  count = len(predictions.name) if predictions is not None else 0
  try:
    images, rows = arrays[f'{prefix}images'], arrays[f'{prefix}row']
    columns = [arrays[name] for name in others]
    found = list(zip(images, rows.tolist(), *columns, strict=True))
  except (KeyError, ValueError) as error:
    raise stored.damaged(path, error) from None
  return [entry for entry in found if 0 <= entry[1] < count]


def _read_faces(path, predictions):
  arrays = stored.read_arrays(path)
  result = {}
  for name in ('faces', 'worst', 'contradictory'):
    prefix = '' if name == 'faces' else f'{name}_'
    there = f'{prefix}images' in arrays or (arrays and name == 'faces')
    result[name] = _pictures(path, arrays, prefix, predictions) if there else []
  return result


def _read_saliency(path, predictions):
  arrays = stored.read_arrays(path)
  if not arrays:
    return []
  tasks = [name for name in ('age', 'gender') if name in arrays]
  return [
    (image, row, dict(zip(tasks, maps, strict=True)))
    for image, row, *maps in _pictures(path, arrays, '', predictions, tasks)
  ]


def _read_layers(path):
  layers = stored.read_json(path, list)
  try:
    return [
      {
        'name': str(layer['name']),
        'kind': str(layer.get('kind', '')),
        'output': [int(size) for size in layer.get('output') or []],
        'parameters': int(layer.get('parameters') or 0),
        'flops': int(layer.get('flops') or 0),
      }
      for layer in layers
    ]
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise stored.damaged(path, error) from None
