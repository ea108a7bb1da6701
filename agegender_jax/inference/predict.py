"""The user's own images to age, gender and confidence (`--mode=predict`)."""

import csv
import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence

import tqdm

from agegender_jax import errors as errors_lib
from agegender_jax import schema
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
NAMED_ERRORS = 10  # Unreadable images that the last lines name.
PARQUET_ROWS = 4096  # Rows that are held until they are written.


@dataclasses.dataclass(frozen=True)
class Options:
  """What a user may ask of the answers.

  Attributes:
    output: path of the table, by its suffix one of SUFFIXES.
    annotate: folder for images with boxes and labels; '' writes none.
    largest_face: only the largest face of each image.
  """

  output: str = 'predictions.csv'
  annotate: str = ''
  largest_face: bool = False


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
  # A name need not be UTF-8; a terminal does.
  name = os.fsencode(row['name']).decode('utf-8', 'backslashreplace')
  if row.get('face'):
    name += f' [{row["face"]}]'
  if row['error']:
    what = '' if row['error'] == photos.NO_FACE else 'unreadable: '
    return f'{name:{width}}  {what}{row["error"]}'
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


class Table:
  """Writes rows to a .csv, .jsonl or .parquet file as they come."""

  def __init__(self, path: str, columns: Sequence[str]):
    """Opens the file.

    Raises:
      errors_lib.UserError: another suffix, or pyarrow is absent.
    """
    self._rows: list[dict] = []
    self._kind = pathlib.Path(path).suffix.lower()
    if self._kind not in SUFFIXES:
      raise errors_lib.UserError(
        f'--output={path}: the suffix must be one of {", ".join(SUFFIXES)}'
      )
    if self._kind == '.parquet':
      try:
        import pyarrow
        import pyarrow.parquet
      except ImportError:
        raise errors_lib.UserError(
          f"--output={path} needs pyarrow: pip install 'agegender_jax[parquet]'"
        ) from None
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    if self._kind == '.parquet':
      kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
      self._schema = pyarrow.schema([(name, kinds[_type_of(name)]) for name in columns])
      self._file = pyarrow.parquet.ParquetWriter(path, self._schema)
      return
    self._file = open(  # noqa: SIM115
      path, 'w', encoding='utf-8', errors='surrogateescape', newline=''
    )
    if self._kind == '.csv':
      self._writer = csv.DictWriter(self._file, columns)
      self._writer.writeheader()

  def write(self, row: dict[str, str]) -> None:
    """Writes a row, see `format_row`."""
    if self._kind == '.csv':
      self._writer.writerow(row)
    elif self._kind == '.jsonl':
      self._file.write(json.dumps(_values(row), ensure_ascii=False) + '\n')
    else:
      self._rows.append(_values(row))
      if len(self._rows) >= PARQUET_ROWS:
        self._flush()

  def _flush(self) -> None:
    import pyarrow

    self._file.write_table(pyarrow.Table.from_pylist(self._rows, self._schema))
    self._rows = []

  def __enter__(self) -> 'Table':
    return self

  def __exit__(self, *_) -> None:
    if self._rows:
      self._flush()
    self._file.close()


def _print(write: Callable, line: str) -> None:
  """Prints a line, until nobody reads on: `| head` is no reason to stop."""
  encoding = getattr(sys.stdout, 'encoding', None) or 'utf-8'
  try:
    write(line.encode(encoding, 'backslashreplace').decode(encoding))
  except BrokenPipeError:
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115


def _create_bar(count: int, batch_size: int) -> tqdm.tqdm:
  """Creates a progress bar, shown on a terminal and if there is time for it."""
  # None: where stderr is a terminal.
  disable = True if count <= batch_size else None
  return tqdm.tqdm(total=count, unit='img', file=sys.stderr, disable=disable)


def predict(network: api.Predictor, patterns: Sequence[str], options: Options) -> None:
  """Predicts images, as a table on stdout and as a file.

  Args:
    network: see api.load.
    patterns: see photos.find_images.
    options: see Options. The file has the columns of predictions.csv, age_low and
      age_high being the 90 % interval and gender_prob the calibrated one where the
      run is calibrated, then `confidence`, max(p, 1 - p), and `error`, empty for a
      face; where faces are looked for, FACE_COLUMNS come first.

  Raises:
    errors_lib.UserError: no image, or no readable image.
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
  broken: list[str] = []
  counts, start = dict.fromkeys(('faces', 'faceless'), 0), time.monotonic()
  bar = _create_bar(len(paths), network.batch_size)
  write_line = print if bar.disable else bar.write
  width = min(NAME_WIDTH, max(map(len, paths)) + 4 * detect)
  annotator = annotate_lib.Annotator(options.annotate) if options.annotate else None
  with bar, Table(options.output, DETECT_COLUMNS if detect else COLUMNS) as table:
    _print(write_line, format_line({}, age_groups, width))
    answers = network.stream(paths, options.largest_face)
    for path, faces in zip(paths, answers, strict=True):
      for number, face in enumerate(faces, 1):
        row = format_row(path, face, age_groups, number * detect)
        table.write(row)
        _print(write_line, format_line(row, age_groups, width))
        counts['faces'] += not face.error
        counts['faceless'] += face.error == photos.NO_FACE
        broken += [path] if face.error not in ('', photos.NO_FACE) else []
      if annotator and path not in broken[-1:]:
        annotator.write(path, faces)
      bar.update()
  seconds = time.monotonic() - start
  _print(print, summarise(len(paths), broken, seconds, counts if detect else {}))
  _print(print, f'written to {options.output}')
  if len(broken) == len(paths):
    raise errors_lib.UserError(
      f'none of the {len(paths)} images can be read: see the column '
      f'"error" of {options.output}'
    )


def summarise(
  count: int, unreadable: Sequence[str], seconds: float, counts: dict[str, int]
) -> str:
  """Returns how many images took how long, and which could not be read.

  Args:
    count: of images.
    unreadable: paths of those that could not be read.
    seconds: that all took.
    counts: `faces` and images without one, `faceless`; {} where none was looked
      for.
  """
  text = f'{count} images, {len(unreadable)} of them unreadable, '
  if counts:
    text += f'{counts["faceless"]} without a face, {counts["faces"]} faces, '
  text += f'{seconds:.1f} s, {count / seconds:.1f} images/s'
  for path in unreadable[:NAMED_ERRORS]:
    name = os.fsencode(path).decode('utf-8', 'backslashreplace')
    text += f'\nunreadable: {name}'
  if len(unreadable) > NAMED_ERRORS:
    text += f'\nand {len(unreadable) - NAMED_ERRORS} more, see column "error"'
  return text
