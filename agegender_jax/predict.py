"""Own pictures: paths to age, gender and confidence (`--mode=predict`)."""

import concurrent.futures
import csv
import glob
import itertools
import os
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm

from agegender_jax import evaluate, predictor, schema
from agegender_jax.data import preprocess

# What a folder is searched for; a file that is named is tried as it is.
SUFFIXES = (
  '.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff', '.heic',
)  # fmt: skip
READ_THREADS = 4


def find_images(patterns: Sequence[str]) -> list[str]:
  """Lists pictures.

  Args:
    patterns: files, folders (searched through) or globs.

  Returns:
    Paths, each pattern's in the order of their names.

  Raises:
    schema.UserError: a pattern without any picture.
  """
  paths = []
  for pattern in patterns:
    if os.path.isdir(pattern):
      found = sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(pattern)
        for name in names
        if name.lower().endswith(SUFFIXES)
      )
    elif os.path.exists(pattern):
      found = [pattern]
    else:
      found = sorted(path for path in glob.glob(pattern, recursive=True)
                     if os.path.isfile(path))  # fmt: skip
    if not found:
      raise schema.UserError(f'--images={pattern}: no picture found there')
    paths += found
  return paths


def _read(path, size, crop):
  """Returns (image uint8 [size, size, 3], '') or (None, what is wrong)."""
  try:
    return preprocess.prepare(preprocess.decode(path), size, crop), ''
  except preprocess.UnreadableError as error:
    return None, ' '.join(str(error).split())


def read_batches(
  paths: Sequence[str], batch_size: int, size: int, crop: float, errors: dict
) -> Iterator[dict[str, np.ndarray]]:
  """Reads pictures in constant memory, a few batches ahead.

  Args:
    paths: of the pictures.
    batch_size: B; the last batch is padded.
    size: pixels, height and width.
    crop: see preprocess.prepare.
    errors: gets path row -> what is wrong, for each unreadable picture.

  Yields:
    `image` uint8 [B, size, size, 3], `mask` float32 [B] (0 for padding and
    unreadable pictures).
  """
  with concurrent.futures.ThreadPoolExecutor(READ_THREADS) as pool:
    rows = iter(range(0, len(paths), batch_size))

    def submit(start):
      part = paths[start : start + batch_size]
      return start, [pool.submit(_read, path, size, crop) for path in part]

    waiting = [submit(start) for start in itertools.islice(rows, 2)]
    while waiting:
      start, futures = waiting.pop(0)
      image = np.zeros((batch_size, size, size, 3), np.uint8)
      mask = np.zeros((batch_size,), np.float32)
      for row, future in enumerate(futures):
        picture, error = future.result()
        if error:
          errors[start + row] = error
        else:
          image[row], mask[row] = picture, 1
      waiting += [submit(start) for start in itertools.islice(rows, 1)]
      yield {'image': image, 'mask': mask}


def _format_row(path, output, row, error, age_groups):
  """Returns the CSV row of one picture as a dict."""
  result = dict.fromkeys(evaluate.CSV_COLUMNS, '') | {'name': path}
  result |= {'confidence': '', 'error': error}
  if error:
    return result
  if 'age' in output:
    age = output['age'][row]
    result['age_pred'] = f'{age:.1f}'
    group = schema.group_of_prediction(age, age_groups)
    result['age_group_pred'] = str(group)
  if 'age_group' in output:
    result['age_group_pred'] = str(output['age_group'][row])
  if 'gender_prob' in output:
    probability = output['gender_prob'][row]
    result['gender_prob'] = f'{probability:.4f}'
    result['confidence'] = f'{max(probability, 1 - probability):.4f}'
  return result


def _print_row(row, age_groups):
  if row['error']:
    print(f'{row["name"]}  unreadable: {row["error"]}')
    return
  parts = [row['name']]
  if row['age_pred']:
    parts.append(f'age {row["age_pred"]}')
  elif row['age_group_pred']:
    name = schema.age_group_names(age_groups)[int(row['age_group_pred'])]
    parts.append(f'age {name}')
  if row['gender_prob']:
    gender = schema.GENDERS[int(float(row['gender_prob']) > 0.5)]
    parts.append(f'{gender} {100 * float(row["confidence"]):.0f} %')
  print('  '.join(parts))


def predict(config, workdir: str, patterns: Sequence[str], output: str):
  """Predicts pictures, as a table on stdout and as CSV.

  Args:
    config: of the run.
    workdir: output folder of the run.
    patterns: see `find_images`.
    output: path of the CSV: the columns of predictions.csv, then
      `confidence`, max(p, 1 - p), and `error`, empty for a readable picture.

  Raises:
    schema.UserError: no run, no picture, or no readable picture.
  """
  if not patterns:
    raise schema.UserError('predict needs --images=FILE, FOLDER or GLOB')
  paths = find_images(patterns)
  network, variables, _ = predictor.restore(config, workdir)
  data, errors = config.data, {}
  batches = read_batches(
    paths, network.batch_size, data.image_size, data.crop, errors
  )
  outputs = network.predict(variables, batches)
  bar = tqdm.tqdm(total=len(paths), unit='img', file=sys.stderr,
                  disable=len(paths) <= network.batch_size)  # fmt: skip
  columns = (*evaluate.CSV_COLUMNS, 'confidence', 'error')
  os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
  unreadable = 0
  with bar, open(output, 'w', newline='') as file:
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    for start in range(0, len(paths), network.batch_size):
      result, row = next(outputs), 0
      for at in range(start, min(start + network.batch_size, len(paths))):
        error = errors.pop(at, '')
        line = _format_row(paths[at], result, row, error, data.age_groups)
        row += not error
        unreadable += bool(error)
        writer.writerow(line)
        _print_row(line, data.age_groups)
        bar.update()
  print(
    f'{len(paths)} pictures, {unreadable} of them unreadable, '
    f'written to {output}'
  )
  if unreadable == len(paths):
    raise schema.UserError(
      f'none of the {len(paths)} pictures can be read: see the column '
      f'"error" of {output}'
    )
