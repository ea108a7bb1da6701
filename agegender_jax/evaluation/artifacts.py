"""Writes what a scored split leaves: scores, details, predictions, faces."""

import csv
import json
import os
import pathlib

import numpy as np

from agegender_jax import errors, files, schema, scoring
from agegender_jax.scoring import calibration, subgroups


def write_results(
  folder: str | os.PathLike, scores: dict, table: dict, source, config, fitted=None
) -> None:
  """Writes scores.json, details.json, predictions.csv and faces.npz.

  Args:
    folder: where to.
    scores: see evaluate.score_step.
    table: likewise.
    source: see data.sources.
    config: the run's configuration.
    fitted: see calibration.fit; None without one.
  """
  place = pathlib.Path(folder)
  place.mkdir(parents=True, exist_ok=True)
  files.write_json(place / 'scores.json', scores)
  found = details(
    table,
    source.extras,
    config.data.age_groups,
    config.train.bootstrap_samples,
    fitted,
  )
  text = json.dumps(found, indent=1, allow_nan=False)
  files.write_whole(place / 'details.json', text + '\n')
  _write_predictions(place / 'predictions.csv', table, source)
  _write_faces(place / 'faces.npz', table, source, config.train.num_faces)


def details(table, extras, age_groups: str, num_samples: int, fitted=None) -> dict:
  """Computes scoring.details and how well the calibration holds.

  Args:
    table: see evaluate.score_step.
    extras: the data's own columns, [N] each.
    age_groups: key of schema.AGE_GROUPS.
    num_samples: bootstrap resamples.
    fitted: see calibration.fit; None without one.

  Returns:
    scoring.details with, in `calibration`: `fitted`, what the table was
    calibrated with, {} for nothing; `gender` -> bins `raw` and `calibrated`;
    `gender_scores` -> likewise expected calibration error, Brier score and
    negative log-likelihood; `intervals`, see calibration.coverage, by its groups,
    by `predicted age` (bins of the calibration) and by `predicted decade`.
  """
  names = schema.age_group_names(age_groups)
  result = scoring.details(table, extras, names, num_samples)
  section = result['calibration']
  section['fitted'] = fitted or {}
  if not fitted:
    return result
  if fitted['gender'] and 'gender_logit' in table:
    section['gender'], section['gender_scores'] = {}, {}
    for kind, column in (('raw', 'gender_raw'), ('calibrated', 'gender_prob')):
      part = {'gender': table['gender'], 'gender_prob': table[column]}
      section['gender'][kind] = scoring.calibration_curve(**part)
      found = scoring.score(part, num_samples=0)
      section['gender_scores'][kind] = {
        name: found[name]
        for name in ('gender_ece', 'gender_brier', 'gender_nll')
        if name in found
      }
  if fitted['age'] and 'age_pred' in table:
    columns = scoring.split_groups(table, extras, names)
    columns['predicted age'] = calibration.predicted_age_bins(
      fitted['age'], table['age_pred']
    )
    years = {'age': np.maximum(table['age_pred'], 0.0)}
    columns['predicted decade'] = subgroups.by_age(years, names)
    section['intervals'] = calibration.coverage(
      fitted['age'], table['age'], table['age_pred'], columns
    )
  return result


def _write_predictions(path, table, source):
  def text(column, row):
    value = table[column][row] if column in table else np.nan
    # Unknown labels are -1, and no prediction is exactly that by chance.
    unknown = value == schema.UNKNOWN and not column.endswith('_pred')
    return '' if unknown or not np.isfinite(value) else f'{value:.6g}'

  def cell(value):
    return files.quote_cell(value) if isinstance(value, str) else value

  with (
    files.whole(path) as temporary,
    temporary.open('w', newline='', encoding='utf-8') as file,
  ):
    writer = csv.writer(file)
    duplicate = ['near_duplicate'] if 'near_duplicate' in table else []
    own = [cell(column) for column in source.extras]
    writer.writerow((*schema.PREDICTION_COLUMNS, *own, *duplicate))
    for row, name in enumerate(source.names):
      values = [text(column, row) for column in schema.PREDICTION_COLUMNS[1:]]
      extras = [
        '' if column[row] == schema.UNKNOWN else cell(column[row])
        for column in source.extras.values()
      ]
      duplicates = [text(column, row) for column in duplicate]
      writer.writerow((cell(name), *values, *extras, *duplicates))


