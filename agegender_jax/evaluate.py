"""Scores a network on a split and writes what reviewers and the report read."""

import csv
import json
import pathlib

import jax.numpy as jnp
import numpy as np

from agegender_jax import files, metrics, predictor, schema, summary
from agegender_jax.data import input_pipeline, sources, splits

CSV_COLUMNS = (
  'name', 'age', 'age_pred', 'age_low', 'age_high', 'age_group',
  'age_group_pred', 'gender', 'gender_prob',
)  # fmt: skip


def open_split(config, split: str) -> sources.Source:
  """Opens a split of the run's data set, preparing it if needed.

  Args:
    config: the run's configuration.
    split: name of the split.

  Returns:
    The source.

  Raises:
    schema.UserError: unknown data set or split, or unusable raw data.
  """
  data = config.data
  return sources.open_source(
    data.name,
    split,
    source_dir=data.source_dir,
    data_dir=data.data_dir,
    image_size=data.image_size,
    crop=data.crop,
    cache=data.cache,
    age_groups=data.age_groups,
    synthetic_examples=data.synthetic_examples,
    synthetic_seed=data.synthetic_seed,
  )


def predict_split(
  network: predictor.Predictor, variables, source, age_groups: str
) -> dict[str, np.ndarray]:
  """Predicts every example of a split, once.

  Args:
    network: see predictor.
    variables: replicated over the devices.
    source: see data.sources.
    age_groups: key of schema.AGE_GROUPS.

  Returns:
    Columns [N]: the labels age (years), age_group, gender; the predictions
    age_pred (years), age_group_pred, gender_prob as far as the network gives
    them; `<task>_loss`, NaN where the label is unknown.
  """
  batches = input_pipeline.eval_batches(source, batch_size=network.batch_size)
  output = network.predict_all(variables, batches)
  table = dict(source.labels)
  if 'age' in output:
    table['age_pred'] = output['age']
    table['age_group_pred'] = schema.group_of_prediction(
      output['age'], age_groups
    )
  if 'age_group' in output:
    table['age_group_pred'] = output['age_group']
  if 'gender_prob' in output:
    table['gender_prob'] = output['gender_prob']
  for task in network.tasks:
    label = table[task.label]
    loss = task.loss(output['logits'][task.name], jnp.asarray(label))
    table[f'{task.name}_loss'] = np.where(
      label == schema.UNKNOWN, np.nan, np.asarray(loss)
    )
  return table


def score_split(
  network: predictor.Predictor, table, num_samples: int
) -> dict[str, float]:
  """Scores predictions as `metrics.score`, with the loss as in training."""
  scores = metrics.score(table, num_samples)
  total = 0.0
  for task in network.tasks:
    known = table[task.label] != schema.UNKNOWN
    if known.any():
      mean = float(table[f'{task.name}_loss'][known].mean(dtype=np.float64))
      scores[f'{task.name}_loss'] = mean
      total += task.weight * mean
  return {**scores, 'loss': total}


def write_results(folder: str, scores: dict, table: dict, source, num_faces):
  """Writes scores.json, predictions.csv and faces.npz.

  Args:
    folder: where to.
    scores: see `score_split`.
    table: see `predict_split`.
    source: see data.sources.
    num_faces: example faces to keep for the report, drawn evenly.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  files.write_whole(folder / 'scores.json', json.dumps(scores, indent=2) + '\n')

  def text(column, row):
    value = table[column][row] if column in table else np.nan
    # Unknown labels are -1, and no prediction is exactly that by chance.
    unknown = value == schema.UNKNOWN and not column.endswith('_pred')
    return '' if unknown or not np.isfinite(value) else f'{value:.6g}'

  with (folder / 'predictions.csv').open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow((*CSV_COLUMNS, *source.extras))
    for row, name in enumerate(source.names):
      values = [text(column, row) for column in CSV_COLUMNS[1:]]
      extras = [
        '' if column[row] == schema.UNKNOWN else column[row]
        for column in source.extras.values()
      ]
      writer.writerow((name, *values, *extras))
  random = np.random.default_rng(0)
  count = min(num_faces, len(source))
  rows = np.sort(random.choice(len(source), count, replace=False))
  np.savez_compressed(
    folder / 'faces.npz', images=source.gather(rows), row=rows
  )


def evaluate(config, workdir: str) -> dict:
  """Scores `data.eval_split` with the run's network (`--mode=evaluate`).

  Args:
    config: of the run, with its overrides.
    workdir: output folder of the run.

  Returns:
    The scores, written to `eval/{data}_{split}_{step}/` in the workdir.

  Raises:
    schema.UserError: no run there, or data that cannot be scored.
  """
  network, variables, step = predictor.restore(config, workdir)
  source = open_split(config, config.data.eval_split)
  split = config.data.eval_split
  hashes = None
  if summary.fingerprint(workdir) == source.fingerprint:
    hashes = open_split(config, config.data.train_split).hashes
  scores, table = score_step(
    config, network, variables, source, split, step, hashes
  )
  name = f'{config.data.name}_{split}_{step}'
  folder = pathlib.Path(workdir) / 'eval' / name
  write_results(folder, scores, table, source, config.train.num_faces)
  print(json.dumps(scores, indent=2))
  print(f'written to {folder}')
  return scores


def score_step(
  config, network, variables, source, split: str, step: int, train_hashes=None
) -> tuple[dict, dict]:
  """Scores a step on a split.

  Args:
    config: the run's configuration.
    network: see predictor.
    variables: replicated over the devices.
    source: the split's.
    split: its name.
    step: of the variables.
    train_hashes: uint64 [M], difference hashes of the training pictures; with
      them, `<score>_without_twins` leaves out pictures at most 3 bits from
      one of these.

  Returns:
    The scores, and the table of `predict_split` behind them.
  """
  if not len(source):
    raise schema.UserError(f'split "{split}" has no examples to score')
  table = predict_split(network, variables, source, config.data.age_groups)
  scores = {
    'data': config.data.name,
    'split': split,
    'num_examples': len(source),
    'step': step,
    **score_split(network, table, config.train.bootstrap_samples),
  }
  if train_hashes is not None:
    alone = ~splits.has_twin(source.hashes, train_hashes)
    rest = {name: column[alone] for name, column in table.items()}
    scores['num_twins'] = int((~alone).sum())
    if alone.any():
      found = metrics.score(rest, num_samples=0)
      scores |= {
        f'{name}_without_twins': found[name]
        for name in metrics.BEST_METRICS
        if name in found
      }
  return scores, table
