"""The section that compares groups of people."""

import functools

from agegender_jax.report import blocks, canvas, dots, measures
from agegender_jax.scoring import metrics

_CROSSED = ' x '
_MOST_ROWS = 12


def table(caption, groups) -> dict:
  """Returns the scores of groups as a table.

  Args:
    caption: text above it.
    groups: see details.Details.

  Returns:
    The block, with the scores that any of them has; {} of none.
  """
  chosen = [
    metric
    for metric in metrics.by_group()
    if any(group[metric.name]['count'] for group in groups)
  ]
  if not chosen:
    return {}
  # Ages sort by years: the groups come in their order.
  ordered = 'age' in groups[0]['column']
  rows = []
  for place, group in enumerate(groups):
    cells = [
      blocks.cell(group['name'], place if ordered else None),
      blocks.cell(f'{group["count"]:,}', group['count']),
    ]
    for metric in chosen:
      signed = not metric.direction
      cells.append(blocks.estimate_cell(group[metric.name], metric.unit, signed))
    rows.append(cells)
  header = ['Group', 'Pictures', *(f'{m.title} ({m.unit})' for m in chosen)]
  return blocks.table(caption, header, rows)


def _columns(run):
  """Returns the columns to show; age has a section of its own."""
  names = dict.fromkeys(group['column'] for group in run.details.groups)
  return [name for name in names if name != 'age' and run.details.groups_of(name)]


def panels(run) -> list:
  """Returns a panel a score of all columns, then one of gender x age."""
  simple, crossed = [], []
  for column in _columns(run):
    rows = run.details.groups_of(column)
    if _CROSSED in column:
      crossed = rows
    elif len(rows) <= _MOST_ROWS:
      simple += rows
  result = []
  for key, label, scale in measures.drawn(run.details.groups):
    known = [row for row in simple if row[key]['count']]
    if len(known) > 1:
      overall = run.scores.get(key)
      panel = functools.partial(
        dots.draw_groups, rows=known, key=key, label=label, scale=scale,
        line=None if overall is None else ('all', scale * overall),
      )  # fmt: skip
      size = canvas.rows_size(len(known))
      result.append((f'{label} by group', panel, size))
  for key, label, scale in measures.drawn(run.details.groups):
    known = [row for row in crossed if row[key]['count']]
    if len(known) > 1:
      panel = functools.partial(
        dots.draw_side_by_side, series=_crossed(known), key=key,
        label=label, title=f'{label.partition(" (")[0]} by gender and age',
        scale=scale,
      )  # fmt: skip
      result.append((f'{label} by gender and age', panel))
  return result


def _crossed(rows):
  """Returns (`female`, rows named by age) of groups such as `female, 20-29`."""
  series = {}
  for row in rows:
    first, _, second = row['name'].partition(', ')
    series.setdefault(first, []).append(row | {'name': second})
  return list(series.items())


def groups(run):
  """Returns the scores of each group and the gaps between them."""
  found = panels(run)
  # Two and two belong together.
  parts = [blocks.figures(found[:2]), blocks.figures(found[2:])]
  for column in _columns(run):
    rows = run.details.groups_of(column)
    block = table(f'By {column}', rows)
    if len(rows) > _MOST_ROWS:
      block = blocks.fold(f'By {column} ({len(rows)} groups)', block)
    parts.append(block)
  parts += _gaps(run)
  if any(parts):
    parts.append(blocks.note(
      'Ranges are 95 % bootstrap intervals. A small group has a wide one: '
      'nothing can be said of a few pictures.'
    ))  # fmt: skip
  return blocks.section('groups', 'By group', *parts)


def _gaps(run):
  rows = []
  for gap in run.details.gaps:
    title, unit = measures.name(gap['metric']), measures.unit(gap['metric'])
    title += ' (% points)' if unit == '%' else f' ({unit})'
    clear = gap['low'] > 0 or gap['high'] < 0
    rows.append([
      blocks.cell(f'{gap["group"]} against {gap["reference"]}',
                  small=gap['column']),
      blocks.cell(title),
      blocks.estimate_cell(gap, unit, signed=True),
      blocks.cell('yes' if clear else 'no'),
    ])  # fmt: skip
  if not rows:
    return []
  header = ['Groups', 'Score', 'Gap', 'Leaves out zero']
  body = blocks.table('Against the largest group of the column', header, rows)
  text = (
    'A gap is the group minus the largest group of its column. Of twenty '
    'gaps that are not there, one leaves out zero by chance.'
  )
  heading = blocks.heading('Gaps')
  if len(rows) > _MOST_ROWS:
    count = sum(row[3]['text'] == 'yes' for row in rows)
    return [heading, blocks.note(text), blocks.fold(
      f'{len(rows)} gaps, {count} of which leave out zero', body)]  # fmt: skip
  return [heading, body, blocks.note(text)]
