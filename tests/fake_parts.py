"""What fake_workdir writes: the contents of the files of a fake run."""

import json

import numpy as np
from PIL import Image, ImageDraw

from agegender_jax import schema, scoring

FITTED = {
  'step': 11000, 'split': 'validation', 'num_examples': 529,
  'gender': {'temperature': 1.31},
}  # fmt: skip


def chosen_faces(table, images):
  """Returns the 20 largest errors and the 20 surest mistakes."""
  error = np.abs(table['age_pred'] - table['age'])
  wrong = (table['gender_prob'] > 0.5) != table['gender']
  sure = np.where(wrong, np.abs(table['gender_prob'] - 0.5), -1)
  found = {'worst': np.argsort(-error)[:20], 'contradictory': np.argsort(-sure)}
  result = {}
  for name, rows in found.items():
    result |= {f'{name}_images': images[:20], f'{name}_row': rows[:20]}
  return result


def details(table, years, gender):
  """Returns details.json; table: columns age, age_pred, gender, gender_prob."""
  count = len(table['age'])
  table = table | {
    'age_group': schema.group_of_interval(table['age'], table['age'], 'adience'),
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
    bins['calibrated'] = [row | {'mean_prob': row['share']} for row in bins['raw']]
    found['calibration']['gender_scores'] = {
      'raw': {'gender_ece': 0.043, 'gender_brier': 0.11, 'gender_nll': 0.31},
      'calibrated': {'gender_ece': 0.0, 'gender_brier': 0.1, 'gender_nll': 0.3},
    }
  found['calibration']['fitted'] = FITTED
  return found


def logs(noise, mae, right, years, gender):
  """Returns metrics.jsonl."""
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
  return '\n'.join(lines) + '\n'


def scores(count, mae, right, years, gender):
  """Returns scores.json."""
  result = {'split': 'seed5k_test', 'num_examples': count, 'step': 11000}
  values = {'age_group_accuracy': (0.46, 0.03),
            'age_group_one_off': (0.85, 0.02)}  # fmt: skip
  if years:
    values |= {'age_mae': (mae, 0.4), 'age_cs5': (0.43, 0.03)}
    result['age_bias'] = 0.61
  if gender:
    values |= {'gender_accuracy': (right, 0.02),
               'gender_balanced_accuracy': (right - 0.004, 0.02)}  # fmt: skip
  for key, (value, half) in values.items():
    result |= {key: value, f'{key}_low': value - half,
               f'{key}_high': value + half}  # fmt: skip
  return result


def data(labels):
  """Returns data.json."""
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
  return {
    'name': 'utkface', 'splits': splits,
    'majority': {'age_mae': 15.3, 'age_cs5': 0.262, 'age_group_accuracy': 0.304,
                'age_group_one_off': 0.655, 'gender_accuracy': 0.523,
                'gender_balanced_accuracy': 0.5},
    'preparation': {'contradicting_labels': 12, 'malformed_name': 3},
    'licence': 'UTKFace: non-commercial research only',
  }  # fmt: skip


def face(labels):
  """Draws an image that can be told from its neighbours; uint8 [64, 64, 3]."""
  colors = [tuple(int(c) for c in labels.integers(40, 235, 3))
            for _ in range(3)]  # fmt: skip
  image = Image.new('RGB', (64, 64), colors[0])
  draw = ImageDraw.Draw(image)
  draw.ellipse((12, 6, 52, 62), fill=colors[1])
  for left in (22, 36):
    draw.ellipse((left, 26, left + 6, 31), fill=colors[2])
  draw.arc((24, 36, 40, 50), 20, 160, fill=colors[2], width=2)
  return np.asarray(image)
