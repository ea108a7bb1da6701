"""The user's own images to age, gender and confidence (`--mode=predict`)."""

import contextlib
import csv
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import tqdm

from agegender_jax import errors as errors_lib
from agegender_jax import files, schema
from agegender_jax.data import images
from agegender_jax.inference import annotate as annotate_lib
from agegender_jax.inference import api, photos

FACE_COLUMNS = (
  'name', 'face', 'face_left', 'face_top', 'face_right', 'face_bottom', 'landmarks',
  'face_score',
)  # fmt: skip
COLUMNS = (*schema.PREDICTION_COLUMNS, 'confidence', 'error')
DETECT_COLUMNS = (*FACE_COLUMNS, *COLUMNS[1:])
TEXT_COLUMNS = ('name', 'landmarks', 'error')
WHOLE_COLUMNS = ('face', 'age_group', 'age_group_pred', 'gender')
SUFFIXES = ('.csv', '.jsonl', '.parquet')
NAME_WIDTH = 48  # Of the table's first column, at most; longer names stick out.
NAMED_ERRORS = 10  # Images with an error that the last lines name.
PARQUET_ROWS = 4096  # Rows that are held until they are written.


def format_row(
  path: str, face: api.Face, age_groups: str, number: int = 0
) -> dict[str, str]:
  """Returns the row of a face.

  Args:
    path: of the image.
    face: see api.Face.
    age_groups: key of schema.AGE_GROUPS.
    number: of the face in its image, from 1; 0 where the image is one face crop.
  """
  columns = DETECT_COLUMNS if number else COLUMNS
  result = dict.fromkeys(columns, '') | {'name': path, 'error': face.error}
  if face.box and face.landmarks:
    result['face'] = str(number)
    ends = zip(FACE_COLUMNS[2:6], face.box, strict=True)
    result |= {name: f'{value:.1f}' for name, value in ends}
    points = [f'{value:.1f}' for point in face.landmarks for value in point]
    result |= {'landmarks': ' '.join(points), 'face_score': f'{face.score:.4f}'}
  years = {'age_pred': face.age, 'age_low': face.age_low, 'age_high': face.age_high}
  for name, value in years.items():
    if value is not None:
      result[name] = f'{value:.1f}'
  if face.age_group is not None:
    names = schema.age_group_names(age_groups)
    result['age_group_pred'] = str(names.index(face.age_group))
  if face.gender_prob is not None:
    result['gender_prob'] = f'{face.gender_prob:.4f}'
    result['confidence'] = f'{face.confidence:.4f}'
  return result


def format_line(row: dict[str, str], age_groups: str, width: int) -> str:
  """Returns a row's line of the table on stdout; without a row its heading.

  Args:
    row: see `format_row`; {} for the heading.
    age_groups: key of schema.AGE_GROUPS.
    width: of the first column, characters.
  """
  if not row:
    return f'{"image":{width}}  {"age":>6}  {"90 %":>13}  gender'
  name = errors_lib.printable(row['name'])
  if row.get('face'):
    name += f' [{row["face"]}]'
  if row['error']:
    what = '' if row['error'] in (photos.NO_FACE, api.NOT_FINITE) else 'unreadable: '
    return f'{name:{width}}  {what}{errors_lib.printable(row["error"])}'
  age, interval, gender = row['age_pred'], '', ''
  if not age and row['age_group_pred']:
    age = schema.age_group_names(age_groups)[int(row['age_group_pred'])]
  if row['age_low']:
    interval = f'{row["age_low"]} - {row["age_high"]}'
  if row['gender_prob']:
    code = int(float(row['gender_prob']) > 0.5)
    gender = f'{schema.GENDERS[code]:6} {float(row["confidence"]):6.1%}'
  return f'{name:{width}}  {age:>6}  {interval:>13}  {gender}'.rstrip()


def _type_of(name: str) -> type:
  return str if name in TEXT_COLUMNS else int if name in WHOLE_COLUMNS else float


def _values(row: dict[str, str]) -> dict:
  """Returns a row with numbers as numbers and absent values as None."""
  return {
    name: text if name in TEXT_COLUMNS else _type_of(name)(text) if text else None
    for name, text in row.items()
  } | {'name': os.fsencode(row['name']).decode('utf-8', 'backslashreplace')}


@contextlib.contextmanager
def open_table(path: str, columns: Sequence[str]) -> Iterator[Callable[[dict], None]]:
  """Yields what writes a row, see `format_row`, to a .csv, .jsonl or .parquet file.

  The file appears under its name when all rows are in it.

  Raises:
    errors_lib.UserError: another suffix, or pyarrow is absent.
  """
  suffix = pathlib.Path(path).suffix.lower()
  if suffix not in SUFFIXES:
    raise errors_lib.UserError(
      f'--output={path}: the suffix must be one of {", ".join(SUFFIXES)}'
    )
  write_rows = _write_parquet if suffix == '.parquet' else _write_text
  os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
  with files.whole(path) as temporary, write_rows(temporary, suffix, columns) as write:
    yield write


