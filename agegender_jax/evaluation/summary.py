"""What a run sees and costs: checked, for data.json, run.json and the console."""

import hashlib
import pathlib
import re

import jax
import numpy as np

from agegender_jax import config as config_lib
from agegender_jax import errors, files, schema, scoring
from agegender_jax.data import source as source_lib
from agegender_jax.evaluation import artifacts
from agegender_jax.models import flops, parameter_groups
from agegender_jax.runtime import hosts, process

# Fields in which the processes of a run may differ.
_OWN_FIELDS = (
  'data.source_dir', 'data.data_dir', 'data.num_workers', 'distributed.coordinator',
  'distributed.num_processes', 'distributed.process_id',
)  # fmt: skip


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
      name: int((gender == code).sum()) for code, name in enumerate(schema.GENDERS)
    }
    | {'unknown': int((gender == schema.UNKNOWN).sum())},
  }


def fingerprint(workdir: str) -> str | None:
  """Returns the fingerprint of the data that a run trained on."""
  path = pathlib.Path(workdir) / 'data.json'
  return files.read_json(path, {}).get('fingerprint')


def check_labels(config, run_tasks, splits, ranking) -> None:
  """Checks that training has what its tasks and its ranking need.

  Args:
    config: the run's configuration.
    run_tasks: its tasks.
    splits: `train` and `validation` -> source.
    ranking: see predictor.create_ranking.

  Raises:
    errors.UserError: a task that no label teaches or scores.
  """

  def has(key, label):
    return (splits[key].labels[label] != schema.UNKNOWN).any()

  for task in run_tasks:
    if not has('train', task.label):
      raise errors.UserError(
        f'no example of data.train_split = "{config.data.train_split}" has a '
        f'known {task.label}: leave the task out by '
        f'--config.tasks.{task.name}.kind='
      )
    found = splits['train'].labels[task.label]
    classes = np.unique(found[found != schema.UNKNOWN])
    if task.label != 'age' and len(classes) < 2 and not config.data.allow_unread_labels:
      raise errors.UserError(
        f'all known labels of {task.label} in data.train_split = '
        f'"{config.data.train_split}" are one class: check the coding, leave the '
        f'task out by --config.tasks.{task.name}.kind= or set '
        '--config.data.allow_unread_labels=True'
      )
  names = [name.removeprefix('validation/') for name, _ in ranking]
  if not any(has('validation', scoring.METRICS[name].label) for name in names):
    raise errors.UserError(
      f'data.validation_split = "{config.data.validation_split}" has no known '
      f'label for {" or ".join(names)}: choose another train.best_metric'
    )


def check_finished_data(config, workdir: str) -> None:
  """Checks that a finished run saw the data that `config.data` names.

  Moved data are the same by their fingerprint. Where it is not to be had, the
  place that the run itself was given is taken for the same, and a line says so.

  Args:
    config: what is asked for now.
    workdir: of the finished run.

  Raises:
    errors.UserError: the data are others, or lie elsewhere and cannot be
      compared.
  """
  places = [
    data.source_dir or data.data_dir
    for data in (config_lib.load_config(workdir).data, config.data)
  ]
  before = fingerprint(workdir)
  found, why = '', 'the run has recorded no fingerprint'
  if before:
    try:
      found = source_lib.find_fingerprint(config.data)
    except errors.UserError as error:
      why = str(error)
  if before and found:
    if found != before:
      raise errors.UserError(
        f'the run in "{workdir}" is finished, on other data (fingerprint '
        f'{before}, now {found}): name its own or choose another --workdir'
      )
  elif places[0] != places[1]:
    raise errors.UserError(
      f'the data of the finished run in "{workdir}" cannot be compared: {why}'
    )
  else:
    print(f'the data of "{workdir}" are not compared: {why}')


def check_same_data(workdir: str, source) -> None:
  """Raises errors.UserError if a resumed run would train on other data."""
  before = fingerprint(workdir)
  if before != source.fingerprint:
    raise errors.UserError(
      f'the data have changed since the run in "{workdir}" began '
      f'(fingerprint {before}, now {source.fingerprint}): bring them back or '
      'choose another --workdir'
    )


def check_processes(config, splits: dict, step: int | None = None) -> None:
  """Raises errors.UserError unless all processes of a run do the same.

  Args:
    config: the run's configuration.
    splits: name -> source.
    step: of the checkpoint that each has read.
  """
  values = config_lib.flatten(config) | {'jax': jax.__version__, 'step': step}
  values = {name: v for name, v in values.items() if name not in _OWN_FIELDS}
  for key, source in splits.items():
    names = hashlib.sha256('\n'.join(source.names).encode()).hexdigest()[:16]
    values |= {f'the {key} split': [source.fingerprint, len(source), names]}
  hosts.check_same(values)


def write_data_summary(config, workdir: str, splits: dict, roles=None) -> None:
  """Writes data.json: what the run saw, and the majority baseline's scores.

  Args:
    config: the run's configuration.
    workdir: output folder.
    splits: `train`, `validation`, `test` -> source; the second may be absent.
    roles: those of `splits` to list -> the split's name; None is all.
  """
  train, test = splits['train'], splits['test']
  roles = roles or {key: config.data[f'{key}_split'] for key in splits}
  content = {
    'name': config.data.name,
    'splits': {
      name: summarise_labels(splits[key].labels) for key, name in roles.items()
    },
    'roles': roles,
    'majority': scoring.majority_baseline(train.labels, test.labels),
    'preparation': train.preparation,
    'licence': train.licence,
    'fingerprint': train.fingerprint,
  }
  files.write_json(pathlib.Path(workdir, 'data.json'), content)


