"""Trains a network, keeps the best, scores it (`--mode=train`)."""

import collections
import dataclasses
import json
import math
import pathlib
import time

import jax
import numpy as np
from clu import parameter_overview

from agegender_jax import (
  augment,
  checkpoint,
  evaluate,
  initialise,
  metrics,
  optimizers,
  parallel,
  partition,
  predictor,
  report,
  schema,
  steps,
  writer,
)
from agegender_jax import config as config_lib
from agegender_jax import state as state_lib
from agegender_jax.data import input_pipeline

# Steps whose results the host leaves unread: bounds what waits on the device.
STEPS_IN_FLIGHT = 4


@dataclasses.dataclass(frozen=True)
class Durations:
  """When a run does what, in steps.

  Attributes:
    total: steps of the run.
    per_epoch: steps of one pass over the training split, a fraction mostly.
    evaluations: the steps after which to evaluate and checkpoint.
  """

  total: int
  per_epoch: float
  evaluations: frozenset[int]


def create_durations(config, num_examples: int) -> Durations:
  """Converts the durations of `config.train` into steps.

  Args:
    config: the block `config.train`.
    num_examples: of the training split.

  Returns:
    The durations; the last step is always evaluated.

  Raises:
    schema.UserError: a pair of durations set wrongly.
  """
  per_epoch = num_examples / config.batch_size
  total = optimizers.exactly_one('train', config, 'num_epochs', 'num_steps')
  every = optimizers.exactly_one(
    'train', config, 'eval_every_epochs', 'eval_every_steps'
  )
  scale = {'num_epochs': per_epoch, 'eval_every_epochs': per_epoch}
  total = max(1, round(config[total] * scale.get(total, 1)))
  period = config[every] * scale.get(every, 1)
  count = math.floor(total / period)
  found = {max(1, round(k * period)) for k in range(1, count + 1)} | {total}
  return Durations(total, per_epoch, frozenset(s for s in found if s <= total))


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


def write_json(workdir: str, name: str, content: dict) -> None:
  """Writes a JSON file into the workdir."""
  path = pathlib.Path(workdir) / name
  path.write_text(json.dumps(content, indent=2) + '\n')


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
  })  # fmt: skip


def check_finite(
  name: str, losses: list[float], last_step: int, latest: int | None
) -> None:
  """Raises schema.UserError at the first step whose loss is not finite.

  Args:
    name: what the losses are called.
    losses: of consecutive steps.
    last_step: the step of the last one.
    latest: the newest checkpoint's step, None without any.
  """
  for offset, loss in enumerate(losses):
    if not math.isfinite(loss):
      step = last_step - len(losses) + 1 + offset
      kept = f'the checkpoint of step {latest} is' if latest else 'nothing is'
      raise schema.UserError(
        f'the {name} is {loss} at step {step}; {kept} kept; lower '
        'optimizer.learning_rate or set optimizer.clip_norm'
      )


def mean_metrics(rows: list[dict]) -> dict[str, float]:
  """Joins steps' metrics {name: (sum, count)} into `train/<name>` means."""
  result = {}
  for name in rows[0]:
    total = sum(float(row[name][0]) for row in rows)
    count = sum(float(row[name][1]) for row in rows)
    if count:
      result[f'train/{name}'] = total / count
  return result


def check_rules(config, params, is_frozen) -> None:
  """Raises schema.UserError for a rule of `config.optimizer` without effect."""
  trained, frozen = partition.split(params, is_frozen)
  partition.check_patterns(
    'optimizer.freeze', config.freeze.split(), [*trained, *frozen]
  )
  multipliers = partition.parse_multipliers(config.lr_multipliers)
  partition.check_patterns('optimizer.lr_multipliers', multipliers, trained)
  if not trained:
    raise schema.UserError('optimizer.freeze leaves nothing to train')


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


