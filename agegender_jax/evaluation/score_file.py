"""Scores anybody's predictions of a split (`--mode=score`)."""

import csv
import io
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from agegender_jax import config as config_lib
from agegender_jax import errors, files, schema, scoring
from agegender_jax.data import source as source_lib
from agegender_jax.evaluation import artifacts, summary

# Columns of a predictions file beside `name`; years may be negative.
COLUMNS = ('age_pred', 'age_low', 'age_high', 'age_group_pred', 'gender_prob')
MOST_LEFT_OUT = 0.01  # Share of images or rows; more is no slip but another split.


def read_predictions(path: str) -> tuple[list[str], dict[str, list[str]]]:
  """Reads a CSV of predictions: its names, and COLUMNS that hold any value.

  Raises:
    errors.UserError: no such file, no `name`, or no prediction.
  """
  try:
    text = files.read(os.path.expanduser(path)).decode('utf-8-sig')
    reader = csv.DictReader(io.StringIO(text, newline=''), strict=True)
    rows = list(reader)
  except FileNotFoundError:
    raise errors.UserError(f'--predictions={path}: no such file') from None
  except (UnicodeDecodeError, csv.Error) as error:
    raise errors.UserError(f'--predictions={path} is no CSV file: {error}') from None
  header = reader.fieldnames or []
  twice = {name for name in header if header.count(name) > 1}
  if twice or 'name' not in header:
    fault = f'two columns "{twice.pop()}"' if twice else 'no column "name"'
    raise errors.UserError(f'--predictions={path} has {fault}')
  columns = {key: [(row.get(key) or '').strip() for row in rows] for key in COLUMNS}
  columns = {key: texts for key, texts in columns.items() if any(texts)}
  if not columns.keys() & {'age_pred', 'age_group_pred', 'gender_prob'}:
    raise errors.UserError(
      f'--predictions={path} holds no prediction: give age_pred (years) or '
      'age_group_pred, gender_prob (of female), or both'
    )
  return [files.unquote_cell(row['name'] or '') for row in rows], columns


def match_names(
  predicted: Sequence[str], names: Sequence[str]
) -> tuple[np.ndarray, dict[str, list[str]]]:
  """Finds the row of each image's prediction.

  A name that is no image's is tried without its folders, if the images' names
  differ without theirs.

  Args:
    predicted: the names in the file.
    names: those of the split's N images.

  Returns:
    int [N], row in the file, -1 for none; and the names left out: those that are
    no image's (`unknown`) or repeated (`duplicate`), of images without a row
    (`missing`).
  """
  rows = {name: row for row, name in enumerate(names)}
  short = {name.rsplit('/')[-1]: row for name, row in rows.items()}
  short = short if len(short) == len(names) else {}
  found = np.full(len(names), -1)
  uses = np.zeros(len(names), int)
  left_out: dict[str, list[str]] = {'unknown': [], 'duplicate': []}
  for place, name in enumerate(predicted):
    name = name.replace('\\', '/')
    row = rows.get(name, short.get(name.rsplit('/')[-1]))
    if row is None:
      left_out['unknown'].append(name)
      continue
    if uses[row]:
      left_out['duplicate'].append(name)
    found[row] = place
    uses[row] += 1
  found[uses > 1] = -1
  left_out['missing'] = [names[row] for row in np.flatnonzero(found < 0).tolist()]
  return found, left_out


def parse_column(key: str, texts: Sequence[str], group_names: Sequence[str]):
  """Reads a column as float [N], NaN where it is empty.

  Raises:
    ValueError: a text that is no value of the column.
  """
  codes = {name: row for row, name in enumerate(group_names)}
  values = np.full(len(texts), np.nan)
  for row, text in enumerate(texts):
    if not text:
      continue
    value = float(codes.get(text, text) if key == 'age_group_pred' else text)
    if (
      not np.isfinite(value)
      or (key == 'gender_prob' and not 0 <= value <= 1)
      or (key == 'age_group_pred' and value not in codes.values())
    ):
      raise ValueError(f'{key} "{text}" of row {row + 2} is none')
    values[row] = value
  return values