def print_overview(params, is_frozen) -> None:
  """Prints the parameters of each block, trained and frozen."""
  rows: dict[str, list[int]] = {}
  total = [0, 0]
  for path, leaf in parameter_groups.flatten(params).items():
    # `backbone/layer1` of backbone/layer1_0/conv1/kernel.
    names = path.split('/')[: 2 if path.startswith('backbone/') else 1]
    block = re.sub('_[0-9]+$', '', '/'.join(names))
    for counts in (rows.setdefault(block, [0, 0]), total):
      counts[is_frozen(path)] += leaf.size
  print(f'{"parameters":20}{"trained":>12}{"frozen":>12}')
  for name, (trained, frozen) in [*rows.items(), ('total', total)]:
    print(f'{name:20}{trained:12,}{frozen:12,}')


def write_layers(workdir: str, network) -> int:
  """Writes layers.json, see flops.layer_table.

  Args:
    workdir: output folder.
    network: see predictor.

  Returns:
    FLOPs of training on one image.
  """
  rows = flops.layer_table(network.model, network.input_size, network.is_frozen)
  files.write_json(pathlib.Path(workdir, 'layers.json'), rows)
  return sum(row['train_flops'] for row in rows)


def run_summary(workdir: str, config, num_parameters: int) -> dict:
  """Computes run.json from the records, so that resumed runs count whole.

  Args:
    workdir: output folder.
    config: of the run.
    num_parameters: of the network.

  Returns:
    Steps, seconds (of all; training only; compiling; a step's, and of it what
    it waited for its batch), images/s, device, memory and, where layers.json is
    there, what `_speed` says.
  """
  batch_size = config.train.batch_size
  seconds, waited, evaluation, compiling, last = 0.0, 0.0, 0.0, 0.0, 0
  for row in artifacts.read_metrics(workdir):
    images = (row['step'] - last) * batch_size
    seconds += images / row['train/images_per_second']
    wait = row.get('train/input_wait_seconds', 0.0)
    waited += wait * (row['step'] - last)
    evaluation += row.get('validation/seconds', 0.0)
    compiling += row.get('train/compile_seconds', 0.0)
    last = row['step']
  if not last:
    raise errors.UserError(
      f'{workdir}/metrics.jsonl has no record of this run: restore the file, or '
      'score the checkpoints by --mode=evaluate'
    )
  images_per_second = last * batch_size / seconds
  return {
    'finished': True,
    'steps': last,
    'seconds': round(seconds + evaluation + compiling, 1),
    'train_seconds': round(seconds, 1),
    'compile_seconds': round(compiling, 1),
    'images_per_second': round(images_per_second, 1),
    'step_seconds': float(f'{seconds / last:.4g}'),
    'input_wait_seconds': float(f'{waited / last:.4g}'),
    'num_parameters': num_parameters,
    'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    **_peak_memory(),
    **_speed(workdir, images_per_second, config.model.dtype),
  }


def _peak_memory() -> dict:
  """Returns the largest memory of this process, and of one device if known.

  Of a resumed run it is that of its last part.
  """
  device = jax.local_devices()[0].memory_stats() or {}
  result = {
    'peak_memory_bytes': process.peak_memory(),
    'peak_device_memory_bytes': device.get('peak_bytes_in_use'),
  }
  return {name: peak for name, peak in result.items() if peak is not None}


def print_speed(found: dict) -> None:
  """Prints what `run_summary` found of the speed, in a line."""
  wait = found['input_wait_seconds'] / found['step_seconds']
  text = (
    f'{found["images_per_second"]:g} images/s: {found["step_seconds"]:.3g} s a '
    f'step, {wait:.1%} of it waiting for input'
  )
  if 'tflops' in found:
    text += f'; {found["tflops"]["training"]:.3g} TFLOP/s'
  if 'mfu' in found:
    text += f", {found['mfu']:.0%} of a matrix product's (MFU)"
  if 'peak_memory_bytes' in found:
    text += f'; peak memory {found["peak_memory_bytes"] / 1e9:.1f} GB'
  print(text)


def _speed(workdir: str, images_per_second: float, dtype: str) -> dict:
  """Sets the run's arithmetic beside what the machine can do.

  Returns:
    `flops_per_image` (`forward`, `training`); `tflops`, in TFLOP/s, of the
    `training` and of a large `matrix_product` just now; their ratio `mfu`
    (Chowdhery et al. 2022, with this peak instead of the vendor's).
  """
  path = pathlib.Path(workdir) / 'layers.json'
  if not path.exists():
    return {}
  rows = files.read_json(path, [])
  forward, training = (
    sum(row[key] for row in rows) for key in ('flops', 'train_flops')
  )
  result = {'flops_per_image': {'forward': forward, 'training': training}}
  tflops = result['tflops'] = {'training': training * images_per_second / 1e12}
  try:
    tflops['matrix_product'] = flops.matmul_peak(dtype) / 1e12
  except RuntimeError as error:
    # Such as a device without room for it: a measurement ends no run.
    print(f'the speed of a matrix product is not measured: {error}')
  else:
    # Above 1, the machine is busier now than it was: that says nothing.
    ratio = tflops['training'] / tflops['matrix_product']
    result |= {'mfu': round(ratio, 4)} if ratio <= 1 else {}
  result['tflops'] = {k: float(f'{v:.4g}') for k, v in tflops.items()}
  return result
