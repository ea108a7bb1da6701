"""Renders the pages and writes a run's figures."""

import pathlib

from agegender_jax import files, schema
from agegender_jax.report import (
  canvas,
  compare,
  figures,
  panels,
  sections,
  stats,
)
from agegender_jax.report import run as run_lib

_FACE = (1.7, 1.95)  # Inches, with the caption.


def write_report(workdir) -> str:
  """Writes figures/*.png and report.html of one run into its workdir.

  Args:
    workdir: folder that a training run wrote, finished or not.

  Returns:
    The path of report.html.

  Raises:
    schema.UserError: the folder is no workdir, or a file in it is damaged.
  """
  run = run_lib.read_run(workdir)
  _write_figures(run)
  data = run.config['data']
  page = _render(
    title=f'{run.data_name}: {run.recipe_name}',
    lead=[
      ('Trained on', f'{run.data_name}, {data.get("train_split", "train")}'),
      ('Scored on' if run.scores else 'To be scored on', run.test_split),
      ('Run' if not run.recipe else 'Recipe', run.recipe_name),
      ('State', 'finished' if run.finished else 'not finished'),
    ],
    found=[make(run) for make in sections.SECTIONS],
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
    schema.UserError: no folder is given, one is no workdir, a file in it is
      damaged, or the output's folder does not exist.
  """
  runs = [run_lib.read_run(workdir) for workdir in workdirs]
  if not runs:
    raise schema.UserError('nothing to compare: give --workdir=A,B')
  path = pathlib.Path(output)
  if not path.parent.is_dir():
    raise schema.UserError(
      f'the folder of --output={output} does not exist: create it first'
    )
  names = compare.labels(runs)
  page = _render(
    title=f'Comparison of {len(runs)} run{"s" if len(runs) > 1 else ""}',
    lead=[tuple(name.split(' ', 1)) for name in names],
    found=[make(runs) for make in compare.SECTIONS],
  )
  files.write_whole(path, page)
  return str(path)


def _render(title, lead, found):
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  template = environment.get_template('page.html.j2')
  found = [section for section in found if section]
  return template.render(title=title, lead=lead, sections=found)


def _write_figures(run):
  folder = run.workdir / 'figures'
  folder.mkdir(exist_ok=True)
  rows = []
  if run.predictions is not None:
    rows = stats.errors_by_age(run.predictions, run.group_names)
  true = panels.predicted_against_true(run)
  for name, found in (
    ('learning_curves', panels.learning_curves(run)),
    # Ages against each other; the matrix where the run only has groups.
    ('predicted_vs_true', true[:1]),
    ('error_by_age', panels.by_age(run, rows)),
    ('age_histogram', panels.data_histograms(run)),
  ):
    if found:
      size = (5, 5) if name == 'predicted_vs_true' else canvas.PANEL
      drawn = [panel for _, panel in found]
      canvas.save_png(folder / f'{name}.png', drawn, size)
  shown = run.faces[: sections.MOST_FACES]
  if shown:
    captions = []
    for _, row in shown:
      predicted, actual = sections.face_texts(run, row)
      captions.append(f'{predicted} ({actual})')
    drawn = figures.face_panels([image for image, _ in shown], captions)
    canvas.save_png(folder / 'faces.png', drawn, _FACE, columns=5)
