"""The sections on what went into a run: data, network, cost, configuration."""

import json
import math
import re
import shlex

import numpy as np

from agegender_jax import schema
from agegender_jax.report import blocks, plots

_GENDERS = (*schema.GENDERS, 'unknown')
_MOST_LAYERS = 24  # More layers are summed up by block.


def used_splits(run) -> dict[str, dict]:
  """Returns data.json's entry of each split that the run used."""
  splits = run.data.get('splits', {})
  roles = ('train', 'validation', 'test')
  used = [run.config['data'].get(f'{role}_split') for role in roles]
  # A dict: a split used twice is shown once.
  return {name: splits[name] for name in used if name in splits} or splits


def _histograms(run):
  """Returns figures of the ages per split and per gender, and of the genders."""
  by_split, by_gender, genders = {}, {}, {}
  for name, split in used_splits(run).items():
    counts = np.array(list(split.get('age_counts', {}).items()), np.float64)
    years, numbers = counts.reshape(-1, 2).T
    by_split[name] = years[years >= 0], numbers[years >= 0]
    genders[name] = [split.get('gender_counts', {}).get(key, 0) for key in _GENDERS]
  for code, name in enumerate(schema.GENDERS if run.predictions else ()):
    years = run.predictions['age'][run.predictions['gender'] == code]
    years = years[np.isfinite(years)]
    by_gender[name] = years, np.ones(len(years))
  titles = 'Ages per split', f'Ages per gender in {run.test_split}'
  found = []
  for title, ages in zip(titles, (by_split, by_gender), strict=True):
    known = {name: pair for name, pair in ages.items() if len(pair[0])}
    found += [plots.ages(title, known)] if known else []
  if any(sum(counts[:2]) for counts in genders.values()):
    found.append(plots.shares('Genders per split', genders, _GENDERS))
  return found


def data(run) -> dict:
  """Returns what the data are and what preparing them found."""
  rows = []
  for name, split in used_splits(run).items():
    genders = split.get('gender_counts', {})
    counts = [split.get('num_examples', 0), *(genders.get(key, 0) for key in _GENDERS)]
    rows.append([name, *counts, split.get('age_counts', {}).get('-1', 0)])
  header = ['Split', 'Images', 'Male', 'Female', 'Gender unknown', 'Age unknown']
  counted = blocks.facts(_flatten(run.data.get('preparation', {})))
  text = 'Counted when the data were prepared:' if counted else ''
  if not counted and 'preparation' in run.data:
    text = 'Preparing the data repaired and skipped nothing.'
  return blocks.section(
    'data',
    'Data',
    _histograms(run),
    blocks.table('Splits of this run', header, rows),
    text,
    counted,
    f'Licence of the data: {run.data.get("licence") or "not stated"}.',
  )


def _flatten(tree, prefix=''):
  for key, value in tree.items():
    name = f'{prefix}{str(key).replace("_", " ")}'
    if isinstance(value, dict):
      yield from _flatten(value, f'{name}: ')
    elif isinstance(value, list):
      rest = f' and {len(value) - 5} more' if len(value) > 5 else ''
      yield name, ', '.join(map(str, value[:5])) + rest
    else:
      yield name, f'{value:,}' if isinstance(value, int) else str(value)


def count_text(value: float) -> str:
  """Formats a large number as `1.23 G`."""
  for size, letter in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if value >= size:
      return f'{value / size:.3g} {letter}'
  return f'{value:.0f}'


def block_of(name: str) -> str:
  """Returns the block of a layer: its stage in the backbone, or its branch.

  Such as `backbone/layer1` of `backbone/layer1_0/conv1`, and `branch_age` of
  `branch_age/dense1`.
  """
  part, *inside = re.split(r'[/.]', name)
  if not inside:
    return part
  stage = re.sub(r'_\d+$', '', inside[0])
  return f'{part}/{stage}' if len(inside) > 1 or stage != inside[0] else part


def _by_block(layers):
  """Sums layers up by block, in the order of the forward pass."""
  found: dict[str, list] = {}
  for layer in layers:
    found.setdefault(block_of(layer['name']), []).append(layer)
  result = []
  for name, inside in found.items():
    count = sum(layer['parameters'] > 0 for layer in inside) or len(inside)
    sums = {key: sum(layer[key] for layer in inside) for key in ('parameters', 'flops')}
    kind = f'{count} layer{"s" * (count > 1)}'
    result.append({'name': name, 'kind': kind, 'output': inside[-1]['output'], **sums})
  return result


def _layer_table(layers, caption=''):
  total = {key: sum(layer[key] for layer in layers) for key in ('parameters', 'flops')}
  texts = {'parameters': '{:,}'.format, 'flops': count_text}
  rows = []
  for place, layer in enumerate(layers):
    cells = [blocks.cell(layer['name'], place), layer['kind']]
    shape = ' \N{MULTIPLICATION SIGN} '.join(map(str, layer['output']))
    cells.append(blocks.cell(shape, next(iter(layer['output']), 0)))
    for key, text in texts.items():
      share = f'{100 * layer[key] / total[key]:.1f} %' if layer[key] else ''
      cells.append(blocks.cell(text(layer[key]), layer[key], share))
    rows.append(cells)
  sums = [blocks.cell(text(total[key]), total[key]) for key, text in texts.items()]
  header = ['Layer', 'Kind', 'Output', 'Parameters', 'FLOPs']
  return blocks.table(caption, header, rows, ['total', '', blocks.cell('', 0), *sums])


