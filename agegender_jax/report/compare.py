"""The sections of a comparison of several runs."""

import functools
import itertools

from agegender_jax import scoring
from agegender_jax.report import (
  blocks,
  canvas,
  dots,
  evaluations,
  figures,
  measures,
  panels,
  record,
)

# Beside the headlines of a single run's page.
_COMPARED = ('age_mae_macro', 'gender_auc', 'age_coverage90')
_COST = ('num_parameters', 'seconds', 'images_per_second', 'peak_memory_bytes',
         'device')  # fmt: skip


def labels(runs) -> list:
  """Returns `A name`, `B name`, ...: the letter tells equal names apart."""
  return [f'{_letter(index)} {run.workdir.resolve().name}'
          for index, run in enumerate(runs)]  # fmt: skip


def _letter(index):
  return chr(ord('A') + index) if index < 26 else f'R{index + 1}'


def scores(runs):
  """Returns a table of scores for each protocol; they never share one."""
  names = labels(runs)
  parts = []
  for protocol in dict.fromkeys(run.protocol for run in runs if run.scores):
    chosen = [
      index for index, run in enumerate(runs) if run.scores and run.protocol == protocol
    ]
    parts.append(_score_table(runs, names, chosen, protocol))
  if len(parts) > 1:
    parts.append(blocks.note(
      'Each table is one protocol (data set, split, number of pictures); '
      'numbers of different tables do not compare.'
    ))  # fmt: skip
  absent = [names[i] for i, run in enumerate(runs) if not run.scores]
  if absent:
    text = f'Not finished, no scores yet: {", ".join(absent)}.'
    parts.append({'kind': 'warning', 'text': text})
  return blocks.section('scores', 'Scores', *parts)


def _score_table(runs, names, chosen, protocol):
  keys = [metric.name for metric in scoring.headlines()] + list(_COMPARED)
  shown = [
    (key, measures.unit(key))
    for key in keys
    if any(runs[i].scores.get(key) is not None for i in chosen)
  ]
  rows = []
  for index in chosen:
    scored = runs[index].scores
    rows.append([blocks.cell(names[index]), *(
      evaluations.score_cell(scored, key, unit) for key, unit in shown
    )])  # fmt: skip
  trivial = runs[chosen[0]].trivial
  if any(key in trivial for key, _ in shown):
    rows.append([
      blocks.cell('trivial', small='median age, commoner gender'),
      *(evaluations.score_cell(trivial, key, unit) for key, unit in shown),
    ])  # fmt: skip
  header = ['Run', *(f'{measures.name(key)}, {unit}'.rstrip(', ')
                     for key, unit in shown)]  # fmt: skip
  name, split, count = protocol
  caption = f'{name}, {split}' + (f', {count:,} pictures' if count else '')
  return blocks.table(caption, header, rows)


def curves(runs):
  """Returns the validation curves of all runs on one graph a metric."""
  names = labels(runs)
  found = []
  tasks = [run.config.get('tasks') for run in runs]
  for metric in panels.curve_names(runs):
    # Sums of other terms or weights do not belong on one axis.
    if metric == 'loss' and any(other != tasks[0] for other in tasks):
      continue
    title, unit, scale = panels.curves()[metric]
    lines = []
    for index, run in enumerate(runs):
      epochs, values = panels.series(run, 'validation', metric, scale)
      if not len(epochs):
        continue
      label = dots.ascii_name(names[index])
      color = canvas.PALETTE[index % len(canvas.PALETTE)]
      dashed = index // len(canvas.PALETTE) % 2 == 1
      lines.append(figures.Line(label, epochs, values, color, dashed))
    if lines:
      panel = functools.partial(
        figures.draw_curves, lines=lines, title=title, unit=unit
      )
      found.append((f'{title} on validation against the epoch', panel))
  if not found:
    return {}
  parts = [blocks.figures(found)]
  splits = {run.config['data'].get('validation_split') for run in runs}
  if len({run.data_name for run in runs}) > 1 or len(splits) > 1:
    parts.append(blocks.note('The runs validate on different pictures.'))
  return blocks.section('curves', 'Validation curves', *parts)