def worst_rows(table, count: int) -> np.ndarray:
  """Returns the rows, int [<= count], of the largest age errors, worst first.

  Args:
    table: see evaluate.score_step. Without years, groups apart count.
    count: how many at most.
  """
  label = 'age' if 'age_pred' in table else 'age_group'
  if f'{label}_pred' not in table:
    return np.zeros(0, np.int64)
  error = np.abs(table[f'{label}_pred'] - table[label]).astype(np.float64)
  error[table[label] == schema.UNKNOWN] = 0
  order = np.argsort(-error, kind='stable')[:count]
  return order[error[order] > 0]


def contradictory_rows(table, count: int) -> np.ndarray:
  """Returns the rows, int [<= count], whose labels the network denies.

  First wrong genders, the surest first; then ages outside of their interval,
  the farthest from it first, in widths of it.

  Args:
    table: see evaluate.score_step.
    count: how many at most.
  """
  rows = []
  if 'gender_prob' in table:
    probability, gender = table['gender_prob'], table['gender']
    wrong = (probability > 0.5) != (gender == schema.FEMALE)
    wrong &= np.isfinite(probability) & (gender != schema.UNKNOWN)
    found = np.flatnonzero(wrong)
    sure = np.abs(probability[found] - 0.5)
    rows += found[np.argsort(-sure, kind='stable')].tolist()
  if 'age_low' in table:
    age, low, high = (table[key] for key in ('age', 'age_low', 'age_high'))
    beyond = np.maximum(low - age, age - high)
    found = np.flatnonzero((beyond > 0) & (age != schema.UNKNOWN))
    share = beyond[found] / np.maximum(high - low, 1e-9)[found]
    found = found[np.argsort(-share, kind='stable')].tolist()
    seen = set(rows)
    rows += [row for row in found if row not in seen]
  return np.asarray(rows[:count], np.int64)


def _write_faces(path, table, source, count):
  random = np.random.default_rng(0)
  drawn = min(count, len(source))
  kinds = {
    '': np.sort(random.choice(len(source), drawn, replace=False)),
    'worst_': worst_rows(table, count),
    'contradictory_': contradictory_rows(table, count),
  }
  arrays = {}
  for kind, rows in kinds.items():
    arrays[f'{kind}images'], arrays[f'{kind}row'] = source.gather(rows), rows
  with files.whole(path) as temporary, temporary.open('wb') as file:
    np.savez_compressed(file, **arrays)


LAST_FILES = ('run.json', 'report.html')
SCORED_FILES = (
  'scores.json', 'details.json', 'predictions.csv', 'faces.npz', 'saliency.npz',
)  # fmt: skip


def is_finished(folder: pathlib.Path) -> bool:
  """Returns True if a run's folder holds all that a finished run writes."""
  return all((folder / name).exists() for name in LAST_FILES)


def read_metrics(workdir: str) -> list[dict]:
  """Reads metrics.jsonl; a last line that a kill cut short is left out.

  Raises:
    errors.UserError: another line is no record.
  """
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  lines = files.read(path).split(b'\n') if path.exists() else [b'']
  rows = []
  # What follows the last newline is '', or was cut short.
  for number, line in enumerate(lines[:-1], 1):
    try:
      rows.append(json.loads(line))
      rows[-1]['step']
    except (ValueError, TypeError, KeyError):
      raise errors.UserError(
        f'{path}, line {number}: not a record of a step; restore the file, or '
        'remove that line'
      ) from None
  return rows


def keep_scores(workdir: str, config) -> pathlib.Path:
  """Copies a finished run's scores to `eval/`, before it is trained on.

  Args:
    workdir: of the run; it is no longer finished then.
    config: of the run.

  Returns:
    The folder that they are in.
  """
  folder = pathlib.Path(workdir)
  step = files.read_json(folder / 'scores.json')['step']
  kept = folder / 'eval' / f'{config.data.name}_{config.data.test_split}_{step}'
  kept.mkdir(parents=True, exist_ok=True)
  for name in SCORED_FILES:
    if (folder / name).exists():
      files.write_whole(kept / name, (folder / name).read_bytes())
  for name in LAST_FILES:
    (folder / name).unlink(missing_ok=True)
  return kept
