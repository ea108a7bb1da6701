"""What a run saw and cost, for data.json, run.json and the console."""

import json
import pathlib
import sys

import jax
import numpy as np

from agegender_jax import files, flops, partition, schema, scoring, writer


def write_json(workdir: str, name: str, content) -> None:
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
    'trivial': scoring.trivial_scores(train.labels, test.labels),
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


def write_layers(workdir: str, network) -> None:
  """Writes layers.json, see flops.layer_table.

  Args:
    workdir: output folder.
    network: see predictor.
  """
  rows = flops.layer_table(network.model, network.input_size, network.is_frozen)
  write_json(workdir, 'layers.json', rows)


def run_summary(workdir: str, batch_size: int, num_parameters: int) -> dict:
  """Computes run.json from the records, so that resumed runs count whole.

  Args:
    workdir: output folder.
    batch_size: of training.
    num_parameters: of the network.

  Returns:
    Steps, seconds (with and without evaluations), images/s, device, memory
    and, where layers.json is there, what `_speed` says.
  """
  seconds, evaluation, last = 0.0, 0.0, 0
  for row in writer.read_metrics(workdir):
    images = (row['step'] - last) * batch_size
    seconds += images / row['train/images_per_second']
    evaluation += row.get('validation/seconds', 0.0)
    last = row['step']
  images_per_second = last * batch_size / seconds
  return {
    'finished': True,
    'steps': last,
    'seconds': round(seconds + evaluation, 1),
    'train_seconds': round(seconds, 1),
    'images_per_second': round(images_per_second, 1),
    'num_parameters': num_parameters,
    'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    **_peak_memory(),
    **_speed(workdir, images_per_second),
  }


def _peak_memory() -> dict:
  """Returns the largest memory of this process, and of one device if known.

  Of a resumed run it is that of its last part.
  """
  result = {}
  if sys.platform != 'win32':
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes.
    unit = 1 if sys.platform == 'darwin' else 1024
    result['peak_memory_bytes'] = peak * unit
  statistics = jax.local_devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in statistics:
    result['peak_device_memory_bytes'] = statistics['peak_bytes_in_use']
  return result


def _speed(workdir: str, images_per_second: float) -> dict:
  """Sets the run's arithmetic beside what the machine can do.

  Returns:
    `flops_per_image` (`forward`, `training`); `tflops`, in TFLOP/s, of the
    `training` and of a large `matrix_product` just now; their ratio `mfu`
    (Chowdhery et al. 2022, with this peak instead of the vendor's).
  """
  path = pathlib.Path(workdir) / 'layers.json'
  if not path.exists():
    return {}
  rows = json.loads(path.read_text())
  forward, training = (
    sum(row[key] for row in rows) for key in ('flops', 'train_flops')
  )
  result = {'flops_per_image': {'forward': forward, 'training': training}}
  tflops = result['tflops'] = {'training': training * images_per_second / 1e12}
  try:
    tflops['matrix_product'] = flops.matmul_peak() / 1e12
  except RuntimeError as error:
    # Such as a device without room for it: a measurement ends no run.
    print(f'the speed of a matrix product is not measured: {error}')
  else:
    # Above 1, the machine is busier now than it was: that says nothing.
    ratio = tflops['training'] / tflops['matrix_product']
    result |= {'mfu': round(ratio, 4)} if ratio <= 1 else {}
  result['tflops'] = {k: float(f'{v:.4g}') for k, v in tflops.items()}
  return result
