"""Writes model_card.md: what a trained network is, can do and must not do.

Headings and prose are in `card.md.j2`, after Mitchell et al. 2019, "Model
cards for model reporting"; every figure comes from the workdir's files.
"""

import math
import pathlib

from agegender_jax import files
from agegender_jax.report import card_facts, measures, record
from agegender_jax.report import run as run_lib
from agegender_jax.scoring import metrics as scoring_metrics

# Worst of a handful is no finding: smaller groups are in the table only.
LEAST_PICTURES = 20


def write_card(workdir) -> str:
  """Writes model_card.md of a run into its workdir.

  Args:
    workdir: folder that a training run wrote, finished or not.

  Returns:
    The path of the file.

  Raises:
    errors.UserError: the folder is no workdir, or a file in it is damaged.
  """
  import jinja2

  run = run_lib.read_run(workdir)
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
  )
  metrics = _group_metrics(run)
  text = environment.get_template('card.md.j2').render(
    run=run,
    bullets=_bullets,
    table=_table,
    recipe=pathlib.PurePath(run.recipe.partition(':')[0]).stem,
    backbone=run.config.get('model', {}).get('backbone', ''),
    age_kind=card_facts.kinds(run).get('age', ''),
    model=card_facts.model(run),
    licence=card_facts.licence(run),
    columns=', '.join(map(_plain, _columns(run))),
    selection=card_facts.selection(run),
    evaluation=card_facts.evaluation(run),
    training=card_facts.training(run),
    overall=_overall(run),
    group_header=['Group', 'Pictures', *map(measures.name, metrics)],
    groups=_groups(run, metrics),
    gaps=_gaps(run),
    intervals=_intervals(run),
    gender=card_facts.gender(run),
    least=LEAST_PICTURES,
    worst=worst_groups(run),
    commands=record.commands(run),
  )
  path = run.workdir / 'model_card.md'
  files.write_whole(path, text)
  return str(path)


def _plain(text) -> str:
  """Returns one line that neither ends a table's cell nor starts another."""
  return ' '.join(str(text).split()).replace('|', '\\|')


def _bullets(pairs) -> str:
  """Returns a Markdown list of (name, text); '' is not measured."""
  return '\n'.join(
    f'- {name}: {_plain(text) or card_facts.NOT_MEASURED}' for name, text in pairs
  )


def _table(header, rows) -> str:
  """Returns a Markdown table of texts; all but the first to the right."""
  lines = [' | '.join(map(_plain, row)) for row in (header, *rows)]
  rule = '|---|' + '---:|' * (len(header) - 1)
  first, *rest = [f'| {line} |' for line in lines]
  return '\n'.join([first, rule, *rest]) if rows else card_facts.NOT_MEASURED


def _overall(run):
  """Returns rows (score, with its interval, the trivial predictor's)."""
  return [
    (
      measures.name(key),
      card_facts.score(run, key),
      card_facts.number(run.trivial.get(key), key),
    )
    for key in measures.listed(run.scores)
    if not key.endswith(('loss', '_without_twins'))
    and not key.startswith(('age_coverage', 'age_width'))
  ]


def _columns(run) -> list:
  """Returns the names of what groups are split by."""
  return list(dict.fromkeys(group['column'] for group in run.details.groups))


def _group_metrics(run) -> list:
  """Returns the metrics that any group has a score of."""
  return [
    metric.name
    for metric in scoring_metrics.by_group()
    if any(group[metric.name]['count'] for group in run.details.groups)
  ]


def _groups(run, metrics):
  """Returns rows (group, pictures, a score a metric)."""
  return [
    (f'{column}: {group["name"]}', card_facts.count(group['count']),
     *(card_facts.estimate(group[metric], metric) for metric in metrics))
    for column in _columns(run)
    for group in run.details.groups_of(column)
  ]  # fmt: skip


def _gaps(run):
  """Returns rows (groups, score, difference); not of two columns at once."""
  return [
    (f'{gap["column"]}: {gap["group"]} less {gap["reference"]}',
     measures.name(gap['metric']),
     # Of two shares a difference of 3 % could mean either of two things.
     card_facts.estimate(gap, gap['metric']).replace(' %', ' points'))
    for gap in run.details.gaps
    if math.isfinite(gap['value']) and ' x ' not in gap['column']
  ]  # fmt: skip


def _intervals(run):
  """Returns rows (level, coverage, width) of the age intervals."""
  return [
    (f'{level} %', card_facts.score(run, f'age_coverage{level}'),
     card_facts.score(run, f'age_width{level}'))
    for level in (50, 80, 90)
    if f'age_coverage{level}' in run.scores
  ]  # fmt: skip


def worst_groups(run: run_lib.Run) -> list[str]:
  """Names the worst group of each column by each score, as sentences.

  Args:
    run: the Run.

  Returns:
    Such as `Age error (MAE) by age is worst for 80+: 17.03 years [12.4 to
    21.9], 26 pictures; 6.79 years overall.`
  """
  result = []
  for metric, sign in ((m.name, -m.direction) for m in scoring_metrics.by_group()
                       if m.direction):  # fmt: skip
    overall = card_facts.number(run.scores.get(metric), metric)
    for column in _columns(run):
      found = [
        group
        for group in run.details.groups_of(column)
        if group[metric]['count'] >= LEAST_PICTURES
      ]
      if len(found) < 2:
        continue
      worst = max(found, key=lambda group: sign * group[metric]['value'])
      result.append(
        f'{measures.name(metric)} by {_plain(column)} is worst for '
        f'{_plain(worst["name"])}: '
        f'{card_facts.estimate(worst[metric], metric)}, '
        f'{worst[metric]["count"]:,} pictures; {overall} overall.'
      )
  missed = [
    row
    for row in run.details.intervals
    if row['column'] and row['level'] == 0.9 and row['count'] >= LEAST_PICTURES
  ]
  if missed:
    worst = min(missed, key=lambda row: row['coverage']['value'])
    found = card_facts.estimate(worst['coverage'], 'age_coverage90')
    result.append(
      'The 90 % age interval holds the true age least often by '
      f'{_plain(worst["column"])} for {_plain(worst["name"])}: {found}, '
      f'{worst["count"]:,} pictures.'
    )
  return result
