"""The sections of one run's page, in their order; results first."""

from agegender_jax import scoring
from agegender_jax.report import (
  blocks,
  evaluations,
  gallery,
  groups,
  measures,
  network,
  panels,
  record,
  uncertainty,
)


def headlines(run):
  """Returns the headline scores, or why there are none."""
  cards = [
    blocks.card(headline, run.scores, run.trivial)
    for headline in scoring.headlines()
    if run.scores.get(headline.name) is not None
  ]
  parts = [{'kind': 'cards', 'items': cards} if cards else None]
  if not run.scores:
    parts.append(_unfinished(run))
  elif not run.info.get('finished'):
    parts.append(
      blocks.note(
        'The run has scores but is not marked as finished: they may be of an '
        'earlier part of it.'
      )
    )
  if cards:
    parts.append(blocks.note(_score_note(run)))
    parts.append(blocks.fold('All scores', _all_scores(run)))
  return blocks.section('scores', 'Scores', *parts)


def _all_scores(run):
  rows = []
  for key in measures.listed(run.scores):
    unit = measures.unit(key)
    trivial = run.trivial.get(key)
    rows.append([
      blocks.cell(measures.name(key)),
      blocks.cell(unit),
      evaluations.score_cell(run.scores, key, unit),
      blocks.cell(blocks.number(trivial, unit),
                  float('nan') if trivial is None else trivial),
    ])  # fmt: skip
  return blocks.table('With 95 % bootstrap intervals, where there are any',
                      ['Score', 'Unit', 'Value', 'Trivial'], rows)  # fmt: skip


def _score_note(run):
  count = run.scores.get('num_examples')
  text = f'Scored on {run.test_split}'
  text += f', {count:,} pictures' if count else ''
  step, epoch = run.scores.get('step'), panels.scored_epoch(run)
  text += f', at step {step:,}' if step is not None else ''
  text += f' (epoch {epoch:.3g})' if epoch is not None else ''
  how = run.config.get('train', {}).get('select', '')
  text += {'last': ', the last of the run', 'best': ', the best on validation'}\
    .get(how, '')  # fmt: skip
  text += '. Ranges are 95 % bootstrap intervals over these pictures; trivial '
  text += 'always answers the median age, commonest group and commoner gender of '
  text += 'the train split.'
  bias = run.scores.get('age_bias')
  if bias is not None:
    side = 'too old' if bias > 0 else 'too young'
    text += f' On average ages come out {abs(bias):.2f} years {side}.'
  return text


def _unfinished(run):
  text = 'This run is not finished: it has no scores yet. '
  rows = [row for row in run.metrics if 'validation/loss' in row]
  if rows:
    values = []
    for headline in scoring.headlines():
      value = rows[-1].get(f'validation/{headline.name}')
      if value is not None:
        shown = blocks.number(value, headline.unit)
        values.append(f'{headline.name} {shown} {headline.unit}')
    text += f'Validation at step {rows[-1]["step"]:,}: '
    text += (', '.join(values) or 'loss only') + '. '
  return {
    'kind': 'warning',
    'text': text + 'Start it again with the same command and it resumes.',
  }


def curves(run):
  """Returns the learning curves."""
  found = panels.learning_curves(run)
  if not found:
    return blocks.section('curves', 'Learning curves',
                   blocks.note('Nothing is logged yet.'))  # fmt: skip
  return blocks.section('curves', 'Learning curves', blocks.figures(found))


def ages(run):
  """Returns predictions against labels."""
  found = panels.predicted_against_true(run) + panels.confusions(run)
  if not found:
    return blocks.section('ages', 'Predicted against actual', blocks.note(
      'predictions.csv is absent, or has no labels to compare with.'
    ))  # fmt: skip
  return blocks.section(
    'ages', 'Predicted against actual', blocks.figures(found),
    blocks.note('The stronger the colour, the more pictures; in the matrices, '
                'the larger the share of the row.'),
  )  # fmt: skip


def by_age(run):
  """Returns the errors by true age with the count behind each."""
  rows = run.details.groups_of('age')
  if not rows:
    return {}
  block = groups.table('By actual age, with 95 % bootstrap intervals', rows)
  return blocks.section('by-age', 'By age', blocks.figures(panels.by_age(run)), block)


# A new part of the page is a function of the run and a place here.
SECTIONS = (
  headlines, curves, gallery.faces, ages, by_age, groups.groups,
  uncertainty.intervals, uncertainty.reliability, evaluations.others,
  gallery.worst, gallery.contradictory, gallery.saliency, record.data,
  network.layers, record.cost, record.reproduce,
)  # fmt: skip
