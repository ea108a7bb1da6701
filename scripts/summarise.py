r"""Mean and standard deviation of each setting of one or several sweeps.

python scripts/summarise.py --workdir=runs/batch_size
python scripts/summarise.py --workdir=runs/resnet_folds,runs/levi_folds \
  --paired=adience_levi_hassner

Prints a Markdown table and writes summary.md, summary.csv and summary.png into
the first folder (or --output). The deviation is that of the runs of a setting,
its folds and seeds (n - 1). `--paired=SETTING` adds each other setting's
difference from that one, image by image on the folds and seeds that both have:
an image that several seeds scored counts once, with their mean. Runs on other
data (by their fingerprint) or by other age groups have other tables.
Milliseconds per batch are the median over a run's logged intervals, so neither
compilation nor evaluation counts; seconds per epoch follow from them.
"""

import csv
import functools
import pathlib
import statistics
import textwrap

import numpy as np

from agegender_jax import cli, errors, files
from agegender_jax.report import plots
from agegender_jax.studies import repeats


def table(settings: list[repeats.Setting]) -> str:
  """Returns a Markdown table of the settings of one protocol."""
  columns = {
    k: c for k, c in repeats.columns().items() if any(s.values(k) for s in settings)
  }
  head = [f'{column.title}, {column.unit}' for column in columns.values()]
  lines = [['setting', 'runs', *head], ['---'] * (2 + len(head))]
  for setting in settings:
    cells = [setting.name, setting.repeats()]
    for key, column in columns.items():
      values, digits = setting.values(key), column.decimals
      text = f'{statistics.mean(values):.{digits}f}' if values else ''
      if len(values) > 1:
        text += f' ± {repeats.spread(values):.{digits}f}'
      cells.append(text)
    lines.append(cells)
  return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)


def paired_table(reference: repeats.Setting, others: list[repeats.Setting]) -> str:
  """Returns a Markdown table of differences from one setting."""
  lines = [
    f'Minus {reference.name}, on the same images, 95 % bootstrap interval over '
    'the images:\n',
    '| setting | score | difference | images |\n|---|---|---|---|',
  ]
  for other in others:
    for metric, *numbers, count in repeats.paired(reference, other):
      value, low, high = (f'{number:+.{metric.decimals}f}' for number in numbers)
      lines.append(
        f'| {other.name} | {metric.title}, {metric.unit} | {value} [{low}, {high}] '
        f'| {count:,} |'
      )
  return '\n'.join(lines)


def draw(axes, settings: list[repeats.Setting], key: str, scored: str) -> None:
  """Draws a column's mean and deviation, a row per setting."""
  chosen = [s for s in settings if s.values(key)]
  means = [statistics.mean(s.values(key)) for s in chosen]
  bars = [np.nan_to_num(repeats.spread(s.values(key))) for s in chosen]
  places, column = range(len(chosen)), repeats.columns()[key]
  # Narrower than the panel, which has others beside it.
  axes.set_title('\n'.join([column.title, *textwrap.wrap(scored, 32)]))
  axes.errorbar(means, places, xerr=bars, fmt='o', capsize=4, color=plots.BLUE)
  axes.set_yticks(places, [s.name.replace(' ', '\n') for s in chosen])
  axes.set(xlabel=column.unit, ylim=(len(chosen) - 0.5, -0.5))


def write_csv(path: pathlib.Path, settings: list[repeats.Setting]) -> None:
  """Writes a row per setting: mean, deviation and runs of every column."""
  keys = list(repeats.columns())
  names = [f'{key}_{what}' for key in keys for what in ('mean', 'std')]
  with path.open('w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(['protocol', 'setting', 'runs', *names])
    for setting in settings:
      cells = []
      for values in map(setting.values, keys):
        cells.append(f'{statistics.mean(values):.6g}' if values else '')
        cells.append(f'{repeats.spread(values):.6g}' if len(values) > 1 else '')
      writer.writerow([setting.protocol, setting.name, len(setting.runs), *cells])


def summarise(folders: list[pathlib.Path], output: pathlib.Path, reference: str) -> str:
  """Writes summary.md, summary.csv and summary.png.

  Args:
    folders: of sweeps.
    output: where to.
    reference: setting of the paired differences, '' = none.

  Returns:
    The Markdown.

  Raises:
    errors.UserError: no finished run, no such setting, or `output` cannot be
      written.
  """
  settings = repeats.read_settings(folders)
  names = list(dict.fromkeys(setting.name for setting in settings))
  if reference and reference not in names:
    raise errors.unknown('setting of --paired', reference, names)
  parts, panels = [], []
  protocols = list(dict.fromkeys(setting.protocol for setting in settings))
  for protocol in protocols:
    chosen = [s for s in settings if s.protocol == protocol]
    # A figure is passed on without its table.
    is_stand_in = any(map(repeats.is_stand_in, chosen[0].runs.values()))
    scored = protocol if len(protocols) > 1 or is_stand_in else ''
    parts += [f'Scored on {protocol}:', table(chosen)]
    for key in (*repeats.scores(), 'batch_ms', 'epoch_seconds'):
      if any(s.values(key) for s in chosen):
        panels.append(functools.partial(draw, settings=chosen, key=key, scored=scored))
    if first := [s for s in chosen if s.name == reference]:
      others = [s for s in chosen if s.name != reference]
      parts.append(paired_table(first[0], others))
  devices = sorted(
    {run.info.get('device', '') for s in settings for run in s.runs.values()}
  )
  place = '; '.join(filter(None, devices)) or 'an unnamed device'
  parts.append(
    f'± is the standard deviation over the runs. Times were taken on {place}.'
  )
  text = '\n\n'.join(parts) + '\n'
  cli.create_folder('--output', output)
  files.write_whole(output / 'summary.md', text)
  write_csv(output / 'summary.csv', settings)
  size = plots.PANEL[0], max(plots.PANEL[1], 1 + 0.45 * len(settings))
  plots.save_png(output / 'summary.png', panels, size, min(3, len(panels)))
  return text


def main(argv: list[str]) -> None:
  """Parses the flags, prints the table and where the files lie."""
  parser = cli.Parser(__doc__)
  parser.add_argument('--workdir', required=True, help='A or A,B,... of sweeps')
  parser.add_argument('--output', help='folder to write; the first --workdir')
  parser.add_argument('--paired', default='', help='setting to compare with')
  values = parser.parse_args(argv)
  names = filter(None, values.workdir.split(','))
  folders = [pathlib.Path(name).expanduser() for name in names]
  if not folders:
    raise errors.UserError('--workdir=A or A,B,... of sweeps is needed')
  output = pathlib.Path(values.output or folders[0]).expanduser()
  print(summarise(folders, output, values.paired))
  print(f'written to {output}/summary.md, .csv and .png')


if __name__ == '__main__':
  cli.run(main)
