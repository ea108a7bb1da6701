"""The sections on what went into a run: data, cost, configuration."""

import json
import math
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
  """Formats seconds as `2 h 05 min`, `4 min 10 s`, `41 s` or `12.5 ms`."""
  if seconds < 1:
    return f'{1000 * seconds:.3g} ms'
  if seconds < 10:
    return f'{seconds:.2g} s'
  seconds = round(seconds)
  if seconds >= 3600:
    return f'{seconds // 3600} h {seconds % 3600 // 60:02d} min'
  if seconds >= 60:
    return f'{seconds // 60} min {seconds % 60:02d} s'
  return f'{seconds} s'


_NAMES = {
  'num_parameters': 'Parameters', 'seconds': 'Time',
  'train_seconds': 'Time of training alone', 'compile_seconds': 'Compiling',
  'images_per_second': 'Training speed', 'peak_memory_bytes': 'Peak memory',
  'step_seconds': 'A step', 'input_wait_seconds': 'Waiting for input',
  'tflops': 'Arithmetic', 'mfu': 'Share of the peak (MFU)',
  'flops_per_image': 'FLOPs a picture',
}  # fmt: skip
_UNITS = {'tflops': 'TFLOP/s'}


def fact(key, value) -> tuple:
  """Returns (name, text) of an entry of run.json; the key tells the unit.

  Args:
    key: such as `peak_memory_bytes`.
    value: number, text or truth value.
  """
  name = _NAMES.get(key, key.replace('_', ' ').capitalize())
  if isinstance(value, bool):
    return name, 'yes' if value else 'no'
  if not isinstance(value, (int, float)):
    return name, str(value)
  if not math.isfinite(value):
    return name, ''
  if key.endswith('_bytes'):
    return name, f'{value / 2**30:.2f} GiB'
  if key.endswith('_per_second'):
    what = key.removesuffix('_per_second').replace('_', ' ')
    return name, f'{value:,.0f} {what}/s'
  if key.endswith('seconds'):
    return name, duration(value)
  if key in ('mfu', *_UNITS):
    text = f'{100 * value:.1f} %' if key == 'mfu' else f'{value:.3g}'
    return name, f'{text} {_UNITS.get(key, "")}'.rstrip()
  return name, f'{value:,}' if isinstance(value, int) else f'{value:.4g}'


def cost_facts(run) -> list:
  """Returns (name, text) pairs of what the run cost: all that run.json says."""
  info = dict(run.info)
  info.pop('finished', None)
  pairs = [('Backbone', run.config.get('model', {}).get('backbone', ''))]
  # What everyone asks for first, then the rest as it comes.
  first = ('num_parameters', 'seconds', 'images_per_second')
  keys = [key for key in first if key in info]
  keys += [key for key in info if key not in (*first, 'device')]
  for key in keys:
    if isinstance(info[key], dict):
      for inner, value in info[key].items():
        name, text = fact(key if _is_number(value) else inner, value)
        pairs.append((f'{name}: {inner.replace("_", " ")}', text))
    elif info[key] is not None and not isinstance(info[key], list):
      pairs.append(fact(key, info[key]))
  return [*pairs, ('Device', info.get('device', ''))]


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def cost(run):
  """Returns time, speed, size and device; names what older runs lack."""
  lacking = [
    what
    for what, there in (
      ('age intervals and a temperature of gender (calibration.json)',
       run.details.intervals),
      ('largest errors and contradicted labels (faces.npz)',
       run.worst or run.contradictory),
      ('saliency (saliency.npz)', run.saliency),
      ('layers (layers.json)', run.layers),
    )
    if not there
  ]  # fmt: skip
  text = f'Not kept of this run, so not shown: {", ".join(lacking)}.'
  return blocks.section(
    'run', 'Run', blocks.facts(cost_facts(run)),
    blocks.note(text) if lacking and run.scores else None,
  )  # fmt: skip


def commands(run) -> str:
  """Returns how to train and score a run again, its workdir as it was given."""
  name = str(run.workdir)
  # config.py makes a recipe of a workdir, with all that flags overrode.
  recipe = shlex.quote(f'agegender_jax/config.py:{name}')
  again, name = shlex.quote(f'{name}_again'), shlex.quote(name)
  return (
    f'python -m agegender_jax.main --config={recipe} \\\n'
    f'  --workdir={again}\n'
    f'python -m agegender_jax.main --mode=evaluate --workdir={name}'
  )


def reproduce(run):
  """Returns the commands, the configuration and the versions."""
  versions = ' '.join(f'{key}=={run.versions[key]}' for key in run.versions)
  said = (
    'The first trains the configuration below anew, the second scores the '
    "checkpoint again; both from the package's repository, where this report "
    'was asked for.'
  )
  return blocks.section(
    'reproduce', 'How to reproduce', blocks.code(commands(run)),
    blocks.note(said),
    blocks.code(json.dumps(run.config, indent=2), 'Resolved configuration'),
    blocks.code(versions, 'Library versions') if versions else None,
    blocks.link('Model card: data, intended use, limits, licence',
                run.model_card) if run.model_card else None,
  )  # fmt: skip
