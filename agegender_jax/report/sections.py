"""The sections of one run's page, in their order; results first."""

import numpy as np

from agegender_jax import schema
from agegender_jax.report import blocks, panels, record, stats

MOST_FACES = 20


def headlines(run):
  """Returns the headline scores, or why there are none."""
  cards = [
    blocks.card(headline, run.scores, run.trivial)
    for headline in blocks.HEADLINES
    if run.scores.get(headline.key) is not None
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
  return blocks.section('scores', 'Scores', *parts)


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
  text += (
    'always answers the median age, commonest group and commoner gender of '
  )
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
    for headline in blocks.HEADLINES:
      value = rows[-1].get(f'validation/{headline.key}')
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


def face_texts(run, row) -> tuple:
  """Returns what was predicted of an example and what is actual.

  Args:
    run: the Run.
    row: row of its predictions.

  Returns:
    (`31 F`, `28 F`), a group such as `25-32` where years lack, `?` where
    nothing is known.
  """
  p, names = run.predictions, run.group_names

  def text(age, group, gender):
    known = names[group] if group != schema.UNKNOWN else ''
    years = known if np.isnan(age) else f'{age:.0f}'
    sex = '' if gender == schema.UNKNOWN else 'MF'[gender]
    return f'{years} {sex}'.strip() or '?'

  gender = p.gender_pred[row]
  return (
    text(p.age_pred[row], p.age_group_pred[row], gender),
    text(p.age[row], p.age_group[row], p.gender[row]),
  )


def faces(run):
  """Returns some test faces with prediction and label."""
  shown = run.faces[:MOST_FACES]
  if not shown:
    return blocks.section('faces', 'Faces',
                   blocks.note('No faces were kept of this run.'))  # fmt: skip
  p, items = run.predictions, []
  for image, row in shown:
    predicted, actual = face_texts(run, row)
    wrong = p.gender_known[row] and p.gender_pred[row] != p.gender[row]
    # round: an error shown as 0 gets no sign.
    error = np.round(p.age_pred[row] - p.age[row]) + 0.0
    items.append({
      'src': blocks.picture(image),
      'predicted': predicted,
      'actual': actual,
      'error': '' if np.isnan(error) else f'{error:+.0f}' if error else '0',
      'far': bool(abs(error) > 10),
      'wrong': bool(wrong),
    })  # fmt: skip
  return blocks.section(
    'faces', 'Faces: predicted (actual)', {'kind': 'faces', 'items': items},
    *_face_key(items),
  )  # fmt: skip


def _face_key(items):
  text = ''
  if any(item['error'] for item in items):
    text += 'The tag is the error in years, filled where it is over ten. '
  if any(item['wrong'] for item in items):
    text += 'A double underline marks a wrong gender.'
  return [blocks.note(text)] if text else []


def ages(run):
  """Returns predictions against labels."""
  found = panels.predicted_against_true(run)
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
  if run.predictions is None:
    return {}
  rows = stats.errors_by_age(run.predictions, run.group_names)
  chosen = [
    column
    for column in (
      ('age_mae', 'MAE (years)', 'years', False),
      ('age_bias', 'Bias (years)', 'years', True),
      ('group_exact', 'Group exact (%)', '%', False),
      ('group_one_off', 'One-off (%)', '%', False),
      ('gender_accuracy', 'Gender (%)', '%', False),
    )
    if any(row[column[0]]['count'] for row in rows)
  ]
  if not rows or not chosen:
    return {}
  order = {row['name']: place for place, row in enumerate(rows)}
  body = []
  for row in rows:
    cells = [
      blocks.cell(row['name'], order[row['name']]),
      blocks.cell(f'{row["count"]:,}', row['count']),
    ]
    for key, _, unit, signed in chosen:
      cells.append(blocks.estimate_cell(row[key], unit, signed))
    body.append(cells)
  header = ['Age (years)', 'Pictures', *(column[1] for column in chosen)]
  found = panels.by_age(run, rows)
  return blocks.section(
    'by-age', 'By age', blocks.figures(found) if found else None,
    blocks.table('With 95 % bootstrap intervals', header, body),
  )  # fmt: skip


# A new part of the page is a function of the run and a place here.
SECTIONS = (
  headlines, curves, faces, ages, by_age, record.data, record.cost,
  record.reproduce,
)  # fmt: skip
