"""Builds the blocks of a page, plain dicts, and formats their numbers.

`page.html.j2` has one macro per kind of block. In a section a text is a paragraph
and a list holds figures; in a table a text, a whole number or None is a cell.
"""

import base64
import io
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from agegender_jax import scoring
from agegender_jax.report import plots
from agegender_jax.scoring import metrics

MISSING = '\N{EN DASH}'
# Of an image on the page: enough for its place, and dozens stay small.
_MOST_PIXELS = 160


def title(key: str) -> str:
  """Returns the title of a score, whose key may have a prefix or suffix."""
  name = key.rpartition('/')[2]
  metric = metrics.find(name)
  text = metric.title if metric else name.replace('_', ' ').capitalize()
  without = key.endswith('_without_near_duplicates')
  return f'{text}, without near-duplicates' if without else text


def unit_of(key: str) -> str:
  """Returns `years`, `%` (the values are fractions) or ''."""
  metric = metrics.find(key.rpartition('/')[2])
  return metric.unit if metric else ''


def scale(key: str) -> int:
  """Returns the factor from a stored score to its unit."""
  return 100 if unit_of(key) == '%' else 1


def axis(key: str) -> str:
  """Returns the label of an axis, such as `Gender accuracy (%)`."""
  return f'{title(key)} ({unit_of(key)})'.removesuffix(' ()')


def header(key: str) -> str:
  """Returns the header of a column, such as `Gender accuracy, %`."""
  return f'{title(key)}, {unit_of(key)}'.removesuffix(', ')


def headlines(level: int = 1) -> list[str]:
  """Returns the names of the headline metrics, see scoring.Metric."""
  return [metric.name for metric in scoring.headlines(level)]


def listed(scores: Mapping) -> list[str]:
  """Returns the keys of flat scores that are metrics or losses, in their order."""
  return [
    key
    for key, value in scores.items()
    if (metrics.find(key) or key.endswith('loss')) and is_number(value)
    if not key.endswith(('_low', '_high'))
  ]


def is_number(value) -> bool:
  """Returns True if a value is a finite number."""
  return isinstance(value, (int, float, np.number)) and math.isfinite(value)


def number(value, unit='years', signed=False) -> str:
  """Formats years with two decimals, fractions as percent with one.

  Args:
    value: a number, or None.
    unit: `years`, `%`, or '' of a number without a unit (three decimals).
    signed: whether a positive number gets its sign.
  """
  if not is_number(value):
    return MISSING
  sign, digits = '+' if signed else '', {'%': 1, 'years': 2}.get(unit, 3)
  return f'{100 * value if unit == "%" else value:{sign}.{digits}f}'


def interval(low, high, unit='years', signed=False) -> str:
  """Formats an interval, '' where it is not known."""
  ends = [number(end, unit, signed) for end in (low, high)]
  return '' if MISSING in ends else ' to '.join(ends)


def estimate(scores: Mapping, key: str) -> dict:
  """Returns `value`, `low` and `high` of a key of flat scores, None if absent."""
  ends = {'value': '', 'low': '_low', 'high': '_high'}
  return {name: scores.get(key + suffix) for name, suffix in ends.items()}


def estimate_cell(found: Mapping, key: str, signed=False) -> dict:
  """Returns the cell of an estimate: `value`, `low` and `high` of a metric."""
  value, form = found.get('value'), (unit_of(key), signed or key == 'age_bias')
  ends = interval(found.get('low'), found.get('high'), *form)
  return cell(number(value, *form), math.nan if value is None else value, ends)


def score_cell(scores: Mapping, key: str) -> dict:
  """Returns the cell of a key of flat scores."""
  return estimate_cell(estimate(scores, key), key)


def cell(content, sort=None, small='') -> dict:
  """Returns a cell of a table.

  Args:
    content: a text, a whole number, or None for a missing number.
    sort: number to sort by, or None to sort a text by itself.
    small: second line.
  """
  if content is None:
    content, sort = MISSING, math.nan
  elif isinstance(content, int):
    content, sort = f'{content:,}', content
  if sort is not None:
    sort = float(sort) if math.isfinite(sort) else ''
  return {'text': str(content), 'sort': sort, 'small': small}


def table(caption: str, header: Sequence[str], rows: Iterable, total=()) -> dict:
  """Returns a sortable table.

  Args:
    caption: text above it, or ''.
    header: one text per column.
    rows: lists of cells, or of what `cell` takes.
    total: a last row that stays last.
  """
  rows = [
    [item if isinstance(item, dict) else cell(item) for item in row]
    for row in (*rows, total)
  ]
  total = rows.pop()
  shown = {'caption': caption, 'header': header, 'rows': rows, 'total': total}
  return {'kind': 'table'} | shown if rows else {}


def figures(found: Iterable[plots.Figure]) -> dict:
  """Returns a block of figures, {} of none."""
  items = list(found)
  return {'kind': 'figures', 'items': items} if items else {}


def fold(summary: str, *parts) -> dict:
  """Returns blocks folded away under a summary, {} of none."""
  blocks = section('', '', *parts).get('blocks')
  return {'kind': 'fold', 'summary': summary, 'blocks': blocks} if blocks else {}


def facts(pairs: Iterable[tuple[str, str]]) -> dict:
  """Returns a list of (name, value); empty values are left out."""
  items = [(name, value) for name, value in pairs if value not in ('', None)]
  return {'kind': 'facts', 'items': items} if items else {}


def warning(text: str) -> dict:
  """Returns a paragraph that stands out."""
  return {'kind': 'warning', 'text': text}


def code(text: str, summary='') -> dict:
  """Returns preformatted text, folded away under a summary if one is given."""
  return {'kind': 'code', 'text': text, 'summary': summary}


def section(key: str, title: str, *parts) -> dict:
  """Returns a section of the parts that are not empty, {} of none."""
  blocks = []
  for part in filter(None, parts):
    if isinstance(part, str):
      part = {'kind': 'note', 'text': part}
    blocks.append(figures(part) if isinstance(part, list) else part)
  return {'id': key, 'title': title, 'blocks': blocks} if blocks else {}


def data_uri(kind: str, content: bytes) -> str:
  """Returns an image, whose kind is `png` or `jpeg`, as a data URI."""
  return f'data:image/{kind};base64,' + base64.b64encode(content).decode('ascii')


def image_uri(image: np.ndarray) -> str:
  """Returns a uint8 [H, W, 3] image as the data URI of a small JPEG."""
  stream = io.BytesIO()
  shown = Image.fromarray(image)
  shown.thumbnail((_MOST_PIXELS, _MOST_PIXELS), Image.Resampling.LANCZOS)
  shown.save(stream, 'JPEG', quality=88)
  return data_uri('jpeg', stream.getvalue())


def environment(is_html: bool):
  """Returns what renders the templates of this folder.

  Args:
    is_html: escape texts, and accept no name that is absent.
  """
  import jinja2

  return jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=is_html,
    undefined=jinja2.StrictUndefined if is_html else jinja2.Undefined,
    keep_trailing_newline=not is_html,
    trim_blocks=True,
    lstrip_blocks=True,
  )
