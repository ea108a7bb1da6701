"""The section on the other data and splits that a run was scored on."""

from agegender_jax import scoring
from agegender_jax.report import blocks
from agegender_jax.report import run as run_lib


def score_cell(scores, key, unit) -> dict:
  """Returns a table's cell of a flat scores.json's key."""
  value = scores.get(key)
  ends = [scores.get(f'{key}_{end}') for end in ('low', 'high')]
  return blocks.cell(
    blocks.number(value, unit),
    float('nan') if value is None else value,
    blocks.interval(*ends, unit),
  )


def others(run):
  """Returns the scores of each evaluation beside the run's own."""
  own = {'data': run.data_name, **run.scores}
  kept = [own] if run.scores else []
  for scores in run.evaluations:
    if scores and not any(run_lib.is_same(scores, other) for other in kept):
      kept.append(scores)
  if len(kept) < 2:
    return {}
  columns = [(m.name, m.title, m.unit) for m in scoring.headlines()]
  shown = [
    column
    for column in columns
    if any(scores.get(column[0]) is not None for scores in kept)
  ]
  rows = []
  for scores in kept:
    rows.append([
      blocks.cell(scores.get('data', ''), small=_how(scores, scores is own)),
      blocks.cell(scores.get('split', '')),
      blocks.cell(*_integer(scores.get('num_examples'))),
      blocks.cell(*_integer(scores.get('step'))),
      *(score_cell(scores, key, unit) for key, _, unit in shown),
    ])  # fmt: skip
  header = ['Data', 'Split', 'Pictures', 'Step',
            *(f'{name}, {unit}' for _, name, unit in shown)]  # fmt: skip
  trained = f'{run.data_name}, {run.config["data"].get("train_split", "")}'
  return blocks.section(
    'others', 'Other data',
    blocks.table(f'Trained on {trained}; with 95 % bootstrap intervals',
                 header, rows),
    blocks.note('Data that a network was not trained on are the honest score. '
                'Rows of different data do not compare with each other.'),
  )  # fmt: skip


def _how(scores, is_own):
  """Says what tells an evaluation from others of the same pictures."""
  said = ['this run'] if is_own else []
  if scores.get('age_groups'):
    said.append(f'groups of {scores["age_groups"]}')
  if scores.get('oversample'):
    said.append('over-sampled')
  if scores.get('num_trained_on'):
    said.append(f'{scores["num_trained_on"]:,} trained on')
  return ', '.join(said)


def _integer(value):
  if value is None:
    return blocks.MISSING, float('nan')
  return f'{value:,}', value
