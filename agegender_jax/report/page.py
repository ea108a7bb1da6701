"""Renders the pages and writes a run's figures."""

import functools
import pathlib

from agegender_jax import errors, files
from agegender_jax.report import (
  canvas,
  compare,
  figures,
  gallery,
  network,
  panels,
  record,
  sections,
  uncertainty,
)
from agegender_jax.report import run as run_lib


def write_report(workdir) -> str:
  """Writes figures/*.png and report.html of one run into its workdir.

  Args:
    workdir: folder that a training run wrote, finished or not.

  Returns:
    The path of report.html.

  Raises:
    errors.UserError: the folder is no workdir, or a file in it is damaged.
  """
  run = run_lib.read_run(workdir)
  _write_figures(run)
  page = render(
    title=f'{run.data_name}: {run.recipe_name}',
    lead=_lead(run),
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
    errors.UserError: no folder is given, one is no workdir, a file in it is
      damaged, or the output's folder does not exist.
  """
  runs = [run_lib.read_run(workdir) for workdir in workdirs]
  if not runs:
    raise errors.UserError('nothing to compare: give --workdir=A,B')
  path = pathlib.Path(output)
  if not path.parent.is_dir():
    raise errors.UserError(
      f'the folder of --output={output} does not exist: create it first'
    )
  names = compare.labels(runs)
  page = render(
    title=f'Comparison of {len(runs)} run{"s" if len(runs) > 1 else ""}',
    lead=[tuple(name.split(' ', 1)) for name in names],
    found=[make(runs) for make in compare.SECTIONS],
  )
  files.write_whole(path, page)
  return str(path)


def render(title, lead, found) -> str:
  """Renders a page.

  Args:
    title: heading.
    lead: (name, value) pairs below it.
    found: sections of blocks; empty ones are left out.
  """
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


def _lead(run):
  """Returns what was trained on what, as (name, text) pairs."""
  train = run.config['data'].get('train_split', 'train')
  count = run.data.get('splits', {}).get(train, {}).get('num_examples')
  on = f'{run.data_name}, {train}' + (f' ({count:,})' if count else '')
  tested = run.scores.get('num_examples')
  tested = f' ({tested:,})' if tested else ''
  model = run.config.get('model', {}).get('backbone', '')
  if run.info.get('num_parameters'):
    size = network.count_text(run.info['num_parameters'])
    model += f', {size} parameters'
  epochs = [row['epoch'] for row in run.metrics if 'epoch' in row][-1:]
  trained = [f'{epoch:.3g} epochs' for epoch in epochs]
  if run.info.get('seconds'):
    trained.append(record.duration(run.info['seconds']))
  return [
    pair
    for pair in (
      ('Trained on', on),
      ('Scored on' if run.scores else 'To be scored on',
       run.test_split + tested),
      ('Run' if not run.recipe else 'Recipe', run.recipe_name),
      ('Network', model),
      ('Trained for', ', '.join(trained)),
      ('State', 'finished' if run.finished else 'not finished'),
    )
    if pair[1]
  ]  # fmt: skip


def _write_figures(run):
  folder = run.workdir / 'figures'
  folder.mkdir(exist_ok=True)
  true, confusions = panels.predicted_against_true(run), panels.confusions(run)
  for name, found, size in (
    ('learning_curves', panels.learning_curves(run), canvas.PANEL),
    # Ages against each other; the matrix where the run only has groups.
    ('predicted_vs_true', (true or confusions)[:1], (5, 5)),
    ('confusion', confusions, (4.6, 4)),
    ('error_by_age', panels.by_age(run), canvas.PANEL),
    ('age_histogram', panels.data_histograms(run), canvas.PANEL),
    ('reliability', uncertainty.reliability_panels(run),
     uncertainty.RELIABILITY),
  ):  # fmt: skip
    if found:
      drawn = [panel for _, panel, *_ in found]
      canvas.save_png(folder / f'{name}.png', drawn, size)
  for name, found in (
    ('faces', run.faces),
    ('worst', run.worst),
    ('contradictory', run.contradictory),
  ):
    _save_faces(folder / f'{name}.png', run, found[: gallery.MOST_FACES])
  _save_saliency(folder / 'saliency.png', run)


def _save_faces(path, run, found):
  if found:
    images = [image for image, _ in found]
    _save_sheet(path, images, gallery.captions(run, found), 5)


def _save_saliency(path, run):
  found = gallery.overlays(run)
  images, texts = [], []
  for caption, (image, _, maps) in zip(
    gallery.captions(run, found), found, strict=True
  ):
    images += [image, *maps.values()]
    texts += [caption, *maps]
  if found:
    # Two pictures a row, each with its maps.
    _save_sheet(path, images, texts, 2 * (1 + len(found[0][2])))


def _save_sheet(path, images, texts, columns):
  columns = min(columns, len(images))
  panel = functools.partial(
    figures.draw_faces, faces=images, captions=texts, columns=columns
  )
  width, height = figures.FACE
  size = columns * width, -(-len(images) // columns) * height
  canvas.save_png(path, [panel], size)
