"""The sections of a comparison of several runs."""

import functools
import itertools

from agegender_jax.report import blocks, canvas, figures, panels, record, stats


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
      index
      for index, run in enumerate(runs)
      if run.scores and run.protocol == protocol
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
  shown = [
    headline
    for headline in blocks.HEADLINES
    if any(runs[i].scores.get(headline.key) is not None for i in chosen)
  ]
  rows = []
  for index in chosen:
    scored = runs[index].scores
    cells = [blocks.cell(names[index])]
    for headline in shown:
      value = scored.get(headline.key)
      low = scored.get(f'{headline.key}_low')
      high = scored.get(f'{headline.key}_high')
      cells.append(
        blocks.cell(
          blocks.number(value, headline.unit),
          float('nan') if value is None else value,
          blocks.interval(low, high, headline.unit),
        )
      )
    rows.append(cells)
  trivial = runs[chosen[0]].trivial
  if any(headline.key in trivial for headline in shown):
    values = [trivial.get(headline.key, float('nan')) for headline in shown]
    rows.append([
      blocks.cell('trivial', small='median age, commoner gender'),
      *(blocks.cell(blocks.number(value, headline.unit), value)
        for value, headline in zip(values, shown, strict=True)),
    ])  # fmt: skip
  header = ['Run', *(f'{h.name}, {h.unit}' for h in shown)]
  name, split, count = protocol
  caption = f'{name}, {split}' + (f', {count:,} pictures' if count else '')
  return blocks.table(caption, header, rows)


def curves(runs):
  """Returns the validation curves of all runs on one graph a metric."""
  names = labels(runs)
  found = []
  for metric in panels.curve_names(runs):
    title, unit, scale = panels.CURVES[metric]
    lines = []
    for index, run in enumerate(runs):
      epochs, values = panels.series(run, 'validation', metric, scale)
      if not len(epochs):
        continue
      # Fonts of PNG and SVG know no more than this of a folder's name.
      label = names[index].encode('ascii', 'replace').decode()[:30]
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
    if any(run.predictions is None for run in pair):
      continue
    found = stats.paired_difference(*(run.predictions for run in pair))
    letters = _letter(first), _letter(second)
    for key, title, unit, sign in (
      ('age_error', 'Age error (years)', 'years', -1),
      ('gender_correct', 'Gender correct (% points)', '%', 1),
    ):
      value = found[key]
      if value['count']:
        rows.append([
          blocks.cell(f'{letters[1]} minus {letters[0]}'),
          blocks.cell(title),
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
  if value['low'] <= 0 <= value['high']:
    return 'no clear difference'
  return letters[1] if sign * value['value'] > 0 else letters[0]


def runs_table(runs):
  """Returns what each run trained and what it cost."""
  facts = [dict(record.cost_facts(run)) for run in runs]
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


SECTIONS = (scores, differences, curves, runs_table)
