"""Own pictures: paths to age, gender and confidence (`--mode=predict`)."""

import csv
import functools
import os
import sys
import time
from collections.abc import Callable, Sequence

import tqdm

from agegender_jax import errors as errors_lib
from agegender_jax import schema
from agegender_jax.inference import photos, predictor
from agegender_jax.scoring import calibration

COLUMNS = (*schema.PREDICTION_COLUMNS, 'confidence', 'error')
NAME_WIDTH = 48  # Of the table's first column, at most; longer names stick out.
NAMED_ERRORS = 10  # Unreadable pictures that the last lines name.


def format_row(path: str, columns, row: int, error: str) -> dict[str, str]:
  """Returns the CSV row of a picture.

  Args:
    path: of the picture.
    columns: predictions [n], see predictor.predictions and calibration.apply.
    row: of the picture in them.
    error: what is wrong with the picture, '' for nothing.
  """
  result = dict.fromkeys(COLUMNS, '') | {'name': path, 'error': error}
  if error:
    return result
  for name in ('age_pred', 'age_low', 'age_high'):
    if name in columns:
      result[name] = f'{columns[name][row]:.1f}'
  if 'age_group_pred' in columns:
    result['age_group_pred'] = str(columns['age_group_pred'][row])
  if 'gender_prob' in columns:
    probability = columns['gender_prob'][row]
    result['gender_prob'] = f'{probability:.4f}'
    result['confidence'] = f'{max(probability, 1 - probability):.4f}'
  return result


def format_line(row: dict[str, str], age_groups: str, width: int) -> str:
  """Returns a picture's line of the table; without a row its heading.

  Args:
    row: see `format_row`; {} for the heading.
    age_groups: key of schema.AGE_GROUPS.
    width: of the first column, characters.
  """
  if not row:
    return f'{"picture":{width}}  {"age":>6}  {"90 %":>13}  gender'
  # A name need not be UTF-8; a terminal does.
  name = os.fsencode(row['name']).decode('utf-8', 'backslashreplace')
  if row['error']:
    return f'{name:{width}}  unreadable: {row["error"]}'
  age, interval, gender = row['age_pred'], '', ''
  if not age and row['age_group_pred']:
    age = schema.age_group_names(age_groups)[int(row['age_group_pred'])]
  if row['age_low']:
    interval = f'{row["age_low"]} - {row["age_high"]}'
  if row['gender_prob']:
    code = int(float(row['gender_prob']) > 0.5)
    gender = f'{schema.GENDERS[code]:6} {float(row["confidence"]):6.1%}'
  return f'{name:{width}}  {age:>6}  {interval:>13}  {gender}'.rstrip()


def find_calibration(config, workdir: str, step: int) -> dict | None:
  """Returns a run's calibration; None, with a line printed, without one."""
  path = calibration.path(config, workdir)
  fitted = calibration.read(path)
  if fitted and fitted['step'] == step:
    return fitted
  print(
    f'no age intervals, gender as the network says: {path} is '
    f'{"of another step" if fitted else "absent"}; --mode=evaluate writes it'
  )
  return None


def _print(write: Callable, line: str) -> None:
  """Prints a line, until nobody reads on: `| head` is no reason to stop."""
  try:
    write(line)
  except BrokenPipeError:
    sys.stdout = open(os.devnull, 'w')


def _create_bar(count: int, batch_size: int) -> tqdm.tqdm:
  """Creates a progress bar, shown on a terminal and if there is time for it."""
  # None: where stderr is a terminal.
  disable = True if count <= batch_size else None
  return tqdm.tqdm(total=count, unit='img', file=sys.stderr, disable=disable)


def predict(config, workdir: str, patterns: Sequence[str], output: str):
  """Predicts pictures, as a table on stdout and as CSV.

  Args:
    config: of the run.
    workdir: output folder of the run.
    patterns: see photos.find_images.
    output: path of the CSV: the columns of predictions.csv, age_low and
      age_high being the 90 % interval and gender_prob the calibrated one where
      the run is calibrated, then `confidence`, max(p, 1 - p), and `error`,
      empty for a readable picture.

  Raises:
    errors_lib.UserError: no run, no picture, or no readable picture.
  """
  if not patterns:
    raise errors_lib.UserError('predict needs --images=FILE, FOLDER or GLOB')
  paths = photos.find_images(patterns)
  network, variables, step = predictor.restore(config, workdir)
  fitted = find_calibration(config, workdir, step)
  data, errors, unreadable, start = config.data, {}, [], time.monotonic()
  batch_size = network.batch_size_for(len(paths))
  outputs = network.predict(
    variables,
    photos.read_batches(
      paths, batch_size, data.image_size, photos.create_read(data), errors
    ),
  )
  bar = _create_bar(len(paths), batch_size)
  show = functools.partial(_print, print if bar.disable else bar.write)
  width = min(NAME_WIDTH, max(map(len, paths)))
  os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
  with (
    bar,
    open(output, 'w', encoding='utf-8', errors='surrogateescape',
         newline='') as file,
  ):  # fmt: skip
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    show(format_line({}, data.age_groups, width))
    for first in range(0, len(paths), batch_size):
      columns = predictor.predictions(next(outputs), data.age_groups)
      columns |= calibration.apply(fitted, columns) if fitted else {}
      row = 0  # Of the readable pictures.
      for at in range(first, min(first + batch_size, len(paths))):
        error = errors.pop(at, '')
        line = format_row(paths[at], columns, row, error)
        row += not error
        unreadable += [paths[at]] if error else []
        writer.writerow(line)
        show(format_line(line, data.age_groups, width))
        bar.update()
  _print(print, summarise(len(paths), unreadable, time.monotonic() - start))
  _print(print, f'written to {output}')
  if len(unreadable) == len(paths):
    raise errors_lib.UserError(
      f'none of the {len(paths)} pictures can be read: see the column '
      f'"error" of {output}'
    )


def summarise(count: int, unreadable: Sequence[str], seconds: float) -> str:
  """Says how many pictures took how long, and which could not be read."""
  text = (
    f'{count} pictures, {len(unreadable)} of them unreadable, '
    f'{seconds:.1f} s, {count / seconds:.1f} images/s'
  )
  for path in unreadable[:NAMED_ERRORS]:
    name = os.fsencode(path).decode('utf-8', 'backslashreplace')
    text += f'\nunreadable: {name}'
  if len(unreadable) > NAMED_ERRORS:
    text += f'\nand {len(unreadable) - NAMED_ERRORS} more, see column "error"'
  return text
