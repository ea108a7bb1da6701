"""What a model card says of one run, as texts: scores, model, data.

Each fact is a pair (name, text); '' where the workdir's files lack it.
"""

import math

from agegender_jax.report import blocks, measures, network, record, stored

NOT_MEASURED = 'not measured'


def count(value) -> str:
  """Returns a whole number with separators, '' of anything else."""
  return f'{value:,}' if isinstance(value, int) else ''


def number(value, key) -> str:
  """Returns a score with its unit, which `key` tells."""
  if value is None or not math.isfinite(value):
    return NOT_MEASURED
  unit = measures.unit(key)
  signed = key == 'age_bias'
  return f'{blocks.number(value, unit, signed)} {unit}'.rstrip()


def estimate(found, key) -> str:
  """Returns a details.estimate, with its interval as far as it is known."""
  text = number(found['value'], key)
  ends = blocks.interval(found['low'], found['high'], measures.unit(key))
  return f'{text} [{ends}]' if ends and text != NOT_MEASURED else text


def score(run, key) -> str:
  """Returns a score of scores.json with its interval."""
  ends = {'low': run.scores.get(f'{key}_low'),
          'high': run.scores.get(f'{key}_high')}  # fmt: skip
  return estimate({'value': run.scores.get(key), **ends}, key)


def _block(run, name) -> dict:
  return run.config.get(name) or {}


def kinds(run) -> dict:
  """Returns the kind of each task that the network has."""
  tasks = _block(run, 'tasks').items()
  return {name: task['kind'] for name, task in tasks if task.get('kind')}


def model(run) -> list:
  """Returns what the network is and how it was trained."""
  net, data = _block(run, 'model'), _block(run, 'data')
  backbone = f'`{net.get("backbone")}`'
  if net.get('backbone') == 'cnn':
    backbone += f' of layers `{net.get("layers")}`'
  branch = net.get('branch') or 'an output layer only'
  size = data.get('crop_size') or data.get('image_size')
  parameters = sum(layer['parameters'] for layer in run.layers)
  flops = sum(layer['flops'] for layer in run.layers)
  return [
    ('Answers', ', '.join(f'{k} (`{v}`)' for k, v in kinds(run).items())),
    ('Network', f"backbone {backbone}; each task's branch: `{branch}`"),
    ('Input', f'one face, RGB, {size} x {size} pixels, cropped and aligned as '
     'the training data are' if size else ''),
    ('Parameters', count(run.info.get('num_parameters') or parameters or '')),
    ('FLOPs a picture, forward', network.count_text(flops) if flops else ''),
    ('First weights', _first_weights(run)),
    ('Not trained', _block(run, 'optimizer').get('freeze') or 'nothing'),
    ('Recipe', run.recipe),
    ('Seed of the run', run.config.get('seed', '')),
    ('Trained', _trained(run)),
    ('Versions', ', '.join(f'{k} {v}' for k, v in run.versions.items())),
    ('Licence of the weights', licence(run)),
  ]  # fmt: skip


def _first_weights(run) -> str:
  """Returns where the first weights came from, with revision and SHA-256."""
  origin = stored.read_json(run.workdir / 'init.json')
  said = [f'{k} {v}' for k, v in origin.items() if v and k != 'path']
  return ', '.join(said) or _block(run, 'model').get('init_from') or 'random'


def _trained(run) -> str:
  """Returns steps, time and device."""
  steps, seconds = run.info.get('steps'), run.info.get('seconds')
  said = [f'{steps:,} steps'] if steps else []
  said += [record.duration(seconds)] if seconds else []
  said += [run.info['device']] if 'device' in run.info else []
  return ', '.join(said)


def licence(run) -> str:
  """Returns the terms that the weights are under."""
  terms = run.data.get('licence') or 'not stated in the files of this run'
  text = f'bound by that of the training data, {run.data_name}: {terms}'
  if _block(run, 'model').get('init_from'):
    origin = stored.read_json(run.workdir / 'init.json')
    of = f'{origin["name"]}: ' if origin.get('name') else ''
    text += '; and by that of the first weights'
    if origin.get('licence'):
      text += f', trained on {of}{origin["licence"]}'
  return text


def selection(run) -> str:
  """Returns the rule by which a step was chosen."""
  train = _block(run, 'train')
  best = train.get('best_metric') or ('age MAE, else age group, else gender accuracy')
  return {
    'last': 'the last one; nothing is selected',
    'best': f'the best on validation ({best}); test is scored once',
  }.get(train.get('select'), '')


def _split(run, role) -> tuple:
  """Returns name and summary of the split that has a role in the run."""
  name = run.data.get('roles', {}).get(role)
  name = name or _block(run, 'data').get(f'{role}_split', '')
  return name, run.data.get('splits', {}).get(name, {})


def evaluation(run) -> list:
  """Returns what was scored, and the scores without near-duplicates."""
  return [
    ('Data', run.data_name),
    ('Split', run.test_split),
    ('Pictures', count(run.scores.get('num_examples'))),
    ('Step scored', count(run.scores.get('step'))),
    ('Pictures with a near-duplicate in train',
     count(run.scores.get('num_twins'))),
    *((measures.name(key), score(run, key))
      for key in measures.listed(run.scores)
      if key.endswith('_without_twins')),
  ]  # fmt: skip


def training(run) -> list:
  """Returns what the network was trained on."""
  name, split = _split(run, 'train')
  checked, its = _split(run, 'validation')
  genders = split.get('gender_counts', {}).items()
  counted = run.data.get('preparation', {}).items()
  return [
    ('Data', run.data_name),
    ('Split', name),
    ('Pictures', count(split.get('num_examples'))),
    ('Genders', ', '.join(f'{key} {value:,}' for key, value in genders)),
    ('Validation split', f'{checked} ({count(its.get("num_examples"))})'
     if its else checked),
    ('Counted when they were prepared', ', '.join(
      f'{key.replace("_", " ")} {value:,}'
      for key, value in counted if isinstance(value, int))),
    ('Fingerprint', run.data.get('fingerprint', '')),
    ('Licence of the data', run.data.get('licence') or ''),
  ]  # fmt: skip


def gender(run) -> list:
  """Returns how well the probabilities of gender are calibrated."""
  temperature = (run.calibration.get('gender') or {}).get('temperature')
  return [
    ('Temperature of gender', f'{temperature:.3g}' if temperature else ''),
    *(
      (measures.name(key), score(run, key))
      for key in ('gender_ece', 'gender_brier', 'gender_nll')
    ),
  ]