def create_table(
  path: str, names: Sequence[str], labels: Mapping, age_groups: str
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
  """Joins a file's predictions and the labels of a split.

  Args:
    path: of the CSV.
    names: of the split's N images.
    labels: `age`, `age_group` and `gender`, [N].
    age_groups: key of schema.AGE_GROUPS.

  Returns:
    The table of scoring.score, NaN where an image has no prediction, and the
    number of names that `match_names` left out.

  Raises:
    errors.UserError: the file cannot be read, an interval ends before it begins,
      or too much of the file or of the split would be left out.
  """
  predicted, texts = read_predictions(path)
  rows, left_out = match_names(predicted, names)
  table = {key: np.asarray(labels[key]) for key in ('age', 'age_group', 'gender')}
  for key, column in texts.items():
    try:
      values = parse_column(key, column, schema.age_group_names(age_groups))
    except ValueError as error:
      raise errors.UserError(f'--predictions={path}: {error}') from None
    table[key] = np.where(rows >= 0, values[rows], np.nan)
    without = np.flatnonzero(np.isnan(table[key]) & (rows >= 0)).tolist()
    left_out[f'without {key}'] = [names[row] for row in without]
  for what, out in left_out.items():
    whole = len(predicted) if what in ('unknown', 'duplicate') else len(names)
    if len(out) > MOST_LEFT_OUT * whole:
      raise errors.UserError(
        f'--predictions={path}: of {len(predicted)} rows and {len(names)} images '
        f'of the split, {len(out)} are {what} (such as "{out[0]}"); at most 1 % may '
        'be: is it of this split?'
      )
  if {'age_low', 'age_high'} <= table.keys():
    for row in np.flatnonzero(table['age_low'] > table['age_high']).tolist():
      raise errors.UserError(
        f'--predictions={path}: age_low of "{names[row]}" is above its age_high'
      )
  if 'age_pred' in table and 'age_group_pred' not in table:
    known = np.isfinite(table['age_pred'])
    years = np.where(known, table['age_pred'], 0)
    group = schema.group_of_prediction(years, age_groups)
    table['age_group_pred'] = np.where(known, group, np.nan)
  return table, {what: len(out) for what, out in left_out.items()}


def score_file(config, workdir: str, path: str) -> dict[str, float]:
  """Scores a CSV of predictions on data.eval_split like a network's.

  Args:
    config: its `data` names data set, split and age groups.
    workdir: where scores.json, details.json, predictions.csv and the rest of
      what a report shows are written.
    path: of the CSV: `name`, `age_pred` (years) or `age_group_pred`,
      `gender_prob` (of female) and, if they are known, `age_low`, `age_high`
      (90 %).

  Returns:
    The scores.

  Raises:
    errors.UserError: see `create_table`, or the workdir is a training run's.
  """
  if not path:
    raise errors.UserError('--mode=score needs --predictions=FILE.csv')
  if (pathlib.Path(workdir) / 'checkpoints').exists():
    raise errors.UserError(
      f'workdir "{workdir}" holds a training run, whose scores these are not: name '
      'another folder'
    )
  split = config.data.eval_split
  open_split = source_lib.create_opener(config.data)
  source, train = open_split(split), open_split(config.data.train_split)
  age_groups = config.data.age_groups
  table, counts = create_table(path, source.names, source.labels, age_groups)
  scores = {
    'data': config.data.name,
    'split': split,
    'num_examples': len(source) - counts['missing'],
    'step': 0,
    'age_groups': age_groups,
    **{f'num_{what}': counts[what] for what in ('missing', 'unknown', 'duplicate')},
    **scoring.score(table, config.train.bootstrap_samples),
  }
  config_lib.save_config(config, workdir)
  artifacts.write_results(workdir, scores, table, source, config)
  splits = {'train': train, 'test': source}
  summary.write_data_summary(config, workdir, splits, {'test': split})
  finished = {'finished': True, 'predictions': path}
  files.write_json(pathlib.Path(workdir, 'run.json'), finished)
  print(json.dumps(scores, indent=2))
  if scores.get('gender_accuracy', 1) < 0.5:
    print('gender is wrong for most: gender_prob is the probability of female')
  return scores
