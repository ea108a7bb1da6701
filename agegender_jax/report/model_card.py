"""Writes model_card.md: what a trained network is, can do and must not do.

Headings and prose are in `model_card.md.j2`, after Mitchell et al. 2019, "Model
cards for model reporting"; every figure comes from the workdir's files.
"""

import pathlib

from agegender_jax import files, scoring
from agegender_jax.report import blocks, record, sections
from agegender_jax.report import run as run_lib

NOT_MEASURED = 'not measured'
# The worst of a few images means nothing: smaller groups are in the table only.
LEAST_IMAGES = 20


def write_card(workdir) -> str:
  """Writes model_card.md of a run into its workdir.

  Args:
    workdir: folder that a training run wrote, finished or not.

  Returns:
    The path of the file.

  Raises:
    errors.UserError: the folder is no workdir, or a file in it is damaged.
  """
  run = run_lib.Run(workdir)
  environment = blocks.environment(is_html=False)
  environment.filters |= {'known': _known, 'count': _count}
  blocks_of = {name: run.config.get(name) or {} for name in ('model', 'data', 'train')}
  path = run.workdir / 'model_card.md'
  text = environment.get_template('model_card.md.j2').render(
    run=run,
    **blocks_of,
    frozen=(run.config.get('optimizer') or {}).get('freeze'),
    kinds={
      name: task['kind']
      for name, task in (run.config.get('tasks') or {}).items()
      if task.get('kind')
    },
    recipe=pathlib.PurePath(run.recipe.partition(':')[0]).stem,
    parameters=sum(layer['parameters'] for layer in run.layers),
    flops=sum(layer['flops'] for layer in run.layers),
    record=record,
    roles={role: _split(run, role) for role in ('train', 'validation')},
    columns=list(dict.fromkeys(row['column'] for row in run.details.get('groups', ()))),
    overall=_overall(run),
    groups=_groups(run),
    disparity=_disparity(run),
    temperature=(run.calibration.get('gender') or {}).get('temperature'),
    least=LEAST_IMAGES,
    worst=worst_groups(run),
  )
  files.write_whole(path, text)
  return str(path)


def _known(value) -> str:
  """Returns one line that breaks no table; nothing is `not measured`."""
  return ' '.join(str(value or '').split()).replace('|', '\\|') or NOT_MEASURED


def _count(value) -> str:
  return f'{value:,}' if isinstance(value, int) else NOT_MEASURED


def _table(header, rows) -> str:
  """Returns a Markdown table of texts, all but the first column to the right."""
  lines = [f'| {" | ".join(map(_known, row))} |' for row in (header, *rows)]
  lines.insert(1, '|---|' + '---:|' * (len(header) - 1))
  return '\n'.join(lines) if rows else NOT_MEASURED


def _name(row, part='group') -> str:
  return sections.group_name(row['column'], row[part])


def _estimate(found, key, signed=False) -> str:
  """Returns an estimate with its unit, and its interval where it is known."""
  if not blocks.is_number(found.get('value')):
    return NOT_MEASURED
  unit = blocks.unit_of(key)
  text = blocks.number(found['value'], unit, signed or key == 'age_bias')
  ends = blocks.interval(found.get('low'), found.get('high'), unit)
  return f'{text} {unit}'.rstrip() + (f' [{ends}]' if ends else '')


def _split(run, role) -> tuple[str, dict]:
  """Returns name and summary of the split that has a role in the run."""
  name = run.data.get('roles', {}).get(role) or run.config['data'].get(f'{role}_split')
  return name, run.data.get('splits', {}).get(name, {})


def _overall(run):
  rows = []
  for key in blocks.listed(run.scores):
    found = [blocks.estimate(scores, key) for scores in (run.scores, run.baseline)]
    rows.append((blocks.title(key), *(_estimate(entry, key) for entry in found)))
  return _table(('Score', 'This network', 'Majority baseline'), rows)


def _groups(run):
  groups = [row for row in run.details.get('groups', []) if row['count']]
  metrics = sections.group_metrics(groups)
  rows = []
  for row in groups:
    found = [_estimate(row['scores'].get(key, {}), key) for key in metrics]
    rows.append((f'{row["column"]}: {_name(row)}', f'{row["count"]:,}', *found))
  return _table(('Group', 'Images', *map(blocks.title, metrics)), rows)


def _disparity(run):
  rows = []
  for entry in run.details.get('disparities', []):
    key, column = entry['metric'], entry['column']
    if blocks.is_number(entry['value']) and ' x ' not in column:
      names = f'{column}: {_name(entry)} minus {_name(entry, "reference")}'
      # The difference of two shares in points: 3 % of it would be ambiguous.
      text = _estimate(entry, key, signed=True).replace(' %', ' points')
      rows.append((names, blocks.title(key), text))
  return _table(('Groups', 'Score', 'Difference'), rows)


def worst_groups(run) -> list[str]:
  """Names the worst group of each column by each score, as sentences.

  Args:
    run: the run.

  Returns:
    Such as `Age error (MAE) by age is worst for 80+: 17.03 years [12.4 to
    21.9], 26 images; 6.79 years overall.`
  """
  result = []
  columns = dict.fromkeys(row['column'] for row in run.details.get('groups', []))
  for key in blocks.headlines(2):
    overall = _estimate(blocks.estimate(run.scores, key) | {'low': None}, key)
    direction = scoring.METRICS[key].direction
    for column in columns:
      found = sections.estimates(run.groups_of(column), key)
      found = [row for row in found if row['count'] >= LEAST_IMAGES]
      if len(found) > 1:
        worst = min(found, key=lambda row: direction * row['value'])
        result.append(
          f'{blocks.title(key)} by {column} is worst for {worst["name"]}: '
          f'{_estimate(worst, key)}, {worst["count"]:,} images; {overall} overall.'
        )
  missed = [
    row | {'value': row['coverage']}
    for row in run.part('calibration').get('intervals') or []
    if row['column'] and row['level'] == 0.9 and row['count'] >= LEAST_IMAGES
  ]
  if missed:
    worst = min(missed, key=lambda row: row['coverage'])
    result.append(
      'The 90 % age interval holds the true age least often by '
      f'{worst["column"]} for {_name(worst)}: {_estimate(worst, "age_coverage90")}, '
      f'{worst["count"]:,} images.'
    )
  return [_known(line) for line in result]
