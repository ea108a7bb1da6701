"""The sections on the results of one run: scores, ages, groups, calibration."""

import numpy as np

from agegender_jax import scoring
from agegender_jax.report import blocks, plots

_MOST_ROWS = 16  # Of a figure of groups; longer tables are folded.
_CROSSED = ' x '  # In the name of two columns at once, such as `gender x age`.
_KINDS = {'raw': 'as predicted', 'calibrated': 'after temperature scaling'}
_GENDER_SCORES = ('gender_ece', 'gender_brier', 'gender_nll')


def drawn_metrics(names) -> list[str]:
  """Returns the metrics to draw of those named; groups only without years."""
  found = [key for key in blocks.headlines(2) if key in names]
  if 'age_mae' in found and 'age_group_accuracy' in found:
    found.remove('age_group_accuracy')
  return found


def headlines(run) -> dict:
  """Returns the headline scores, or why there are none."""
  cards = [
    _card(key, run)
    for key in blocks.headlines()
    if blocks.is_number(run.scores.get(key))
  ]
  if not cards:
    return blocks.section('scores', 'Scores', _unfinished(run))
  early = (
    'The run has scores but is not marked as finished: they may be of an earlier '
    'part of it.'
  )
  scores = [run.scores, run.baseline]
  rows = [
    [blocks.header(key), *(blocks.score_cell(found, key) for found in scores)]
    for key in blocks.listed(run.scores)
  ]
  caption = 'With 95 % bootstrap intervals where they are known'
  table = blocks.table(caption, ['Score', 'Value', 'Majority baseline'], rows)
  return blocks.section(
    'scores',
    'Scores',
    {'kind': 'cards', 'items': cards},
    '' if run.finished else early,
    _score_note(run),
    blocks.fold('All scores', table),
  )


def _card(key, run):
  """Returns a headline score beside the majority baseline's.

  Returns:
    Texts, and `places` on a scale from 0 to 100: of 100 %, or of a little more
    than the largest of the numbers.
  """
  unit, found = blocks.unit_of(key), blocks.estimate(run.scores, key)
  found['baseline'] = run.baseline.get(key)
  places = {name: value for name, value in found.items() if blocks.is_number(value)}
  end = 1.0 if unit == '%' else 1.1 * max([0.1, *places.values()])
  better = {1: 'higher is better', -1: 'lower is better', 0: ''}
  return {
    'name': blocks.title(key),
    'value': blocks.number(found['value'], unit),
    'unit': unit,
    'interval': blocks.interval(found['low'], found['high'], unit),
    'baseline': blocks.number(found['baseline'], unit) if 'baseline' in places else '',
    'better': better[scoring.METRICS[key].direction],
    'places': {
      name: round(100 * min(max(value / end, 0), 1), 2)
      for name, value in places.items()
    },
  }


def scored_epoch(run) -> float | None:
  """Returns the epoch of the checkpoint that was scored, or None."""
  step = run.scores.get('step')
  epochs = [row.get('epoch') for row in run.metrics if row['step'] == step]
  return epochs[0] if epochs else None


def _score_note(run):
  count, step = run.scores.get('num_examples'), run.scores.get('step')
  epoch, bias = scored_epoch(run), run.scores.get('age_bias')
  selected = {'last': 'the last step of the run', 'best': 'the best on validation'}
  parts = [
    f'Scored on {run.test_split}',
    f'{count:,} images' if count else '',
  ]
  if not run.predictions_file:
    parts += [
      f'at step {step:,}' if step is not None else '',
      f'epoch {epoch:.3g}' if epoch is not None else '',
      selected.get(run.config.get('train', {}).get('select'), ''),
    ]
  text = (
    f'{", ".join(filter(None, parts))}. Ranges are 95 % bootstrap intervals over these '
    'images. The majority baseline always answers the median age, the commonest age '
    'group and the commoner gender of the training split.'
  )
  if bias is not None:
    side = 'high' if bias > 0 else 'low'
    text += f' On average ages are predicted {abs(bias):.2f} years too {side}.'
  return text


def _unfinished(run):
  text = 'This run is not finished: it has no scores yet. '
  rows = [row for row in run.metrics if 'validation/loss' in row]
  if rows:
    values = [
      f'{blocks.title(key)} {scoring.METRICS[key].text(rows[-1][f"validation/{key}"])}'
      for key in blocks.headlines()
      if f'validation/{key}' in rows[-1]
    ]
    text += f'Validation at step {rows[-1]["step"]:,}: '
    text += (', '.join(values) or 'loss only') + '. '
  return blocks.warning(text + 'Start it again with the same command to resume it.')


