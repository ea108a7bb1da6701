"""Chooses what to draw of one run: (description, panel) pairs.

The page shows each panel for itself; figures/*.png has them side by side.
"""

import functools

import numpy as np

from agegender_jax import schema, scoring
from agegender_jax.report import canvas, dots, figures, measures

_MOST_POINTS = 120


def curves() -> dict:
  """Returns metric -> title, unit, factor to the unit."""
  found = {m.name: (m.title, m.unit, m.factor) for m in scoring.headlines(2)}
  return {'loss': ('Loss', 'loss (no unit)', 1), **found}


def series(run, part, metric, scale=1):
  """Returns a metric's values against epochs.

  Args:
    run: the Run.
    part: train or validation.
    metric: key of curves().
    scale: factor.

  Returns:
    (epochs, values), float [N] each; neighbours are averaged where a run
    logged more points than a figure can show.
  """
  key = f'{part}/{metric}'
  rows = [row for row in run.metrics if row.get(key) is not None]
  # An evaluation's row has the mean since the last one: less noise.
  evaluated = [row for row in rows if 'validation/loss' in row]
  if len(evaluated) > 2:
    rows = evaluated
  points = np.array(
    [(row.get('epoch', row['step']), row[key] * scale) for row in rows]
  ).reshape(-1, 2)
  if len(points) > _MOST_POINTS:
    chunks = np.array_split(points, _MOST_POINTS)
    points = np.array([chunk.mean(axis=0) for chunk in chunks])
  return points[:, 0], points[:, 1]


def curve_names(runs) -> list:
  """Returns the metrics to draw, those that any of the runs has."""
  names = [
    name
    for name in curves()
    if any(
      f'{part}/{name}' in row
      for run in runs
      for row in run.metrics
      for part in ('train', 'validation')
    )
  ]
  if 'age_mae' in names and 'age_group_accuracy' in names:
    names.remove('age_group_accuracy')
  return names


def scored_epoch(run):
  """Returns the epoch of the checkpoint that was scored, or None."""
  for row in run.metrics:
    if row['step'] == run.scores.get('step'):
      return row.get('epoch')
  return None


def learning_curves(run) -> list:
  """Returns a panel a metric, train and validation on it."""
  split = run.config['data'].get('validation_split', '')
  parts = {
    'train': ('train', canvas.BLUE, 1.2),
    'validation': (
      'validation' if split in ('', 'validation') else f'validation: {split}',
      canvas.VERMILLION,
      2.0,
    ),
  }
  result = []
  for name in curve_names([run]):
    title, unit, scale = curves()[name]
    lines = []
    for part, (label, color, width) in parts.items():
      epochs, values = series(run, part, name, scale)
      if len(epochs):
        lines.append(figures.Line(label, epochs, values, color, width=width))
    panel = functools.partial(
      figures.draw_curves, lines=lines, title=title, unit=unit,
      marked=scored_epoch(run),
    )  # fmt: skip
    result.append((f'{title} against the epoch', panel))
  return result


def predicted_against_true(run) -> list:
  """Returns ages against each other."""
  predictions = run.predictions
  if predictions is None or not predictions.age_known.any():
    return []
  known = predictions.age_known
  panel = functools.partial(
    figures.draw_true_and_predicted,
    true=predictions.age[known],
    predicted=predictions.age_pred[known],
  )
  return [('Predicted against actual age', panel)]


def confusions(run) -> list:
  """Returns the confusion matrices of age groups and of genders."""
  result = []
  for task, description, title in (
    ('age_group', 'Confusion of age groups', 'Age groups (years)'),
    ('gender', 'Confusion of genders', 'Gender'),
  ):
    names, counts = run.details.confusion.get(task, ([], np.zeros(0)))
    if counts.sum():
      panel = functools.partial(
        figures.draw_confusion, counts=counts, names=names,
        title=f'{title}, number of pictures',
      )  # fmt: skip
      result.append((description, panel))
  return result


def by_age(run) -> list:
  """Returns the errors by true age as panels."""
  rows = run.details.groups_of('age')
  result = []
  for key, label, scale in measures.drawn(rows):
    panel = functools.partial(
      dots.draw_error_by_age, rows=rows, key=key, label=label, scale=scale
    )
    result.append((f'{label} by actual age', panel))
  return result


def shown_splits(run) -> dict:
  """Returns data.json's entry of each split that the run used."""
  splits = run.data.get('splits', {})
  fields = ('train_split', 'validation_split', 'test_split')
  used = [run.config['data'].get(field) for field in fields]
  # dict: a split used twice (a seed's protocol) is shown once.
  chosen = {name: splits[name] for name in used if name in splits}
  return chosen or splits


def data_histograms(run) -> list:
  """Returns ages a split, ages a gender, genders a split."""
  ages, genders = {}, {}
  for name, split in shown_splits(run).items():
    years = np.array([float(age) for age in split.get('age_counts', {})])
    numbers = np.array(list(split.get('age_counts', {}).values()), np.float64)
    if numbers[years >= 0].sum():
      ages[name] = years[years >= 0], numbers[years >= 0]
    counts = split.get('gender_counts', {})
    if any(counts.get(gender) for gender in schema.GENDERS):
      genders[name] = [counts.get(key, 0) for key in (*schema.GENDERS,
                                                      'unknown')]  # fmt: skip
  result = []
  if ages:
    title = 'Ages in each split'
    panel = functools.partial(figures.draw_ages, ages=ages, title=title)
    result.append((title, panel))
  result += _ages_by_gender(run)
  if genders:
    title = 'Genders in each split'
    panel = functools.partial(
      figures.draw_shares, counts=genders, title=title,
      names=(*schema.GENDERS, 'unknown'),
    )  # fmt: skip
    result.append((title, panel))
  return result


def _ages_by_gender(run):
  predictions = run.predictions
  if predictions is None:
    return []
  ages = {}
  for code, name in enumerate(schema.GENDERS):
    years = predictions.age[predictions.gender == code]
    years = years[~np.isnan(years)]
    if len(years):
      ages[name] = years, np.ones(len(years))
  if not ages:
    return []
  title = f'Ages by gender in {run.test_split}'
  panel = functools.partial(figures.draw_ages, ages=ages, title=title)
  return [(title, panel)]
