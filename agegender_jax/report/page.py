"""Renders blocks as one HTML page that holds all it needs."""

import pathlib

from agegender_jax import errors, files
from agegender_jax.report import blocks, comparison, faces, plots, record, sections
from agegender_jax.report import model_card as card_lib
from agegender_jax.report import run as run_lib

# The page of a run, results first. A new part is one more function of the run.
SECTIONS = (
  sections.headlines, sections.curves, faces.faces, sections.predicted,
  sections.by_age, sections.groups, sections.intervals, sections.reliability,
  sections.others, faces.worst, faces.contradictory, faces.saliency, record.data,
  record.network, record.cost, record.limits, record.reproduce,
)  # fmt: skip

# What somebody else's predictions have nothing to show for.
_OF_TRAINING = (
  sections.curves, faces.saliency, record.network, record.limits, record.reproduce
)  # fmt: skip


def write_report(workdir) -> str:
  """Writes model_card.md, report.html and figures/*.png of a run into its workdir.

  Args:
    workdir: folder that a training run wrote, finished or not.

  Returns:
    The path of report.html.

  Raises:
    errors.UserError: the folder is no workdir, or a file in it is damaged.
  """
  card_lib.write_card(workdir)  # First: the page links to it.
  run = run_lib.Run(workdir)
  folder = run.workdir / 'figures'
  folder.mkdir(exist_ok=True)
  for path in folder.glob('*.png'):
    if plots.SOFTWARE.encode() in path.read_bytes()[:2000]:
      path.unlink()  # Of an earlier report.
  faces.save_sheets(run, folder)
  page = render(
    title=f'{run.data_name}: {run.recipe_name}',
    lead=_lead(run),
    found=[
      make(run)
      for make in SECTIONS
      if not (run.predictions_file and make in _OF_TRAINING)
    ],
    folder=folder,
  )
  path = run.workdir / 'report.html'
  files.write_whole(path, page)
  return str(path)


def write_comparison(workdirs, output='compare.html') -> str:
  """Writes one page that compares runs.

  Args:
    workdirs: folders that training runs wrote.
    output: file to write.

  Returns:
    The path of the page.

  Raises:
    errors.UserError: no folder is given, one is no workdir, a file in it is
      damaged, or the output's folder does not exist.
  """
  runs = [run_lib.Run(workdir) for workdir in workdirs]
  if not runs:
    raise errors.UserError('nothing to compare: give --workdir=A,B')
  path = pathlib.Path(output)
  if not path.parent.is_dir():
    raise errors.UserError(
      f'the folder of --output={output} does not exist: create it first'
    )
  page = render(
    title=f'Comparison of {len(runs)} run{"s" if len(runs) > 1 else ""}',
    lead=[name.split(' ', 1) for name in comparison.labels(runs)],
    found=[make(runs) for make in comparison.SECTIONS],
  )
  files.write_whole(path, page)
  return str(path)


def render(title, lead, found, folder: pathlib.Path | None = None) -> str:
  """Renders a page.

  Args:
    title: heading.
    lead: (name, value) pairs below it.
    found: sections of blocks; empty ones are left out.
    folder: also gets the page's figures as PNG, or None.
  """

  def draw(figure: plots.Figure) -> str:
    content = figure.png()
    if folder:
      (folder / figure.file_name).write_bytes(content)
    return blocks.data_uri('png', content)

  template = blocks.environment(is_html=True).get_template('page.html.j2')
  return template.render(
    title=title, lead=lead, sections=[part for part in found if part], draw=draw
  )


def _lead(run):
  """Returns what was trained on what, as (name, text) pairs."""
  train = run.config['data'].get('train_split', 'train')
  size = run.data.get('splits', {}).get(train, {}).get('num_examples')
  parameters, seconds = run.info.get('num_parameters'), run.info.get('seconds')
  epochs = [f'{row["epoch"]:.3g} epochs' for row in run.metrics if 'epoch' in row]
  tested = run.scores.get('num_examples')
  model = [run.config.get('model', {}).get('backbone', '')]
  model += [f'{record.count_text(parameters)} parameters'] if parameters else []
  trained = epochs[-1:] + ([record.duration(seconds)] if seconds else [])
  if run.predictions_file:
    return [
      ('Predictions', run.predictions_file),
      ('Test split', f'{run.test_split} ({tested:,})'),
    ]
  pairs = [
    ('Trained on', f'{run.data_name}, {train}' + (f' ({size:,})' if size else '')),
    ('Test split', run.test_split + (f' ({tested:,})' if tested else '')),
    ('Recipe' if run.recipe else 'Run', run.recipe_name),
    ('Network', ', '.join(model)),
    ('Trained for', ', '.join(trained)),
    ('State', 'finished' if run.finished else 'not finished'),
  ]
  return [pair for pair in pairs if pair[1]]
