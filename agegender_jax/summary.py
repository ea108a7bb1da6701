"""What a run saw and cost, for data.json, run.json and the console."""

import json
import pathlib

import jax
import numpy as np

from agegender_jax import files, metrics, partition, schema, writer


def write_json(workdir: str, name: str, content: dict) -> None:
  """Writes a JSON file into the workdir."""
  path = pathlib.Path(workdir) / name
  files.write_whole(path, json.dumps(content, indent=2) + '\n')


def summarise_labels(labels) -> dict:
  """Counts a split's labels for data.json."""
  ages, counts = np.unique(labels['age'], return_counts=True)
  gender = labels['gender']
  return {
    'num_examples': len(gender),
    'age_counts': {
      f'{age:g}': int(count) for age, count in zip(ages, counts, strict=True)
    },
    'gender_counts': {
      name: int((gender == code).sum())
      for code, name in enumerate(schema.GENDERS)
    }
    | {'unknown': int((gender == schema.UNKNOWN).sum())},
  }


def fingerprint(workdir: str) -> str | None:
  """Returns the fingerprint of the data that a run trained on."""
  path = pathlib.Path(workdir) / 'data.json'
  return (
    json.loads(path.read_text()).get('fingerprint') if path.exists() else None
  )


def check_same_data(workdir: str, source) -> None:
  """Raises schema.UserError if a resumed run would train on other data."""
  before = fingerprint(workdir)
  if before != source.fingerprint:
    raise schema.UserError(
      f'the data have changed since the run in "{workdir}" began '
      f'(fingerprint {before}, now {source.fingerprint}): bring them back or '
      'choose another --workdir'
    )


def write_data_summary(config, workdir: str, splits: dict) -> None:
  """Writes data.json: what the run saw, and the trivial predictor's scores.

  Args:
    config: the run's configuration.
    workdir: output folder.
    splits: `train`, `validation`, `test` -> source.
  """
  train, test = splits['train'], splits['test']
  names = {key: config.data[f'{key}_split'] for key in splits}
  write_json(workdir, 'data.json', {
    'name': config.data.name,
    'splits': {
      names[key]: summarise_labels(source.labels)
      for key, source in splits.items()
    },
    'roles': names,
    'trivial': metrics.trivial_scores(train.labels, test.labels),
    'preparation': train.preparation,
    'licence': train.licence,
    'fingerprint': train.fingerprint,
  })  # fmt: skip


def print_overview(params, is_frozen) -> None:
  """Prints the parameters of each block, trained and frozen."""
  rows, total = [], [0, 0]
  for name, block in params.items():
    counts = [
      sum(leaf.size for leaf in part.values())
      for part in partition.split({name: block}, is_frozen)
    ]
    rows.append((name, *counts))
    total = [sum(pair) for pair in zip(total, counts, strict=True)]
  print(f'{"parameters":16}{"trained":>12}{"frozen":>12}')
  for name, trained, frozen in [*rows, ('total', *total)]:
    print(f'{name:16}{trained:12,}{frozen:12,}')


def run_summary(workdir: str, batch_size: int, num_parameters: int) -> dict:
  """Computes run.json from the records, so that resumed runs count whole.

  Args:
    workdir: output folder.
    batch_size: of training.
    num_parameters: of the network.

  Returns:
    Steps, seconds (with and without evaluations), images/s, device.
  """
  seconds, evaluation, last = 0.0, 0.0, 0
  for row in writer.read_metrics(workdir):
    images = (row['step'] - last) * batch_size
    seconds += images / row['train/images_per_second']
    evaluation += row.get('validation/seconds', 0.0)
    last = row['step']
  return {
    'finished': True,
    'steps': last,
    'seconds': round(seconds + evaluation, 1),
    'train_seconds': round(seconds, 1),
    'images_per_second': round(last * batch_size / seconds, 1),
    'num_parameters': num_parameters,
    'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
  }
