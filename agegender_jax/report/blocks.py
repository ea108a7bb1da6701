"""The kinds of block that `page.html.j2` knows, as plain dicts."""

import base64
import io
import math
import typing

import numpy as np
from PIL import Image

from agegender_jax.report import canvas

MISSING = '\N{EN DASH}'


class Headline(typing.NamedTuple):
  """A score on a card: its key, name, unit and whether more is better."""

  key: str
  name: str
  unit: str
  more_is_better: bool


HEADLINES = (
  Headline('age_mae', 'Age error (MAE)', 'years', False),
  Headline('age_cs5', 'Within 5 years (CS@5)', '%', True),
  Headline('age_group_accuracy', 'Age group exact', '%', True),
  Headline('age_group_one_off', 'Age group one-off', '%', True),
  Headline('gender_accuracy', 'Gender accuracy', '%', True),
  Headline('gender_balanced_accuracy', 'Gender balanced acc.', '%', True),
)


def number(value, unit='years', signed=False) -> str:
  """Formats years with two decimals, fractions as percent with one."""
  if value is None or not math.isfinite(value):
    return MISSING
  sign = '+' if signed else ''
  if unit == '%':
    return f'{100 * value:{sign}.1f}'
  return f'{value:{sign}.2f}'


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


def table(caption, header, rows) -> dict:
  """Returns a sortable table; header: texts; rows: lists of cells."""
  return {'kind': 'table', 'caption': caption, 'header': header, 'rows': rows}


def figures(panels) -> dict:
  """Returns figures from (description, panel) pairs."""
  return {
    'kind': 'figures',
    'items': [
      {'label': label, 'svg': canvas.to_svg(panel)} for label, panel in panels
    ],
  }


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
  Image.fromarray(image).save(stream, 'JPEG', quality=90)
  return 'data:image/jpeg;base64,' + base64.b64encode(stream.getvalue()).decode(
    'ascii'
  )


def card(headline, scores, trivial) -> dict:
  """Returns a headline score beside the trivial predictor's.

  Args:
    headline: the Headline; `scores` has its key.
    scores: flat scores with `_low` and `_high`.
    trivial: value a key, where known.

  Returns:
    The texts, and positions on a scale from 0 to 100 (%, or years to a
    little over the larger of score and trivial score).
  """
  value = scores[headline.key]
  low = scores.get(f'{headline.key}_low')
  high = scores.get(f'{headline.key}_high')
  other = trivial.get(headline.key)
  end = 1.0
  if headline.unit != '%':
    end = 1.1 * max(
      x for x in (value, high, other, 0.1) if x is not None and math.isfinite(x)
    )
  places = {'value': value, 'low': low, 'high': high, 'trivial': other}
  return {
    'name': headline.name,
    'value': number(value, headline.unit),
    'unit': headline.unit,
    'interval': interval(low, high, headline.unit),
    'trivial': '' if other is None else number(other, headline.unit),
    'better': 'more is better' if headline.more_is_better else
              'less is better',
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