def differences(runs):
  """Returns the paired differences of the runs of one protocol."""
  rows = []
  for first, second in itertools.combinations(range(len(runs)), 2):
    pair = [runs[first], runs[second]]
    if pair[0].protocol[:2] != pair[1].protocol[:2]:
      continue
    if pair[0].group_names != pair[1].group_names:
      continue  # Their rows of groups mean other ages.
    if any(run.predictions is None for run in pair):
      continue
    tables = [run.predictions.table for run in pair]
    letters = _letter(first), _letter(second)
    for metric in scoring.headlines():
      key = metric.name
      value = scoring.paired_difference(*tables, key)
      if not value['count']:
        continue
      unit = measures.unit(key)
      of = '% points' if unit == '%' else unit
      sign = metric.direction
      rows.append([
        blocks.cell(f'{letters[1]} minus {letters[0]}'),
        blocks.cell(f'{measures.name(key)} ({of})'),
        blocks.estimate_cell(value, unit, signed=True),
        blocks.cell(f'{value["count"]:,}', value['count']),
        blocks.cell(_verdict(value, sign, letters)),
      ])  # fmt: skip
  if not rows:
    return blocks.section('differences', 'Paired differences', blocks.note(
      'No two of the runs scored the same pictures.'
    ))  # fmt: skip
  header = ['Runs', 'Score', 'Difference', 'Shared pictures', 'Better']
  return blocks.section(
    'differences', 'Paired differences',
    blocks.table('On the same pictures, with 95 % bootstrap intervals',
                 header, rows),
    blocks.note('A run is called better where the interval leaves out zero. '
                'This covers the choice of pictures, not of the seed.'),
  )  # fmt: skip


def _verdict(value, sign, letters):
  # NaN: an interval of too few pictures.
  if not (value['low'] > 0 or value['high'] < 0):
    return 'no clear difference'
  return letters[1] if sign * value['value'] > 0 else letters[0]


def by_age(runs):
  """Returns the errors by age of the runs that share a protocol."""
  names, found = labels(runs), []
  for protocol in dict.fromkeys(run.protocol[:2] for run in runs):
    series = [
      (name, run.details.groups_of('age'))
      for name, run in zip(names, runs, strict=True)
      if run.protocol[:2] == protocol and run.details.groups_of('age')
    ]
    groups = [group for _, rows in series for group in rows]
    for key, label, scale in measures.drawn(groups):
      known = [
        (name, rows) for name, rows in series if any(row[key]['count'] for row in rows)
      ]
      if len(known) > 1:
        what = label.partition(' (')[0]
        panel = functools.partial(
          dots.draw_side_by_side, series=known, key=key, label=label,
          title=f'{what} on {dots.ascii_name(protocol[1])}', scale=scale,
        )  # fmt: skip
        found.append((f'{label} by actual age', panel))
  if not found:
    return {}
  return blocks.section('by-age', 'By age', blocks.figures(found), blocks.note(
    'Whiskers are 95 % bootstrap intervals.'))  # fmt: skip


def runs_table(runs):
  """Returns what each run trained and what it cost."""
  facts = [
    dict(record.fact(key, run.info[key]) for key in _COST if key in run.info)
    for run in runs
  ]
  keys = list(dict.fromkeys(key for entry in facts for key in entry))
  rows = []
  for name, run, entry in zip(labels(runs), runs, facts, strict=True):
    train = f'{run.data_name}, {run.config["data"].get("train_split", "")}'
    cells = [blocks.cell(name), blocks.cell(
               run.recipe_name if run.recipe else blocks.MISSING),
             blocks.cell(train)]  # fmt: skip
    rows.append(cells + [blocks.cell(entry.get(key, '') or blocks.MISSING)
                         for key in keys])  # fmt: skip
  header = ['Run', 'Recipe', 'Trained on', *keys]
  return blocks.section('runs', 'Runs', blocks.table('', header, rows))


SECTIONS = (scores, curves, differences, by_age, runs_table)
