"""The sections of a comparison of several runs."""

import itertools

from agegender_jax import scoring
from agegender_jax.report import blocks, plots, record, sections

_COST = (
  'num_parameters', 'seconds', 'images_per_second', 'peak_memory_bytes', 'device',
)  # fmt: skip


def labels(runs) -> list[str]:
  """Returns `A name`, `B name`, ...: the letter distinguishes equal names."""
  return [f'{_letter(i)} {run.workdir.resolve().name}' for i, run in enumerate(runs)]


def _letter(index):
  return chr(ord('A') + index) if index < 26 else f'R{index + 1}'


def _by_protocol(runs, protocol_fn):
  """Returns protocol -> {label: run}."""
  result: dict = {}
  for name, run in zip(labels(runs), runs, strict=True):
    result.setdefault(protocol_fn(run), {})[name] = run
  return result


def scores(runs) -> dict:
  """Returns one table of scores per protocol; they never share one."""
  found = _by_protocol(runs, lambda run: run.protocol if run.scores else None)
  absent = ', '.join(found.pop(None, {}))
  parts = [_score_table(protocol, named) for protocol, named in found.items()]
  if len(parts) > 1:
    parts.append(
      'Each table is one protocol (data set, split, number of images); numbers of '
      'different tables do not compare.'
    )
  if absent:
    parts.append(blocks.warning(f'Not finished, no scores yet: {absent}.'))
  return blocks.section('scores', 'Scores', *parts)


def _score_table(protocol, named):
  scored = [run.scores for run in named.values()]
  keys = [key for key in blocks.headlines() if any(key in row for row in scored)]
  rows = dict(zip(named, scored, strict=True))
  baseline = next(iter(named.values())).baseline
  if any(key in baseline for key in keys):
    rows['majority baseline'] = baseline
  cells = [
    [name, *(blocks.score_cell(found, key) for key in keys)]
    for name, found in rows.items()
  ]
  data, split, count = protocol
  caption = f'{data}, {split}' + (f', {count:,} images' if count else '')
  return blocks.table(caption, ['Run', *map(blocks.header, keys)], cells)


def curves(runs) -> dict:
  """Returns the validation curves of all runs, one figure per metric."""
  found, names = [], labels(runs)
  tasks = [run.config.get('tasks') for run in runs]
  for metric in sections.logged_metrics(runs):
    # Sums of other terms or weights do not belong on one axis.
    if metric == 'loss' and any(other != tasks[0] for other in tasks):
      continue
    every = [sections.series(run, 'validation', metric) for run in runs]
    lines = {name: x for name, x in zip(names, every, strict=True) if len(x[0])}
    if lines:
      title = f'{blocks.title(metric)} on validation per epoch'
      found.append(plots.curves(title, lines, blocks.axis(metric)))
  used = {(run.data_name, run.config['data'].get('validation_split')) for run in runs}
  differ = 'The runs validate on different images.'
  text = differ if found and len(used) > 1 else ''
  return blocks.section('curves', 'Validation curves', found, text)


def differences(runs) -> dict:
  """Returns the paired differences of the runs that scored the same images."""
  rows = []
  for (i, first), (j, second) in itertools.combinations(enumerate(runs), 2):
    # Codes of other age groups mean other ages.
    facts = [(*run.protocol[:2], run.group_names) for run in (first, second)]
    if facts[0] != facts[1] or not (first.predictions and second.predictions):
      continue
    letters = _letter(i), _letter(j)
    for key in blocks.headlines(2):
      found = scoring.paired_difference(first.predictions, second.predictions, key)
      if not found['count']:
        continue
      names = f'{letters[1]} minus {letters[0]}', blocks.header(key)
      cell = blocks.estimate_cell(found, key, signed=True)
      cells = [cell, found['count'], _better(found, key, letters)]
      rows.append([names[0], names[1].replace('%', '% points'), *cells])
  header = ['Runs', 'Score', 'Difference', 'Shared images', 'Better']
  caption = 'On the same images, with 95 % bootstrap intervals'
  text = (
    'A run is called better where the interval excludes zero. The interval covers the '
    'choice of images, not the random seed of training.'
  )
  absent = 'No two of the runs scored the same images.'
  table = blocks.table(caption, header, rows)
  return blocks.section(
    'differences', 'Paired differences', table, text if rows else absent
  )


def _better(found, key, letters):
  # NaN: an interval of too few images.
  if not (found['low'] > 0 or found['high'] < 0):
    return 'no clear difference'
  is_higher = found['value'] > 0
  return letters[is_higher == (scoring.METRICS[key].direction > 0)]


def by_age(runs) -> dict:
  """Returns the errors by age of the runs that share a protocol."""
  found = []
  for protocol, named in _by_protocol(runs, lambda run: run.protocol[:2]).items():
    series = {name: run.groups_of('age') for name, run in named.items()}
    series = {name: groups for name, groups in series.items() if groups}
    if len(series) > 1:
      found += sections.age_figures(series, f'by actual age on {protocol[1]}')
  text = 'Whiskers are 95 % bootstrap intervals.' if found else ''
  return blocks.section('by-age', 'By age', found, text)


def runs_table(runs) -> dict:
  """Returns what each run trained and what it cost."""
  facts = [
    dict(record.fact(key, run.info[key]) for key in _COST if key in run.info)
    for run in runs
  ]
  keys = list(dict.fromkeys(key for entry in facts for key in entry))
  rows = []
  for name, run, entry in zip(labels(runs), runs, facts, strict=True):
    trained = f'{run.data_name}, {run.config["data"].get("train_split", "")}'
    trained = '' if run.predictions_file else trained
    recipe = run.recipe_name if run.recipe else blocks.MISSING
    cells = [name, recipe, trained, *(entry.get(key, '') for key in keys)]
    rows.append([blocks.cell(text or blocks.MISSING) for text in cells])
  table = blocks.table('', ['Run', 'Recipe', 'Trained on', *keys], rows)
  return blocks.section('runs', 'Runs', table)


SECTIONS = (scores, curves, differences, by_age, runs_table)