def network(run) -> dict:
  """Returns the layers of the network, summed up by block where it is deep."""
  if not run.layers:
    return {}
  text = (
    'Per image, forward; a multiplication and an addition are two FLOPs; convolutions '
    'and dense layers count.'
  )
  parts = [_layer_table(run.layers)]
  if len(run.layers) > _MOST_LAYERS:
    parts.insert(0, _layer_table(_by_block(run.layers), 'By block'))
    parts[1] = blocks.fold(f'All {len(run.layers)} layers', parts[1])
  return blocks.section('network', 'Network', *parts, text)


def duration(seconds: float) -> str:
  """Formats seconds as `2 h 05 min`, `4 min 10 s`, `41 s` or `12.5 ms`."""
  if seconds < 1:
    return f'{1000 * seconds:.3g} ms'
  if seconds < 10:
    return f'{seconds:.2g} s'
  minutes, seconds = divmod(round(seconds), 60)
  if minutes >= 60:
    return f'{minutes // 60} h {minutes % 60:02d} min'
  return f'{minutes} min {seconds} s' if minutes else f'{seconds} s'


_NAMES = {
  'num_parameters': 'Parameters', 'seconds': 'Time',
  'train_seconds': 'Time of training alone', 'compile_seconds': 'Compiling',
  'images_per_second': 'Training speed', 'peak_memory_bytes': 'Peak memory',
  'step_seconds': 'Time per step', 'input_wait_seconds': 'Waiting for input per step',
  'tflops': 'Arithmetic (TFLOP/s)', 'mfu': 'Model FLOPs utilization (MFU)',
  'flops_per_image': 'FLOPs per image',
}  # fmt: skip


def fact(key: str, value) -> tuple[str, str]:
  """Returns (name, text) of an entry of run.json; the key implies the unit.

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
  if key == 'mfu':
    return name, f'{100 * value:.1f} %'
  return name, f'{value:,}' if isinstance(value, int) else f'{value:.4g}'


def cost(run) -> dict:
  """Returns time, speed, size and device: what run.json has."""
  network = run.config.get('model', {}).get('backbone', '')
  pairs = [] if run.predictions_file else [('Backbone', network)]
  for key, value in run.info.items():
    if isinstance(value, dict):
      for inner, number in value.items():
        name, text = fact(key, number)
        pairs.append((f'{name}: {inner.replace("_", " ")}', text))
    elif key != 'finished' and value is not None and not isinstance(value, list):
      pairs.append(fact(key, value))
  return blocks.section('run', 'Run', blocks.facts(pairs))


def licence(run) -> str:
  """Returns the terms that the weights are under."""
  terms = run.data.get('licence') or 'not stated in the files of this run'
  text = f'bound by that of the training data, {run.data_name}: {terms}'
  if (run.config.get('model') or {}).get('init_from'):
    text += '; and by that of the first weights'
    if run.init.get('licence'):
      of = f'{run.init["name"]}: ' if run.init.get('name') else ''
      text += f', trained on {of}{run.init["licence"]}'
  return text


def limits(run) -> dict:
  """Returns the limits of the network and the licence of its weights."""
  text = (
    'Predictions are guesses from appearance: age is apparent age, gender is the '
    'binary label of the data. Scores hold for images of the same source and crop; '
    'expect worse ones elsewhere. Do not use the network to decide about people, to '
    'prove an age or to identify anybody.'
  )
  terms = f'Licence of the weights: {licence(run)}.'
  return blocks.section('limits', 'Limits and licence', text, terms)


def commands(run) -> str:
  """Returns the commands that train and score a run again."""
  name = str(run.workdir)
  # config.py makes a recipe of a workdir, with all that flags overrode.
  recipe = shlex.quote(f'agegender_jax/config.py:{name}')
  again, name = shlex.quote(f'{name}_again'), shlex.quote(name)
  return (
    f'python -m agegender_jax.main --config={recipe} \\\n'
    f'  --workdir={again}\n'
    f'python -m agegender_jax.main --mode=evaluate --workdir={name}'
  )


def reproduce(run) -> dict:
  """Returns the commands, the configuration and the versions."""
  versions = ' '.join(f'{key}=={value}' for key, value in run.versions.items())
  text = (
    'The first command trains the configuration below again, the second scores the '
    'checkpoint again. Run both in the folder of the package.'
  )
  card = {'text': 'Model card: data, intended use, limits, licence'}
  return blocks.section(
    'reproduce',
    'How to reproduce',
    blocks.code(commands(run)),
    text,
    blocks.code(json.dumps(run.config, indent=2), 'Resolved configuration'),
    blocks.code(versions, 'Library versions') if versions else None,
    {'kind': 'link', 'target': run.model_card} | card if run.model_card else None,
  )
