"""From seconds per round to rows, ratios and Markdown."""

import datetime
import os
import pathlib
import platform
import re
import shlex
import statistics
import subprocess
import sys

from agegender_jax.runtime import process

ROOT = pathlib.Path(__file__).parent.parent.parent

# Title, key of a row, format, unit. A column without any value is left out.
_COLUMNS = (
  ('net', 'net', '{}', None),
  ('batch', 'batch_size', '{}', None),
  ('px', 'image_size', '{}', None),
  ('dtype', 'dtype', '{}', None),
  ('what', 'name', '{}', None),
  ('images/s', 'images_per_second', '{:.1f}', 1),
  ('ms', 'ms', '{:.2f}', 1),
  ('GFLOP per image', 'flops_per_image', '{:.3f}', 1e9),
  ('TFLOP/s', 'tflops', '{:.3f}', 1),
  ('peak RSS, GiB', 'peak_rss', '{:.2f}', 1),
  ('device, GiB', 'peak_device', '{:.2f}', 1),
  ('compile, s', 'compile_seconds', '{:.1f}', 1),
)


def spread(values: list[float]) -> dict[str, float]:
  """Returns the median, the lowest and the highest of some values."""
  return {'median': statistics.median(values), 'low': min(values), 'high': max(values)}


def create_row(worker, config) -> dict:
  """Creates a worker's row.

  Args:
    worker: has `name`, `facts`, `memory` and `seconds`, of at least one round.
    config: the one that it ran.

  Returns:
    A dict, JSON throughout: what _COLUMNS names and the numbers behind it.
  """
  facts = worker.facts
  row = {
    'name': worker.name,
    'net': net_name(config),
    'batch_size': facts['images'],
    'image_size': config.data.crop_size or config.data.image_size,
    'dtype': config.model.dtype,
    'seconds': worker.seconds,
    'images_per_second': spread([facts['images'] / s for s in worker.seconds]),
    'ms': spread([1e3 * s for s in worker.seconds]),
    **worker.memory,
    **{key: value for key, value in facts.items() if key != 'images'},
  }
  if facts.get('flops_per_image'):
    speed = row['images_per_second']['median']
    row['tflops'] = facts['flops_per_image'] * speed / 1e12
  return row


def net_name(config) -> str:
  """Names a network in a few words."""
  if config.model.backbone != 'cnn':
    return config.model.backbone
  widths = [w[5:] for w in config.model.layers.split() if w[:5] == 'conv:']
  branch = [w[5:] for w in config.model.branch.split() if w[:5] == 'conv:']
  text = 'cnn ' + '-'.join(widths)
  return f'{text}, {"-".join(branch)} per branch' if branch else text


def create_ratio(upper, lower) -> dict:
  """Returns the speed of one worker over another's, paired by round."""
  pairs = zip(upper.seconds, lower.seconds, strict=True)
  return {
    'name': f'{upper.name} / {lower.name}',
    **spread([other / one for one, other in pairs]),
  }


def to_markdown(result: dict) -> str:
  """Writes `rows` and, if there are any, `ratios`."""
  parts = []
  if rows := result.get('rows'):
    columns = [c for c in _COLUMNS if any(row.get(c[1]) is not None for row in rows)]
    cells = [[_cell(row.get(key), *rest) for _, key, *rest in columns] for row in rows]
    parts.append(_table([column[0] for column in columns], cells))
  if ratios := result.get('ratios'):
    cells = [[row['name'], _cell(row, '{:.2f}', 1)] for row in ratios]
    parts.append(_table(['ratio of speeds', 'median [range]'], cells))
  return '\n\n'.join(parts)


def _table(titles, rows):
  lines = [titles, ['---'] * len(titles), *rows]
  return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)


def _cell(value, form, unit):
  if value is None:
    return ''
  if isinstance(value, dict):
    parts = [form.format(value[key] / unit) for key in ('median', 'low', 'high')]
    return '{} [{} to {}]'.format(*parts)
  return form.format(value / unit if unit else value)


def describe_machine() -> dict:
  """Returns what the numbers depend on: machine, versions, commit, command."""
  command = ['git', '-C', str(ROOT), 'describe', '--always', '--dirty']
  git = subprocess.run(command, capture_output=True, text=True, check=False)
  path = pathlib.Path('/proc/cpuinfo')
  cpu = re.search('model name.*:(.*)', path.read_text() if path.exists() else '')
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return {
    'command': shlex.join(['python', *sys.argv]),
    'date': datetime.datetime.now().astimezone().isoformat(timespec='seconds'),
    'commit': git.stdout.strip() or 'unknown',
    'cpu': cpu[1].strip() if cpu else platform.machine(),
    'cores': process.num_cores(),
    'memory_gib': round(memory / 2**30, 1),
    'load_before': round(os.getloadavg()[0], 2),
    'versions': {'python': platform.python_version()},
  }


def describe(machine: dict, text: str) -> str:
  """Returns a table with the machine and the command that made it."""
  versions = ', '.join(f'{k} {v}' for k, v in machine['versions'].items())
  text += (
    f'\n\n`{machine["command"]}`\n\n{machine["date"]}, commit {machine["commit"]}; '
    f'{machine["cores"]} cores of {machine["cpu"]}, {machine["memory_gib"]} GiB; '
    f'{machine["device"]}; {versions}.\n'
  )
  if machine['load_before'] > 0.5:
    text += (
      f'\n**The load was {machine["load_before"]} before it began: '
      'other work ran beside it, and these times mean little.**\n'
    )
  return text