class Trainer:
  """Everything of a run that does not change while it trains."""

  def __init__(self, config, workdir: str):
    """Opens the data and builds network, optimizer and step.

    Raises:
      schema.UserError: anything in the configuration or data to mend.
    """
    self.config, self.workdir = config, workdir
    parallel.check_batch_size('train.batch_size', config.train.batch_size)
    self.network = predictor.Predictor(config)
    self.metric = predictor.best_metric(config, self.network.tasks)
    strengths = augment.Strengths(**{
      field.name: config.data[field.name]
      for field in dataclasses.fields(augment.Strengths)
    })  # fmt: skip
    self.splits = {
      key: evaluate.open_split(config, config.data[f'{key}_split'])
      for key in ('train', 'validation', 'test')
    }
    for key, source in self.splits.items():
      if not len(source):
        raise schema.UserError(
          f'data.{key}_split = "{config.data[f"{key}_split"]}" is empty'
        )
    self.durations = create_durations(config.train, len(self.splits['train']))
    self.schedule = optimizers.create_schedule(
      config.optimizer, self.durations.total, self.durations.per_epoch
    )
    optimizer = optimizers.create_optimizer(config.optimizer, self.schedule)
    self.state = state_lib.create_state(
      self.network.model,
      optimizer,
      self.network.input_size,
      config.seed,
      self.network.is_frozen,
    )
    check_rules(config.optimizer, self.state.params, self.network.is_frozen)
    self.num_parameters = int(
      parameter_overview.count_parameters(self.state.params)
    )
    self.train_step = parallel.pmap_train_step(
      steps.create_train_step(
        self.network.model,
        optimizer,
        self.network.tasks,
        augment.create_augment(strengths, config.data.crop_size),
        self.network.normalize_fn,
        self.network.is_frozen,
      )
    )

  def validate(self, state) -> dict[str, float]:
    """Scores the validation split, as `validation/<score>`."""
    start = time.monotonic()
    table = evaluate.predict_split(
      self.network,
      state.variables,
      self.splits['validation'],
      self.config.data.age_groups,
    )
    scores = evaluate.score_split(self.network, table, num_samples=0)
    scores['seconds'] = time.monotonic() - start
    return {f'validation/{name}': value for name, value in scores.items()}

  def is_patience_spent(self) -> bool:
    """Says whether validation has stopped improving (early stopping)."""
    patience = self.config.train.patience_evaluations
    name, mode = self.metric
    rows = writer.read_metrics(self.workdir) if patience else []
    sign = -1 if mode == 'min' else 1
    scores = [sign * row[name] for row in rows if name in row]
    return patience > 0 and len(scores) - 1 - np.argmax(scores) >= patience

  def run(self, checkpoints: checkpoint.Checkpoints) -> None:
    """Trains from the latest checkpoint to the end.

    Args:
      checkpoints: of the workdir.

    Raises:
      schema.UserError: the loss is no longer finite.
    """
    config, durations = self.config, self.durations
    state, start = self.state, checkpoints.latest_step() or 0
    if start:
      state = checkpoints.restore(start, state)
      print(f'resumed at step {start} of {durations.total}')
      if self.is_patience_spent():
        return
    state = parallel.replicate(state)
    key = jax.random.key(config.seed)
    batches = input_pipeline.train_batches(
      self.splits['train'],
      batch_size=config.train.batch_size,
      seed=config.seed,
      start_step=start,
      num_steps=durations.total,
      num_workers=config.data.num_workers,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    log = writer.Writer(self.workdir, start, durations.total)
    flying, unread, period = collections.deque(), [], []
    clock = time.monotonic()
    try:
      for step, batch in enumerate(batches, start + 1):
        state, report = self.train_step(state, parallel.shard(batch), key)
        unread.append(report)
        flying.append(report['loss'][0])
        if len(flying) > STEPS_IN_FLIGHT:
          flying.popleft().block_until_ready()
        evaluates = step in durations.evaluations
        if not evaluates and len(unread) < config.train.log_every_steps:
          continue
        rows = [jax.device_get(parallel.unreplicate(row)) for row in unread]
        unread.clear()
        latest = checkpoints.latest_step()
        losses = [float(row['loss'][0]) for row in rows]
        check_finite('loss', losses, step, latest)
        period += rows
        scalars = mean_metrics(period if evaluates else rows)
        scalars['train/learning_rate'] = float(self.schedule(step - 1))
        scalars['train/images_per_second'] = (
          len(rows) * config.train.batch_size / (time.monotonic() - clock)
        )
        if evaluates:
          scalars |= self.validate(state)
          check_finite(
            'validation loss', [scalars['validation/loss']], step, latest
          )
          period.clear()
        # Recorded before it is saved: a resumed run drops what is ahead.
        log.write(step, step / durations.per_epoch, scalars)
        log.progress(step, step / durations.per_epoch, headlines(scalars))
        if evaluates:
          checkpoints.save(parallel.unreplicate(state), scalars)
          if self.is_patience_spent():
            print(f'early stopping after step {step}')
            break
        clock = time.monotonic()
    finally:
      batches.close()
      log.close()
      checkpoints.wait()


def headlines(scalars: dict[str, float]) -> dict[str, float]:
  """Returns what the progress line shows of a record."""
  names = ['train/loss', 'train/images_per_second']
  names += [f'validation/{name}' for name in metrics.BEST_METRICS]
  return {name: scalars[name] for name in names if name in scalars}


def run_summary(trainer: Trainer) -> dict:
  """Computes run.json from the records, so that resumed runs count whole."""
  records = writer.read_metrics(trainer.workdir)
  batch_size, seconds, evaluation, last = (
    trainer.config.train.batch_size, 0.0, 0.0, 0,
  )  # fmt: skip
  for row in records:
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
    'num_parameters': trainer.num_parameters,
    'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
  }


def train_and_evaluate(config, workdir: str, recipe: str = '') -> None:
  """Trains, resuming where the workdir stands, then scores the test split.

  Args:
    config: the run's configuration.
    workdir: output folder; gets everything that the README's section "What a
      run leaves" lists.
    recipe: the recipe's path and argument, for the record.

  Raises:
    schema.UserError: anything that the user can mend, in one line.
  """
  config_lib.save_config(config, workdir, recipe)
  last = ('run.json', 'report.html')
  if all((pathlib.Path(workdir) / name).exists() for name in last):
    print(f'workdir "{workdir}" holds this run, finished: nothing to do')
    return
  trainer = Trainer(config, workdir)
  write_data_summary(config, workdir, trainer.splits)
  checkpoints = checkpoint.Checkpoints(workdir, *trainer.metric)
  try:
    if config.model.init_from and checkpoints.latest_step() is None:
      trainer.state = initialise.initialise(config, trainer.state, workdir)
    print_overview(trainer.state.params, trainer.network.is_frozen)
    trainer.run(checkpoints)
    step = predictor.selected_step(config, checkpoints)
    variables = checkpoints.restore_variables(step, trainer.state.variables)
  finally:
    checkpoints.close()
  scores, table = evaluate.score_step(
    config,
    trainer.network,
    parallel.replicate(variables),
    trainer.splits['test'],
    config.data.test_split,
    step,
  )
  evaluate.write_results(
    workdir, scores, table, trainer.splits['test'], config.train.num_faces
  )
  write_json(workdir, 'run.json', run_summary(trainer))
  page = report.write_report(workdir)
  print(json.dumps(scores, indent=2))
  print(f'report: {page}')
