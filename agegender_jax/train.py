"""Trains a network, keeps the best, scores it (`--mode=train`)."""

import collections
import math
import pathlib
import time

import jax
import numpy as np

from agegender_jax import (
  build,
  checkpoint,
  finish,
  held_out,
  initialise,
  labelled,
  metrics,
  parallel,
  predictor,
  schema,
  summary,
  writer,
)
from agegender_jax import config as config_lib
from agegender_jax.data import input_pipeline

# Steps whose results the host leaves unread: bounds what waits on the device.
STEPS_IN_FLIGHT = 4


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


def check_labels(config, run_tasks, splits, ranking) -> None:
  """Raises schema.UserError for a task that no label teaches or scores."""

  def has(key, label):
    return (splits[key].labels[label] != schema.UNKNOWN).any()

  for task in run_tasks:
    if not has('train', task.label):
      raise schema.UserError(
        f'no example of data.train_split = "{config.data.train_split}" has a '
        f'known {task.label}: leave the task out by '
        f'--config.tasks.{task.name}.kind='
      )
  labels = {
    'age_mae': 'age',
    'age_group_accuracy': 'age_group',
    'gender_accuracy': 'gender',
  }
  names = [name.removeprefix('validation/') for name, _ in ranking]
  if not any(has('validation', labels[name]) for name in names):
    raise schema.UserError(
      f'data.validation_split = "{config.data.validation_split}" has no known '
      f'label for {" or ".join(names)}: choose another train.best_metric'
    )


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
    self.ranking = predictor.create_ranking(config, self.network.tasks)
    if config.train.restore_step:
      raise schema.UserError('train.restore_step is for --mode=evaluate')
    self.splits = {
      key: labelled.open_split(config, config.data[f'{key}_split'])
      for key in ('train', 'validation', 'test')
    }
    for key, source in self.splits.items():
      if not len(source):
        raise schema.UserError(
          f'data.{key}_split = "{config.data[f"{key}_split"]}" is empty'
        )
    check_labels(config, self.network.tasks, self.splits, self.ranking)
    # Opened before the long work: what is wrong with it is said at once.
    self.held_out = held_out.open_held_out(
      config, self.splits['train'], self.splits['test']
    )
    self.run = build.create_run(config, self.network, len(self.splits['train']))

  def validate(self, state) -> dict[str, float]:
    """Scores the validation split, as `validation/<score>`."""
    start = time.monotonic()
    table = labelled.predict_split(
      self.network,
      state.variables,
      self.splits['validation'],
      self.config.data.age_groups,
    )
    scores = labelled.score_split(self.network, table, num_samples=0)
    scores['seconds'] = time.monotonic() - start
    return {f'validation/{name}': value for name, value in scores.items()}

  def is_patience_spent(self, step: int) -> bool:
    """Says whether validation had stopped improving by `step`."""
    patience = self.config.train.patience_evaluations
    rows = writer.read_metrics(self.workdir) if patience else []
    for name, sign in self.ranking:
      scores = [
        sign * row[name] for row in rows if row['step'] <= step and name in row
      ]
      if scores:
        return len(scores) - 1 - np.argmax(scores) >= patience
    return False

  def train(self, state, checkpoints: checkpoint.Checkpoints) -> None:
    """Trains from the latest checkpoint to the end.

    Args:
      state: the first state, from which a fresh run starts.
      checkpoints: of the workdir.

    Raises:
      schema.UserError: the loss is no longer finite.
    """
    config, plan = self.config, self.run.plan
    start = checkpoints.latest_step() or 0
    if start:
      state = checkpoints.restore(start, state)
      print(f'resumed at step {start} of {plan.total}')
      if self.is_patience_spent(start):
        return
    state = parallel.replicate(state)
    key = jax.random.key(config.seed)
    batches = input_pipeline.train_batches(
      self.splits['train'],
      batch_size=config.train.batch_size,
      seed=config.seed,
      start_step=start,
      num_steps=plan.total,
      num_workers=config.data.num_workers,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    log = writer.Writer(self.workdir, start, plan.total)
    in_flight, unread, since_evaluation = collections.deque(), [], []
    clock = time.monotonic()
    try:
      for step, batch in enumerate(batches, start + 1):
        state, report = self.run.train_step(state, parallel.shard(batch), key)
        unread.append(report)
        in_flight.append(report['loss'][0])
        if len(in_flight) > STEPS_IN_FLIGHT:
          in_flight.popleft().block_until_ready()
        evaluates = step in plan.evaluations
        if not evaluates and len(unread) < config.train.log_every_steps:
          continue
        rows = [jax.device_get(parallel.unreplicate(row)) for row in unread]
        unread.clear()
        latest = checkpoints.latest_step()
        losses = [float(row['loss'][0]) for row in rows]
        check_finite('loss', losses, step, latest)
        since_evaluation += rows
        scalars = metrics.mean_metrics(since_evaluation if evaluates else rows)
        scalars['train/learning_rate'] = float(self.run.schedule(step - 1))
        scalars['train/images_per_second'] = (
          len(rows) * config.train.batch_size / (time.monotonic() - clock)
        )
        if evaluates:
          scalars |= self.validate(state)
          check_finite(
            'validation loss', [scalars['validation/loss']], step, latest
          )
          since_evaluation.clear()
        # Recorded before it is saved: a resumed run drops what is ahead.
        log.write(step, step / plan.per_epoch, scalars)
        log.progress(step, step / plan.per_epoch, scalars)
        if evaluates:
          checkpoints.save(parallel.unreplicate(state), scalars)
          if self.is_patience_spent(step):
            print(f'early stopping after step {step}')
            break
        clock = time.monotonic()
    finally:
      batches.close()
      log.close()
      checkpoints.wait()


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
  state = trainer.run.state
  checkpoints = checkpoint.Checkpoints(workdir, trainer.ranking)
  try:
    if checkpoints.latest_step():
      summary.check_same_data(workdir, trainer.splits['train'])
    else:
      summary.write_data_summary(config, workdir, trainer.splits)
      if config.model.init_from:
        state = initialise.initialise(config, state, workdir)
    summary.write_layers(workdir, trainer.network)
    summary.print_overview(state.params, trainer.network.is_frozen)
    trainer.train(state, checkpoints)
    step = predictor.selected_step(config, checkpoints)
    variables = checkpoints.restore_variables(step, state.variables)
  finally:
    checkpoints.close()
  finish.finish(
    config,
    workdir,
    trainer.network,
    parallel.replicate(variables),
    step,
    trainer.splits,
    trainer.held_out,
  )