def series(run, part: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns epochs and logged values, float [N] each, in the metric's unit.

  Args:
    run: the run.
    part: `train` or `validation`.
    metric: such as `age_mae`.
  """
  key = f'{part}/{metric}'
  rows = [row for row in run.metrics if row.get(key) is not None]
  # The row of an evaluation has the mean since the last one: less noise.
  evaluated = [row for row in rows if 'validation/loss' in row]
  rows = evaluated if len(evaluated) > 2 else rows
  points = [(row.get('epoch', row['step']), row[key]) for row in rows]
  epochs, values = np.array(points, np.float64).reshape(-1, 2).T
  return epochs, values * blocks.scale(metric)


def logged_metrics(runs) -> list[str]:
  """Returns the loss and the metrics to draw that any of the runs logged."""
  logged = {key.partition('/')[2] for run in runs for row in run.metrics for key in row}
  return ['loss'] * ('loss' in logged) + drawn_metrics(logged)


def curves(run) -> dict:
  """Returns the learning curves, and the validation as a table."""
  split = run.config['data'].get('validation_split') or 'validation'
  name = split if split == 'validation' else f'validation: {split}'
  metrics, found = logged_metrics([run]), []
  for metric in metrics:
    lines = {'train': series(run, 'train', metric)}
    lines[name] = series(run, 'validation', metric)
    lines = {name: line for name, line in lines.items() if len(line[0])}
    title, epoch = f'{blocks.title(metric)} per epoch', scored_epoch(run)
    found.append(plots.curves(title, lines, blocks.axis(metric), epoch))
  rows = [row for row in run.metrics if 'validation/loss' in row]
  # Some of them: metrics.jsonl has all.
  chosen = sorted({*np.linspace(0, len(rows) - 1, 20).astype(int)} if rows else ())
  cells = [
    [blocks.cell(f'{rows[i].get("epoch", rows[i]["step"]):.4g}', rows[i]['step'])]
    + [blocks.score_cell(rows[i], f'validation/{key}') for key in metrics]
    for i in chosen
  ]
  table = blocks.table('', ['Epoch', *map(blocks.header, metrics)], cells)
  return blocks.section(
    'curves',
    'Learning curves',
    found or 'Nothing is logged yet.',
    blocks.fold('Validation as a table', table),
  )


def predicted(run) -> dict:
  """Returns predictions against labels."""
  found, tables = [], []
  if run.predictions:
    true, answer = run.predictions['age'], run.predictions['age_pred']
    known = np.isfinite(true) & np.isfinite(answer)
    if known.any():
      title = 'Predicted against actual age'
      found.append(plots.true_and_predicted(title, true[known], answer[known]))
  for task, entry in run.part('confusion').items():
    title, names = f'Confusion of {task.replace("_", " ")}s', entry['labels']
    found.append(plots.confusion(title, np.array(entry['counts']), names))
    rows = [
      [blocks.cell(name, place), *counts]
      for place, (name, counts) in enumerate(zip(names, entry['counts'], strict=True))
    ]
    header = ['Actual', *(f'predicted {name}' for name in names)]
    tables.append(blocks.fold(f'{title} as a table', blocks.table('', header, rows)))
  shade = (
    'The darker the colour, the more images; in the matrices, the larger the share of '
    'the row.'
  )
  absent = 'There are no predictions with labels to compare with.'
  text = shade if found else absent
  return blocks.section('ages', 'Predicted against actual', found, text, *tables)


def group_name(column: str, group) -> str:
  """Returns a group's name; a bare code is preceded by its column."""
  return f'{column} {group}' if str(group).isdecimal() else str(group)


def estimates(groups, metric: str) -> list[dict]:
  """Returns the known estimates of a metric with `column`, `name` and `count`."""
  return [
    {'column': row['column'], 'name': group_name(row['column'], row['group'])}
    | {'count': row['count'], **row['scores'][metric]}
    for row in groups
    if blocks.is_number(row['scores'].get(metric, {}).get('value'))
  ]


def group_metrics(groups) -> list[str]:
  """Returns the metrics that any of the groups has a value of, in their order."""
  names = dict.fromkeys(key for row in groups for key in row['scores'])
  return [key for key in names if estimates(groups, key)]


def _group_table(caption, groups):
  metrics = group_metrics(groups)
  if not metrics:
    return {}
  # Ages sort by years: the groups come in their order.
  is_ordered = 'age' in groups[0]['column']
  rows = []
  for place, row in enumerate(groups):
    name = group_name(row['column'], row['group'])
    cells = [blocks.cell(name, place if is_ordered else None), row['count']]
    scores = row['scores']
    cells += [blocks.estimate_cell(scores.get(key, {}), key) for key in metrics]
    rows.append(cells)
  return blocks.table(caption, ['Group', 'Images', *map(blocks.header, metrics)], rows)


def age_figures(series, suffix: str) -> list:
  """Returns a figure per drawn metric of groups by age.

  Args:
    series: name -> groups, rows of details.json.
    suffix: of the titles.
  """
  result = []
  every = [row for groups in series.values() for row in groups]
  for key in drawn_metrics(group_metrics(every)):
    known = {name: estimates(groups, key) for name, groups in series.items()}
    known = {name: rows for name, rows in known.items() if rows}
    title, scale = f'{blocks.title(key)} {suffix}', blocks.scale(key)
    result.append(plots.by_age(title, known, blocks.axis(key), scale))
  return result


def by_age(run) -> dict:
  """Returns the errors by actual age with the count behind each."""
  groups = run.groups_of('age')
  table = _group_table('By actual age, with 95 % bootstrap intervals', groups)
  found = age_figures({'': groups}, 'by actual age')
  return blocks.section('by-age', 'By age', found, table)


def groups(run) -> dict:
  """Returns the scores of each group and the disparities between them."""
  names = dict.fromkeys(row['column'] for row in run.details.get('groups', []))
  columns = {name: run.groups_of(name) for name in names if name != 'age'}
  simple, tables = [], []
  crossed: dict[str, list] = {}
  for column, rows in columns.items():
    table = _group_table(f'By {column}', rows)
    if len(rows) > _MOST_ROWS:
      table = blocks.fold(f'By {column} ({len(rows)} groups)', table)
    elif _CROSSED not in column:
      simple += rows
    for row in rows if _CROSSED in column else ():
      first, _, second = row['group'].partition(', ')
      crossed.setdefault(first, []).append(row | {'group': second})
    tables.append(table)
  found = []
  for key in drawn_metrics(group_metrics(simple)):
    rows, scale = estimates(simple, key), blocks.scale(key)
    overall = run.scores.get(key)
    line = None if overall is None else ('all', scale * overall)
    title = f'{blocks.title(key)} by group'
    found.append(plots.groups(title, rows, blocks.axis(key), scale, line))
  text = (
    'Ranges are 95 % bootstrap intervals. That of a small group is wide: a few images '
    'say little.'
  )
  parts = [found, age_figures(crossed, 'by gender and age'), *tables, *_disparity(run)]
  return blocks.section('groups', 'By group', *parts, text if any(parts) else '')


def _disparity(run):
  rows, num_clear = [], 0
  for entry in run.details.get('disparities', []):
    key, column = entry['metric'], entry['column']
    if not blocks.is_number(entry['value']):
      continue
    ends = entry['low'], entry['high']
    is_clear = all(map(blocks.is_number, ends)) and (ends[0] > 0 or ends[1] < 0)
    num_clear += is_clear
    names = [group_name(column, entry[part]) for part in ('group', 'reference')]
    rows.append(
      [
        blocks.cell(' minus '.join(names), small=column),
        blocks.header(key).replace('%', '% points'),
        blocks.estimate_cell(entry, key, signed=True),
        'yes' if is_clear else 'no',
      ]
    )
  header = ['Groups', 'Score', 'Difference', 'Interval excludes zero']
  table = blocks.table('Difference to the largest group of the column', header, rows)
  if len(rows) > _MOST_ROWS:
    table = blocks.fold(f'{len(rows)} differences, {num_clear} exclude zero', table)
  text = (
    'Of twenty groups that do not differ, the interval of one excludes zero by chance.'
  )
  return [{'kind': 'heading', 'text': 'Disparity'}, table, text] if rows else []


def intervals(run) -> dict:
  """Returns how often the age intervals hold the age, and how wide they are."""
  entries = [
    {'name': group_name(entry['column'], entry['group'] or 'all')}
    | {'value': entry['coverage'], **entry}
    for entry in run.part('calibration').get('intervals') or []
  ]
  if not entries:
    return {}
  levels, found, tables = sorted({entry['level'] for entry in entries}), [], []
  for column in dict.fromkeys(entry['column'] for entry in entries):
    chosen = [entry for entry in entries if entry['column'] == column]
    names = list(dict.fromkeys(entry['name'] for entry in chosen))
    widest = [entry for entry in chosen if entry['level'] == levels[-1]]
    if not column:
      found.append(plots.coverage('Coverage of the age intervals', chosen))
    elif 2 <= len(widest) <= _MOST_ROWS and _CROSSED not in column:
      level = 100 * levels[-1]
      title, line = f'Ages inside the {level:.0f} % interval by {column}', 'nominal'
      label = 'ages inside (%)'
      found.append(plots.groups(title, widest, label, 100, (line, level)))
    table = _interval_table(chosen, names, levels)
    if column:
      table = blocks.fold(f'By {column} ({len(names)} groups)', table)
    tables.append(table)
  split = run.calibration.get('split')
  text = (
    f'Split-conformal intervals{f", calibrated on {split}" if split else ""}: of many '
    'such images the nominal share lies inside. For a group below it the intervals '
    'are too narrow. Ranges are 95 % intervals over these images.'
  )
  return blocks.section('intervals', 'How far to trust an age', found, *tables, text)


def _interval_table(entries, names, levels):
  header, rows = ['Group', 'Images'], []
  for level in levels:
    header += [
      f'Inside at {100 * level:.0f} %, %',
      f'Width at {100 * level:.0f} %, years',
    ]
  for place, name in enumerate(names):
    of_level = {row['level']: row for row in entries if row['name'] == name}
    count = max(row['count'] for row in of_level.values())
    cells = [blocks.cell(name, place), count]
    for level in levels:
      entry = of_level.get(level, {})
      cells.append(blocks.estimate_cell(entry, f'age_coverage{100 * level:.0f}'))
      cells.append(blocks.estimate_cell({'value': entry.get('width')}, 'age_width90'))
    rows.append(cells)
  return blocks.table('', header, rows)


def reliability(run) -> dict:
  """Returns how far P(female) can be taken at its word."""
  found = run.part('calibration', 'gender')
  bins = {
    kind: [row for row in found[kind] if row['count']]
    for kind in _KINDS
    if kind in found
  }
  bins = {kind: rows for kind, rows in bins.items() if rows}
  if not bins:
    return {}
  # scores.json is about the probabilities as they are given out: the last kind.
  scores = {kind: run.part('calibration', 'gender_scores', kind) for kind in bins}
  scores[list(bins)[-1]] |= run.scores
  rows = [
    [_KINDS[kind], *(blocks.score_cell(found, key) for key in _GENDER_SCORES)]
    for kind, found in scores.items()
  ]
  header = ['Probabilities', *map(blocks.header, _GENDER_SCORES)]
  text = (
    'On the dashed line, 80 % of the faces called female with 80 % are female. '
    'Whiskers are 95 % Wilson intervals of the share, bars the images in each bin.'
  )
  temperature = (run.calibration.get('gender') or {}).get('temperature')
  if temperature is not None:
    text += f' The logits are divided by a temperature of {temperature:.2f}.'
  curves = {_KINDS[kind]: rows for kind, rows in bins.items()}
  return blocks.section(
    'reliability',
    'How far to trust a gender',
    [plots.reliability('Reliability of the predicted gender', curves)],
    blocks.table('With 95 % bootstrap intervals', header, rows),
    text,
    blocks.fold('The bins as a table', _bin_table(curves)),
  )


def _bin_table(curves):
  rows = [
    [
      kind,
      blocks.cell(f'{100 * row["low"]:.0f} to {100 * row["high"]:.0f}', row['low']),
    ]
    + [row['count']]
    + [blocks.cell(f'{100 * row[key]:.1f}', row[key]) for key in ('mean_prob', 'share')]
    for kind, bins in curves.items()
    for row in bins
  ]
  columns = ('P(female), %', 'Images', 'Mean P(female), %', 'Share of women, %')
  return blocks.table('', ['Probabilities', *columns], rows)


def others(run) -> dict:
  """Returns the scores of each evaluation beside the run's own."""
  own = {'data': run.data_name, **run.scores}
  kept = [scores for scores in run.evaluations if not scores.items() <= own.items()]
  if not kept:
    return {}
  kept = [own, *kept] if run.scores else kept
  keys = [key for key in blocks.headlines() if any(key in row for row in kept)]
  rows = []
  for scores in kept:
    count = scores.get('num_trained_on')
    told = [
      'this run' if scores is own else '',
      f'groups of {scores["age_groups"]}' if scores.get('age_groups') else '',
      'over-sampled' if scores.get('oversample') else '',
      f'{count:,} trained on' if count else '',
    ]
    cells = [blocks.cell(scores.get('data', ''), small=', '.join(filter(None, told)))]
    cells += [scores.get(key) for key in ('split', 'num_examples', 'step')]
    rows.append(cells + [blocks.score_cell(scores, key) for key in keys])
  trained = f'{run.data_name}, {run.config["data"].get("train_split", "")}'
  caption = f'Trained on {trained}; with 95 % bootstrap intervals'
  header = ['Data', 'Split', 'Images', 'Step', *map(blocks.header, keys)]
  text = (
    'How a network does on data of another source is the harder test. Rows of '
    'different data do not compare with each other.'
  )
  table = blocks.table(caption, header, rows)
  return blocks.section('others', 'Other data', table, text)
