"""The sections on what went into a run: data, cost, configuration."""

import json
import shlex

from agegender_jax.report import blocks, panels


def data(run):
  """Returns what the data are and what preparing them found."""
  found = panels.data_histograms(run)
  rows = []
  for name, split in panels.shown_splits(run).items():
    unknown_ages = split.get('age_counts', {}).get('-1', 0)
    genders = split.get('gender_counts', {})
    counts = [split.get('num_examples', 0), genders.get('male', 0),
              genders.get('female', 0), genders.get('unknown', 0),
              unknown_ages]  # fmt: skip
    rows.append([blocks.cell(name),
                 *(blocks.cell(f'{n:,}', n) for n in counts)])  # fmt: skip
  header = ['Split', 'Pictures', 'Male', 'Female', 'Gender unknown',
            'Age unknown']  # fmt: skip
  licence = run.data.get('licence')
  return blocks.section(
    'data', 'Data', blocks.figures(found) if found else None,
    blocks.table('Splits of this run', header, rows) if rows else None,
    *_preparation(run),
    blocks.note(f'Licence of the data: {licence or "not stated"}.'),
  )  # fmt: skip


def _preparation(run):
  if 'preparation' not in run.data:
    return []
  pairs = [
    (name, f'{value:,}' if isinstance(value, int) else str(value))
    for name, value in _flatten(run.data['preparation'])
  ]
  if not pairs:
    return [blocks.note('Nothing had to be repaired or skipped in preparing.')]
  return [
    blocks.note('Counted when the data were prepared:'),
    blocks.facts(pairs),
  ]


def _flatten(tree, prefix=''):
  for key, value in tree.items():
    name = f'{prefix}{str(key).replace("_", " ")}'
    if isinstance(value, dict):
      yield from _flatten(value, f'{name}: ')
    elif isinstance(value, list):
      rest = f' and {len(value) - 5} more' if len(value) > 5 else ''
      yield name, ', '.join(map(str, value[:5])) + rest
    else:
      yield name, value


def duration(seconds) -> str:
  """Formats seconds as `2 h 05 min`, `4 min 10 s` or `41 s`."""
  seconds = round(seconds)
  if seconds >= 3600:
    return f'{seconds // 3600} h {seconds % 3600 // 60:02d} min'
  if seconds >= 60:
    return f'{seconds // 60} min {seconds % 60:02d} s'
  return f'{seconds} s'


def cost_facts(run) -> list:
  """Returns (name, value) pairs of what the run cost."""
  info = run.info
  pairs = [('Backbone', run.config.get('model', {}).get('backbone', ''))]
  if info.get('num_parameters'):
    pairs.append(('Parameters', f'{info["num_parameters"]:,}'))
  if info.get('seconds'):
    pairs.append(('Time', duration(info['seconds'])))
  if info.get('images_per_second'):
    pairs.append(('Training speed', f'{info["images_per_second"]:,.0f} '
                  'images/s'))  # fmt: skip
  return [*pairs, ('Device', info.get('device', ''))]


def cost(run):
  """Returns time, speed, size and device."""
  return blocks.section('run', 'Run', blocks.facts(cost_facts(run)))


def reproduce(run):
  """Returns the commands, the configuration and the versions."""
  name = run.workdir.resolve().name
  # config.py makes a recipe of a workdir, with all that flags overrode.
  recipe = shlex.quote(f'agegender_jax/config.py:{name}')
  again = shlex.quote(f'{name}_again')
  name = shlex.quote(name)
  text = (
    f'python -m agegender_jax.main --config={recipe} \\\n'
    f'  --workdir={again}\n'
    f'python -m agegender_jax.main --mode=evaluate --workdir={name}'
  )
  versions = ' '.join(f'{key}=={run.versions[key]}' for key in run.versions)
  said = (
    'The first trains the configuration below anew, the second scores the '
    'checkpoint again; both from the folder that holds the workdir and the '
    'package.'
  )
  return blocks.section(
    'reproduce', 'How to reproduce', blocks.code(text), blocks.note(said),
    blocks.code(json.dumps(run.config, indent=2), 'Resolved configuration'),
    blocks.code(versions, 'Library versions') if versions else None,
  )  # fmt: skip
