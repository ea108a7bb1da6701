"""Writes the files of a workdir without training: what the report reads."""

import csv
import json
import pathlib

import numpy as np
from PIL import Image, ImageDraw

from agegender_jax import config as config_lib
from agegender_jax import schema, scoring

COLUMNS = (
  'name', 'age', 'age_pred', 'age_low', 'age_high', 'age_group',
  'age_group_pred', 'gender', 'gender_prob', 'race',
)  # fmt: skip


def write_json(path, value):
  pathlib.Path(path).write_text(json.dumps(value), 'utf-8')


def write_rows(path, rows):
  """Writes predictions.csv; rows: dicts, absent columns stay empty."""
  with pathlib.Path(path).open('w', newline='', encoding='utf-8') as file:
    writer = csv.DictWriter(file, COLUMNS, restval='')
    writer.writeheader()
    writer.writerows(rows)


def config(**data) -> dict:
  """Returns the default configuration with some fields of `data` set."""
  return config_lib.default_config().to_dict() | {
    'data': config_lib.default_config().data.to_dict() | data
  }


def create_minimal(folder, rows=None, **data):
  """Writes config.json, with fields of `data` set, and rows if there are any.

  Returns:
    The folder.
  """
  folder.mkdir(exist_ok=True)
  write_json(folder / 'config.json', {'config': config(**data), 'versions': {}})
  if rows is not None:
    write_rows(folder / 'predictions.csv', rows)
  return folder


