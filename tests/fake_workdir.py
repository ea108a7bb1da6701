"""Writes the files of a workdir without training: what the report reads."""

import csv
import json
import pathlib

import fake_parts
import numpy as np

from agegender_jax import config as config_lib
from agegender_jax import schema

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


def create(folder, seed=0, error=8.0, count=1000, years=True, gender=True):
  """Writes a finished run's workdir.

  Args:
    folder: where to.
    seed: of labels (fixed) and errors (this one).
    error: standard deviation of the predicted years.
    count: number of test images.
    years: whether ages in years are there, else only groups.
    gender: whether genders are there.

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
      schema.group_of_interval(age[i : i + 1], age[i : i + 1], 'adience')[0],
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
  log = fake_parts.logs(noise, mae, right, years, gender)
  (folder / 'metrics.jsonl').write_text(log, 'utf-8')
  scores = fake_parts.scores(count, mae, right, years, gender)
  write_json(folder / 'scores.json', scores)
  write_json(folder / 'data.json', fake_parts.data(labels))
  write_json(folder / 'run.json', {
    'seconds': 2712.4, 'images_per_second': 88.1, 'num_parameters': 4372930,
    'device': 'cpu', 'finished': True, 'peak_memory_bytes': 3 * 2**30,
    'step_seconds': {'median': 0.227, 'longest': 0.9}, 'mfu': 0.412,
  })  # fmt: skip
  images = np.stack([fake_parts.face(labels) for _ in range(24)])
  arrays = {'images': images[:20], 'row': np.arange(20) * 7 % count}  # As in a run.
  table = {'age': age, 'age_pred': predicted, 'gender': sex, 'gender_prob': female}
  arrays |= fake_parts.chosen_faces(table, images)
  write_extras(folder, images, years, gender)
  details = fake_parts.details(table, years, gender)
  write_json(folder / 'details.json', details)
  np.savez(folder / 'faces.npz', **arrays)
  return folder


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
  write_json(folder / 'calibration.json', fake_parts.FITTED)
  (folder / 'model_card.md').write_text('# A model\n', 'utf-8')
  other = folder / 'eval' / 'adience_test_11000'
  other.mkdir(parents=True)
  write_json(other / 'scores.json', {
    'data': 'adience', 'split': 'test', 'num_examples': 3300, 'step': 11000,
    'age_group_accuracy': 0.412, 'age_group_accuracy_low': 0.395,
    'age_group_accuracy_high': 0.43,
  })  # fmt: skip
