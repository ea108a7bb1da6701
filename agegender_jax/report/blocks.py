"""The kinds of block that `page.html.j2` knows, as plain dicts."""

import base64
import io
import math

import numpy as np
from PIL import Image

from agegender_jax.report import canvas

MISSING = '\N{EN DASH}'
# Of a picture on the page: enough for its place, and dozens stay small.
MOST_PIXELS = 160


def number(value, unit='years', signed=False) -> str:
  """Formats years with two decimals, fractions as percent with one.

  Args:
    value: what, or None.
    unit: `years`, `%` or '' of a number without a unit (three decimals).
    signed: whether a positive one gets its sign.
  """
  if value is None or not math.isfinite(value):
    return MISSING
  sign = '+' if signed else ''
  if unit == '%':
    return f'{100 * value:{sign}.1f}'
  return f'{value:{sign}.{2 if unit else 3}f}'


def interval(low, high, unit='years', signed=False) -> str:
  """Formats an interval, '' where it is not known."""
  ends = [number(end, unit, signed) for end in (low, high)]
  return '' if MISSING in ends else ' to '.join(ends)


def estimate_cell(estimate, unit='years', signed=False) -> dict:
  """Returns a table's cell of a stats.estimate."""
  return cell(
    number(estimate['value'], unit, signed),
    estimate['value'],
    interval(estimate['low'], estimate['high'], unit, signed),
  )


def cell(text, sort=None, small='') -> dict:
  """Returns a table's cell.

  Args:
    text: what it says.
    sort: number to sort by, or None to sort by the text.
    small: second line.
  """
  if sort is not None:
    sort = float(sort) if math.isfinite(sort) else ''
  return {'text': text, 'sort': sort, 'small': small}


def table(caption, header, rows, total=()) -> dict:
  """Returns a sortable table.

  Args:
    caption: text above it, or ''.
    header: texts.
    rows: lists of cells.
    total: cells of a last row that stays last.
  """
  return {'kind': 'table', 'caption': caption, 'header': header, 'rows': rows,
          'total': list(total)}  # fmt: skip


def figures(panels) -> dict:
  """Returns figures from (description, panel[, inches]) tuples, {} of none."""
  items = [
    {'label': label, 'svg': canvas.to_svg(panel, *size)}
    for label, panel, *size in panels
  ]
  return {'kind': 'figures', 'items': items} if items else {}


def fold(summary, *parts) -> dict:
  """Returns blocks folded away under a summary, {} of none."""
  parts = [part for part in parts if part]
  return {'kind': 'fold', 'summary': summary, 'blocks': parts} if parts else {}


def heading(text) -> dict:
  """Returns a heading within a section."""
  return {'kind': 'heading', 'text': text}


def link(text, target) -> dict:
  """Returns a paragraph that links to a file beside the page."""
  return {'kind': 'link', 'text': text, 'target': target}


def facts(pairs) -> dict:
  """Returns a list of (name, value); empty values are left out."""
  items = [(name, value) for name, value in pairs if value not in ('', None)]
  return {'kind': 'facts', 'items': items}


def note(text) -> dict:
  """Returns a paragraph."""
  return {'kind': 'note', 'text': text}


def code(text, summary='') -> dict:
  """Returns preformatted text, folded away under a summary if one is given."""
  return {'kind': 'code', 'text': text, 'summary': summary}


def picture(image: np.ndarray) -> str:
  """Returns a uint8 [H, W, 3] picture as a data URI."""
  stream = io.BytesIO()
  shown = Image.fromarray(image)
  shown.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.LANCZOS)
  shown.save(stream, 'JPEG', quality=88)
  return 'data:image/jpeg;base64,' + base64.b64encode(stream.getvalue()).decode('ascii')


def card(metric, scores, trivial) -> dict:
  """Returns a headline score beside the trivial predictor's.

  Args:
    metric: of scoring.METRICS; `scores` has its name.
    scores: flat scores with `_low` and `_high`.
    trivial: value a key, where known.

  Returns:
    The texts, and positions on a scale from 0 to 100 (%, or years to a
    little over the larger of score and trivial score).
  """
  value = scores[metric.name]
  low = scores.get(f'{metric.name}_low')
  high = scores.get(f'{metric.name}_high')
  other = trivial.get(metric.name)
  end = 1.0
  if metric.unit != '%':
    end = 1.1 * max(
      x for x in (value, high, other, 0.1) if x is not None and math.isfinite(x)
    )
  places = {'value': value, 'low': low, 'high': high, 'trivial': other}
  return {
    'name': metric.title,
    'value': number(value, metric.unit),
    'unit': metric.unit,
    'interval': interval(low, high, metric.unit),
    'trivial': '' if other is None else number(other, metric.unit),
    'better': 'more is better' if metric.direction > 0 else 'less is better',
    'places': {
      key: round(100 * min(max(place / end, 0), 1), 2)
      for key, place in places.items()
      if place is not None and math.isfinite(place)
    },
  }  # fmt: skip


def section(key, title, *parts) -> dict:
  """Returns a section of the parts that are there, or {} of none."""
  parts = [part for part in parts if part]
  return {'id': key, 'title': title, 'blocks': parts} if parts else {}