def create(
  folder, seed=0, error=8.0, count=1000, years=True, gender=True, old=False
):
  """Writes a finished run's workdir.

  Args:
    folder: where to.
    seed: of labels (fixed) and errors (this one).
    error: standard deviation of the predicted years.
    count: number of test pictures.
    years: whether ages in years are there, else only groups.
    gender: whether genders are there.
    old: leave out all files but those that the first version wrote.

  Returns:
    The folder.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True)
  labels, noise = np.random.default_rng(7), np.random.default_rng(seed)
  age = np.clip(labels.gamma(3.2, 10.5, count), 1, 100).round()
  sex = labels.integers(0, 2, count)
  predicted = np.clip(age + noise.normal(0.6, error, count), 0, 110)
  sure = noise.beta(4, 1.2, count)
  female = np.where(sex == 1, sure, 1 - sure)
  rows = []
  for i in range(count):
    row = {'name': f'face_{i:05d}.jpg', 'race': i % 5}
    if years:
      row |= {'age': age[i], 'age_pred': f'{predicted[i]:.2f}'}
    groups = (
      schema.group_of_label(age[i : i + 1], 'adience')[0],
      schema.group_of_prediction(predicted[i : i + 1], 'adience')[0],
    )
    row['age_group'] = '' if groups[0] < 0 else groups[0]
    row['age_group_pred'] = groups[1]
    if gender:
      row |= {'gender': sex[i], 'gender_prob': f'{female[i]:.4f}'}
    rows.append(row)
  write_rows(folder / 'predictions.csv', rows)
  write_json(folder / 'config.json', {
    'config': config(train_split='seed5k_trainval',
                     validation_split='validation', test_split='seed5k_test'),
    'versions': {'jax': '0.10.2', 'flax': '0.12.8'},
    'recipe': 'configs/utk_multibranch.py:runlocal',
  })  # fmt: skip
  mae = float(np.abs(predicted - age).mean())
  right = float(((female > 0.5) == sex).mean())
  _write_logs(folder, noise, mae, right, years, gender)
  _write_scores(folder, count, mae, right, years, gender)
  _write_data(folder, labels)
  write_json(folder / 'run.json', {
    'seconds': 2712.4, 'images_per_second': 88.1, 'num_parameters': 4372930,
    'device': 'cpu', 'finished': True, 'peak_memory_bytes': 3 * 2**30,
    'step_seconds': {'median': 0.227, 'longest': 0.9}, 'mfu': 0.412,
  })  # fmt: skip
  images = np.stack([_face(labels) for _ in range(24)])
  arrays = {'images': images, 'row': np.arange(24) * 7 % count}
  if not old:
    table = {'age': age, 'age_pred': predicted, 'gender': sex,
             'gender_prob': female}  # fmt: skip
    arrays |= _chosen_faces(table, images)
    write_extras(folder, images, years, gender)
    _write_details(folder, table, years, gender)
  np.savez(folder / 'faces.npz', **arrays)
  return folder


def _chosen_faces(table, images):
  """Returns the 20 largest errors and the 20 surest mistakes."""
  error = np.abs(table['age_pred'] - table['age'])
  wrong = (table['gender_prob'] > 0.5) != table['gender']
  sure = np.where(wrong, np.abs(table['gender_prob'] - 0.5), -1)
  found = {'worst': np.argsort(-error)[:20], 'contradictory': np.argsort(-sure)}
  result = {}
  for name, rows in found.items():
    result |= {f'{name}_images': images[:20], f'{name}_row': rows[:20]}
  return result


def write_extras(folder, images, years=True, gender=True):
  """Writes saliency.npz, layers.json, calibration.json, model_card.md, eval/.

  Args:
    folder: where to.
    images: uint8 [K, S, S, 3], K >= 4.
    years: whether ages are there.
    gender: whether genders are there.
  """
  y, x = np.mgrid[0:9, 0:9] / 8
  heat = np.exp(-8 * ((x - 0.4) ** 2 + (y - 0.3) ** 2)).astype(np.float16)
  tasks = {'age': years, 'gender': gender}
  np.savez(
    folder / 'saliency.npz', images=images[:4], row=np.arange(4),
    **{name: np.stack([heat] * 4) for name, there in tasks.items() if there},
  )  # fmt: skip
  layers = [
    ('backbone/conv1', 'Conv', [128, 128, 32], 896, 28311552),
    ('backbone/bn1', 'BatchNorm', [128, 128, 32], 64, 0),
    ('branch_age/dense1', 'Dense', [128], 4194432, 8388608),
    ('branch_age/logits', 'Dense', [1], 129, 256),
  ]
  keys = ('name', 'kind', 'output', 'parameters', 'flops')
  write_json(folder / 'layers.json', [
    dict(zip(keys, layer, strict=True)) for layer in layers
  ])  # fmt: skip
  write_json(folder / 'calibration.json', {
    'step': 11000, 'split': 'validation', 'num_examples': 529,
    'gender': {'temperature': 1.31},
  })  # fmt: skip
  (folder / 'model_card.md').write_text('# A model\n', 'utf-8')
  other = folder / 'eval' / 'adience_test_11000'
  other.mkdir(parents=True)
  write_json(other / 'scores.json', {
    'data': 'adience', 'split': 'test', 'num_examples': 3300, 'step': 11000,
    'age_group_accuracy': 0.412, 'age_group_accuracy_low': 0.395,
    'age_group_accuracy_high': 0.43,
  })  # fmt: skip


def _write_details(folder, table, years, gender):
  count = len(table['age'])
  table = table | {
    'age_group': schema.group_of_label(table['age'], 'adience'),
    'age_group_pred': schema.group_of_prediction(table['age_pred'], 'adience'),
  }
  if not years:
    table['age'] = np.full(count, schema.UNKNOWN)
    del table['age_pred']
  if not gender:
    table['gender'] = np.full(count, schema.UNKNOWN)
    del table['gender_prob']
  names = schema.age_group_names('adience')
  found = scoring.details(table, {'race': np.arange(count) % 5}, names, 100)
  found['calibration']['intervals'] = [
    {'level': level, 'column': column, 'group': group,
     'coverage': level + shift, 'low': level + shift - 0.03,
     'high': min(level + shift + 0.03, 1), 'width': 40 * level,
     'count': count // (1 + bool(column))}
    for level in (0.5, 0.8, 0.9)
    for column, group, shift in (
      ('', '', -0.01), ('gender', 'male', 0.02), ('gender', 'female', -0.05),
      ('age', '0-9', 0.0), ('age', '10-19', -0.02),
    )
    if years
  ]  # fmt: skip
  bins = found['calibration'].get('gender', {})
  if bins:
    bins['calibrated'] = [
      row | {'mean_prob': row['share']} for row in bins['raw']
    ]
    found['calibration']['gender_scores'] = {
      'raw': {'gender_ece': 0.043, 'gender_brier': 0.11, 'gender_nll': 0.31},
      'calibrated': {'gender_ece': 0.0, 'gender_brier': 0.1, 'gender_nll': 0.3},
    }
  write_json(folder / 'details.json', found)


def _write_logs(folder, noise, mae, right, years, gender):
  lines = []
  for step in range(50, 12001, 50):
    epoch = step / 200
    fade = np.exp(-epoch / 9)
    shake = noise.normal(0, 0.05, 4)
    row = {'step': step, 'epoch': epoch,
           'train/loss': 120 + 300 * fade + 40 * shake[0]}  # fmt: skip
    if years:
      row['train/age_mae'] = mae - 2 + 8 * fade + 4 * shake[1]
    if gender:
      row['train/gender_accuracy'] = right + 0.05 - 0.3 * fade + shake[2] / 3
    if step % 200 == 0:
      row['validation/loss'] = 180 + 240 * fade + 90 * shake[3]
      row['validation/age_group_accuracy'] = 0.5 - 0.3 * fade
      if years:
        row['validation/age_mae'] = mae + 7 * fade + 6 * shake[1]
      if gender:
        row['validation/gender_accuracy'] = right - 0.3 * fade + shake[2] / 2
    lines.append(json.dumps(row))
  (folder / 'metrics.jsonl').write_text('\n'.join(lines) + '\n', 'utf-8')


def _write_scores(folder, count, mae, right, years, gender):
  scores = {'split': 'seed5k_test', 'num_examples': count, 'step': 11000}
  values = {'age_group_accuracy': (0.46, 0.03),
            'age_group_one_off': (0.85, 0.02)}  # fmt: skip
  if years:
    values |= {'age_mae': (mae, 0.4), 'age_cs5': (0.43, 0.03)}
    scores['age_bias'] = 0.61
  if gender:
    values |= {'gender_accuracy': (right, 0.02),
               'gender_balanced_accuracy': (right - 0.004, 0.02)}  # fmt: skip
  for key, (value, half) in values.items():
    scores |= {key: value, f'{key}_low': value - half,
               f'{key}_high': value + half}  # fmt: skip
  write_json(folder / 'scores.json', scores)


def _write_data(folder, labels):
  splits = {}
  for name, size in (('seed5k_trainval', 3992), ('validation', 529),
                     ('seed5k_test', 1008)):  # fmt: skip
    ages = np.clip(labels.gamma(3.2, 10.5, size), 1, 110).astype(int)
    found, counts = np.unique(ages, return_counts=True)
    splits[name] = {
      'num_examples': size,
      'age_counts': {
        str(age): int(n) for age, n in zip(found, counts, strict=True)
      }
      | {'-1': 2},
      'gender_counts': {'male': size // 2, 'female': size - size // 2 - 3,
                        'unknown': 3},
    }  # fmt: skip
  write_json(folder / 'data.json', {
    'name': 'utkface', 'splits': splits,
    'trivial': {'age_mae': 15.3, 'age_cs5': 0.262, 'age_group_accuracy': 0.304,
                'age_group_one_off': 0.655, 'gender_accuracy': 0.523,
                'gender_balanced_accuracy': 0.5},
    'preparation': {'contradicting_labels': 12, 'malformed_name': 3},
    'licence': 'UTKFace: non-commercial research only',
  })  # fmt: skip


def _face(labels):
  """Draws a picture that can be told from its neighbours; uint8 [64, 64, 3]."""
  colors = [tuple(int(c) for c in labels.integers(40, 235, 3))
            for _ in range(3)]  # fmt: skip
  image = Image.new('RGB', (64, 64), colors[0])
  draw = ImageDraw.Draw(image)
  draw.ellipse((12, 6, 52, 62), fill=colors[1])
  for left in (22, 36):
    draw.ellipse((left, 26, left + 6, 31), fill=colors[2])
  draw.arc((24, 36, 40, 50), 20, 160, fill=colors[2], width=2)
  return np.asarray(image)
