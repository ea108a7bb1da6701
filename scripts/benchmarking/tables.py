"""From seconds by round to rows, ratios, Markdown and JSON."""

import datetime
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys

from benchmarking import host

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
  ('GFLOP an image', 'flops_per_image', '{:.3f}', 1e9),
  ('MB an image', 'bytes_per_image', '{:.1f}', 1e6),
  ('TFLOP/s', 'tflops', '{:.3f}', 1),
  ('of matmul peak', 'matmul_share', '{:.0%}', 1),
  ('peak RSS, GiB', 'peak_rss', '{:.2f}', 1),
  ('device, GiB', 'peak_device', '{:.2f}', 1),
  ('busy cores', 'busy_cores', '{:.2f}', 1),
  ('compile, s', 'compile_seconds', '{:.1f}', 1),
)

_LONGEST_PARTS = 12  # Rows of a profile.


def spread(values: list[float]) -> dict[str, float]:
  """Returns the median, the lowest and the highest of some values."""
  return {
    'median': statistics.median(values),
    'low': min(values),
    'high': max(values),
  }


def create_row(worker, config, matmul_peak: float | None = None) -> dict:
  """Creates a worker's row.

  Args:
    worker: has `name`, `facts`, `memory` and `seconds`, of at least one round.
    config: the one that it ran.
    matmul_peak: FLOP/s.

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
    if matmul_peak:
      row['matmul_share'] = 1e12 * row['tflops'] / matmul_peak
  return row


def net_name(config) -> str:
  """Names a network in a few words."""
  if config.model.backbone != 'cnn':
    return config.model.backbone
  widths = [w[5:] for w in config.model.layers.split() if w[:5] == 'conv:']
  branch = [w[5:] for w in config.model.branch.split() if w[:5] == 'conv:']
  text = 'cnn ' + '-'.join(widths)
  return f'{text}, {"-".join(branch)} a branch' if branch else text


def create_ratio(upper, lower) -> dict:
  """Returns the speed of one worker over another's, by round."""
  pairs = zip(upper.seconds, lower.seconds, strict=True)
  return {
    'name': f'{upper.name} / {lower.name}',
    **spread([other / one for one, other in pairs]),
  }


def to_markdown(result: dict) -> str:
  """Writes what a measurement found as Markdown.

  Args:
    result: `rows`, `ratios`, `peaks`, `starts`, `profile`, as far as there are
      any.
  """
  parts = []
  if result.get('rows'):
    parts.append(_row_table(result['rows']))
  if result.get('ratios'):
    lines = ['| ratio of speeds | median [range] |', '|---|---|']
    lines += [
      f'| {row["name"]} | {_cell(row, "{:.2f}", 1)} |' for row in result['ratios']
    ]
    parts.append('\n'.join(lines))
  if result.get('starts'):
    parts.append(_start_table(result['starts']))
  for title, times in result.get('profile', {}).items():
    parts.append(_profile_table(title, times))
  if result.get('peaks'):
    peaks = result['peaks']
    parts.append(
      f'Limits: {peaks["matmul"] / 1e12:.3f} TFLOP/s of matrix products, '
      f'{peaks["memory"] / 1e9:.1f} GB/s of memory (a + 2 b to another place).'
    )
  return '\n\n'.join(parts)


def _row_table(rows):
  columns = [
    column for column in _COLUMNS if any(row.get(column[1]) is not None for row in rows)
  ]
  lines = [
    '| ' + ' | '.join(column[0] for column in columns) + ' |',
    '|---' * len(columns) + '|',
  ]
  for row in rows:
    cells = [_cell(row.get(key), *rest) for _, key, *rest in columns]
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def _start_table(starts):
  """Writes seconds since the start: first the cold one, then the others."""
  lines = [
    '| seconds until | nothing compiled | second start |',
    '|---|---|---|',
  ]
  for stage, seconds in starts[0].items():
    later = spread([start[stage] for start in starts[1:]])
    lines.append(f'| {stage} | {seconds:.2f} | {_cell(later, "{:.2f}", 1)} |')
  return '\n'.join(lines)


def _profile_table(title, times):
  """Writes the longest of {name: ms a step}, and what they all sum up to."""
  total = sum(times.values())
  rows = [*list(times.items())[:_LONGEST_PARTS], ('all', total)]
  lines = [
    f'| {title} | ms a step, over all threads | share |',
    '|---|---|---|',
  ]
  lines += [f'| {k} | {v:.1f} | {v / total:.0%} |' for k, v in rows]
  return '\n'.join(lines)


def _cell(value, form, unit):
  if value is None:
    return ''
  if isinstance(value, dict):
    parts = [form.format(value[key] / unit) for key in ('median', 'low', 'high')]
    return '{} [{} to {}]'.format(*parts)
  return form.format(value / unit if unit else value)


def describe_machine() -> dict:
  """Returns what the numbers depend on: machine, versions, commit, command."""
  commit = subprocess.run(
    ['git', '-C', str(ROOT), 'describe', '--always', '--dirty'],
    capture_output=True,
    text=True,
    check=False,
  ).stdout.strip()
  return {
    'command': shlex.join(['python', *sys.argv]),
    'date': datetime.datetime.now().astimezone().isoformat(timespec='seconds'),
    'commit': commit,
    'cpu': _cpu_name(),
    'cores': host.num_cores(),
    'memory_gib': round(
      os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30, 1
    ),
    'load_before': round(os.getloadavg()[0], 2),
    'versions': {'python': platform.python_version()},
  }


def _cpu_name():
  path = pathlib.Path('/proc/cpuinfo')
  if path.exists():
    for line in path.read_text().splitlines():
      if line.startswith('model name'):
        return line.partition(':')[2].strip()
  return platform.processor() or platform.machine()


def describe(machine: dict, text: str) -> str:
  """Returns a table with the machine and the command that made it."""
  versions = ', '.join(f'{k} {v}' for k, v in machine['versions'].items())
  lines = [
    text,
    '',
    f'`{machine["command"]}`',
    '',
    f'{machine["date"]}, commit {machine["commit"] or "unknown"}; '
    f'{machine["cores"]} cores of {machine["cpu"]}, '
    f'{machine["memory_gib"]} GiB; {machine["device"]}; '
    f'{versions}.',
  ]
  if machine['load_before'] > 0.5:
    lines += [
      '',
      f'**The load was {machine["load_before"]} before it began: '
      'other work ran beside it, and these times mean little.**',
    ]
  return '\n'.join(lines) + '\n'
