"""The sections on how sure the predictions are, and rightly so or not."""

import functools

from agegender_jax.report import (
  blocks,
  canvas,
  details,
  dots,
  evaluations,
  measures,
)

_KINDS = {'raw': 'as predicted', 'calibrated': 'after temperature scaling'}
_MOST_ROWS = 16  # Of a figure.


def reliability_panels(run) -> list:
  """Returns the reliability diagram of gender."""
  curves = {
    _KINDS[kind]: run.details.reliability[kind]
    for kind in _KINDS
    if kind in run.details.reliability
  }
  if not curves:
    return []
  panel = functools.partial(dots.draw_reliability, curves=curves)
  return [('Reliability of the predicted gender', panel, RELIABILITY)]


RELIABILITY = (4.8, 3.3)  # Inches.


def reliability(run):
  """Returns how far P(female) can be taken at its word."""
  found = reliability_panels(run)
  if not found:
    return {}
  rows = []
  for kind, bins in run.details.reliability.items():
    for row in bins:
      rows.append([
        blocks.cell(_KINDS[kind]),
        blocks.cell(f'{100 * row["low"]:.0f} to {100 * row["high"]:.0f}',
                    row['low']),
        blocks.cell(f'{row["count"]:,}', row['count']),
        blocks.cell(f'{100 * row["mean_prob"]:.1f}', row['mean_prob']),
        blocks.cell(f'{100 * row["share"]:.1f}', row['share']),
      ])  # fmt: skip
  header = ['Probabilities', 'P(female) (%)', 'Pictures', 'Mean P(female) (%)',
            'Share of women (%)']  # fmt: skip
  text = (
    'On the dashed line, of the faces called 80 % female 80 % are. Whiskers '
    'are 95 % Wilson intervals of the share, bars the pictures in each bin.'
  )
  temperature = (run.calibration.get('gender') or {}).get('temperature')
  if temperature is not None:
    text += f' The logits are divided by a temperature of {temperature:.2f}.'
  return blocks.section(
    'reliability', 'How far to trust a gender', blocks.figures(found),
    _gender_scores(run), blocks.note(text),
    blocks.fold('The bins as a table', blocks.table('', header, rows)),
  )  # fmt: skip


def _gender_scores(run):
  """Returns a row a kind of probability; what is scored has its intervals."""
  kinds = list(run.details.reliability)
  keys = details.GENDER_SCORES
  rows = []
  for kind in kinds:
    # scores.json is about the probabilities as they are given out.
    scores = run.scores if kind == kinds[-1] else {}
    scores = run.details.gender_scores.get(kind, {}) | {
      key: value for key, value in scores.items() if value is not None
    }
    rows.append([blocks.cell(_KINDS[kind]), *(
      evaluations.score_cell(scores, key, measures.unit(key)) for key in keys
    )])  # fmt: skip
  header = ['Probabilities', *(
    f'{measures.name(key)}, {measures.unit(key)}'.rstrip(', ') for key in keys
  )]  # fmt: skip
  return blocks.table('With 95 % bootstrap intervals', header, rows)


def _rows(run):
  """Returns (column, name) -> {level: interval}, all pictures first."""
  result = {}
  for entry in run.details.intervals:
    key = entry['column'], entry['name']
    result.setdefault(key, {})[entry['level']] = entry
  return result


def _table(caption, rows, levels):
  body = []
  for place, ((column, name), entries) in enumerate(rows):
    count = max(entry['count'] for entry in entries.values())
    cells = [blocks.cell(name, place if 'age' in column else None),
             blocks.cell(f'{count:,}', count)]  # fmt: skip
    for level in levels:
      entry = entries.get(level)
      if entry is None:
        cells += [blocks.cell(blocks.MISSING, float('nan'))] * 2
        continue
      cells.append(blocks.estimate_cell(entry['coverage'], '%'))
      cells.append(blocks.cell(blocks.number(entry['width']), entry['width']))
    body.append(cells)
  header = ['Group', 'Pictures']
  for level in levels:
    header += [f'Inside at {100 * level:.0f} % (%)',
               f'Width at {100 * level:.0f} % (years)']  # fmt: skip
  return blocks.table(caption, header, body)


def intervals(run):
  """Returns how often the age intervals hold the age, and how wide they are."""
  rows = _rows(run)
  if not rows:
    return {}
  levels = sorted({entry['level'] for entry in run.details.intervals})
  found = []
  overall = [entry for entry in run.details.intervals if not entry['column']]
  if overall:
    panel = functools.partial(dots.draw_coverage, rows=overall)
    found.append(('Coverage of the age intervals', panel))
  columns = list(dict.fromkeys(column for column, _ in rows if column))
  for names, what in (
    ([name for name in columns if 'age' not in name], 'group'),
    (['age'], 'actual age'),
  ):
    panel = _group_panel(rows, names, what, levels[-1])
    found.extend([panel] if panel else [])
  parts = [blocks.figures(found)]
  everyone = [item for item in rows.items() if not item[0][0]]
  if everyone:
    parts.append(_table('All pictures', everyone, levels))
  for column in columns:
    chosen = [item for item in rows.items() if item[0][0] == column]
    parts.append(blocks.fold(f'By {column} ({len(chosen)} groups)',
                             _table('', chosen, levels)))  # fmt: skip
  how = run.calibration.get('split')
  text = 'Split-conformal intervals'
  text += f', fitted on {how}' if how else ''
  text += (': of many such pictures the promised share lies inside. A group '
           'that covers less is promised too much. Ranges are 95 % intervals '
           'over these pictures.')  # fmt: skip
  return blocks.section('intervals', 'How far to trust an age', *parts,
                        blocks.note(text))  # fmt: skip


def _group_panel(rows, columns, what, level):
  chosen = [
    {'column': column, 'name': name, 'coverage': entries[level]['coverage']}
    for (column, name), entries in rows.items()
    if column in columns and level in entries
  ]
  if not 2 <= len(chosen) <= _MOST_ROWS:
    return None
  label = f'Inside at {100 * level:.0f} % by {what}'
  panel = functools.partial(
    dots.draw_groups, rows=chosen, key='coverage', label=f'{label} (%)',
    scale=100, line=('promised', 100 * level),
  )  # fmt: skip
  return f'{label}, ages', panel, canvas.rows_size(len(chosen))