@contextlib.contextmanager
def _write_text(path, suffix, columns):
  with open(path, 'w', newline='', encoding='utf-8', errors='surrogateescape') as file:
    if suffix == '.jsonl':
      yield lambda row: file.write(json.dumps(_values(row), ensure_ascii=False) + '\n')
      return
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    quoted = ('name', 'error')
    yield lambda row: writer.writerow(
      row | {name: files.quote_cell(row[name]) for name in quoted}
    )


@contextlib.contextmanager
def _write_parquet(path, suffix, columns):
  user = '--output=NAME.parquet'
  pyarrow = errors_lib.import_extra('pyarrow', 'parquet', user)
  parquet = errors_lib.import_extra('pyarrow.parquet', 'parquet', user)
  kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
  fields = pyarrow.schema([(name, kinds[_type_of(name)]) for name in columns])
  rows: list[dict] = []

  def flush():
    file.write_table(pyarrow.Table.from_pylist(rows, fields))
    rows.clear()

  def write(row):
    rows.append(_values(row))
    if len(rows) == PARQUET_ROWS:
      flush()

  with parquet.ParquetWriter(path, fields) as file:
    yield write
    flush()


def _print(write: Callable, line: str) -> None:
  """Prints a line, until nobody reads on: `| head` is no reason to stop."""
  encoding = getattr(sys.stdout, 'encoding', None) or 'utf-8'
  try:
    write(line.encode(encoding, 'backslashreplace').decode(encoding))
  except BrokenPipeError:
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115


def predict(
  network: api.Predictor,
  patterns: Sequence[str],
  output: str = 'predictions.csv',
  annotate: str = '',
  largest_face: bool = False,
) -> None:
  """Predicts images, as a table on stdout and as a file.

  Args:
    network: see api.load.
    patterns: see photos.find_images.
    output: path of the file, by its suffix one of SUFFIXES. It has the columns of
      predictions.csv, age_low and age_high being the 90 % interval and gender_prob
      the calibrated one where the run is calibrated, then `confidence`,
      max(p, 1 - p), and `error`, empty for a face; where faces are looked for,
      FACE_COLUMNS come first.
    annotate: folder for images with boxes and labels; '' writes none.
    largest_face: only the largest face of each image.

  Raises:
    errors_lib.UserError: no image, or none with an answer.
  """
  if not patterns:
    raise errors_lib.UserError('predict needs --images=FILE, FOLDER or GLOB')
  paths = photos.find_images(patterns)
  if network.fitted is None:
    print(
      'no age intervals, gender as the network says: no calibration of step '
      f'{network.step} in {network.info["name"]}; --mode=evaluate writes it'
    )
  age_groups, detect = network.info['age_groups'], network.faces == 'detect'
  failed: list[str] = []
  counts, start = dict.fromkeys(('faces', 'faceless'), 0), time.monotonic()
  # Shown if there is time for it and (None) where stderr is a terminal.
  disable = True if len(paths) <= network.batch_size else None
  bar = tqdm.tqdm(total=len(paths), unit='img', file=sys.stderr, disable=disable)
  write_line = print if bar.disable else bar.write
  width = min(NAME_WIDTH, max(map(len, paths)) + 4 * detect)
  write_image = annotate_lib.create_writer(annotate) if annotate else None
  columns = DETECT_COLUMNS if detect else COLUMNS
  with bar, open_table(output, columns) as write_row:
    _print(write_line, format_line({}, age_groups, width))
    answers = network.stream(paths, largest_face)
    for path, faces in zip(paths, answers, strict=True):
      for number, face in enumerate(faces, 1):
        row = format_row(path, face, age_groups, number * detect)
        write_row(row)
        _print(write_line, format_line(row, age_groups, width))
        counts['faces'] += not face.error
        counts['faceless'] += face.error == photos.NO_FACE
      if any(face.error not in ('', photos.NO_FACE) for face in faces):
        failed.append(path)
      elif write_image:
        try:
          write_image(path, faces)
        except images.UnreadableError as error:  # It was readable a moment ago.
          line = f'{path} is not in {annotate}: {error}'
          _print(write_line, errors_lib.printable(line))
      bar.update()
  seconds = time.monotonic() - start
  _print(print, summarise(len(paths), failed, seconds, counts if detect else {}))
  _print(print, errors_lib.printable(f'written to {output}'))
  if len(failed) == len(paths):
    raise errors_lib.UserError(
      f'none of the {len(paths)} images has an answer: see the column '
      f'"error" of {output}'
    )


def summarise(
  count: int, failed: Sequence[str], seconds: float, counts: dict[str, int]
) -> str:
  """Returns how many images took how long, and which have an error.

  Args:
    count: of images.
    failed: paths of those that could not be read, or have no finite answer.
    seconds: that all took.
    counts: `faces` and images without one, `faceless`; {} where none was looked
      for.
  """
  text = f'{count} images, {len(failed)} of them with an error, '
  if counts:
    text += f'{counts["faceless"]} without a face, {counts["faces"]} faces, '
  text += f'{seconds:.1f} s, {count / seconds:.1f} images/s'
  for path in failed[:NAMED_ERRORS]:
    text += f'\nerror: {errors_lib.printable(path)}'
  if len(failed) > NAMED_ERRORS:
    text += f'\nand {len(failed) - NAMED_ERRORS} more, see column "error"'
  return text
