"""Trains a network, keeps the best, scores it (`--mode=train`)."""

import functools
import math
import pathlib
import time

import jax
import numpy as np

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.evaluation import artifacts, held_out, labelled, summary
from agegender_jax.inference import predictor
from agegender_jax.runtime import checkpoint, devices
from agegender_jax.training import (
  build,
  feed,
  finish,
  initialise,
  progress,
  step_metrics,
  writer,
)


def check_finite(
  name: str, losses: list[float], last_step: int, latest: int | None
) -> None:
  """Raises errors.UserError at the first step whose loss is not finite.

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
      raise errors.UserError(
        f'the {name} is {loss} at step {step}; {kept} kept; lower '
        'optimizer.learning_rate or set optimizer.clip_norm'
      )


class Trainer:
  """Everything of a run that does not change while it trains."""

  def __init__(self, config, workdir: str):
    """Opens the data and builds network, optimizer and step.

    Raises:
      errors.UserError: anything in the configuration or data to mend.
    """
    self.config, self.workdir = config, workdir
    devices.check_batch_size('train.batch_size', config.train.batch_size)
    self.network = predictor.Predictor(config)
    self.ranking = predictor.create_ranking(config, self.network.tasks)
    if config.train.restore_step:
      raise errors.UserError('train.restore_step is for --mode=evaluate')
    open_split = functools.cache(functools.partial(labelled.open_split, config))
    self.splits = {
      key: open_split(config.data[f'{key}_split'])
      for key in ('train', 'validation', 'test')
    }
    for key, source in self.splits.items():
      if not len(source):
        raise errors.UserError(
          f'data.{key}_split = "{config.data[f"{key}_split"]}" is empty'
        )
    labelled.check_labels(config, self.network.tasks, self.splits, self.ranking)
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

  def _scalars(self, step, rows, pace, flops_per_image) -> dict[str, float]:
    """Describes training up to a step, by its metrics and progress's times."""
    speed = self.config.train.batch_size / pace['train/step_seconds']
    # On a GPU it would be done after the steps that are asked for already.
    with jax.default_device(devices.host_device()):
      rate = float(self.run.schedule(step - 1))
    return {
      **step_metrics.mean_metrics(rows),
      'train/learning_rate': rate,
      'train/images_per_second': speed,
      'train/tflops': flops_per_image * speed / 1e12,
      **pace,
    }

  def is_patience_spent(self, step: int) -> bool:
    """Says whether validation had stopped improving by `step`."""
    patience = self.config.train.patience_evaluations
    rows = artifacts.read_metrics(self.workdir) if patience else []
    for name, sign in self.ranking:
      scores = [sign * row[name] for row in rows if row['step'] <= step and name in row]
      if scores:
        return len(scores) - 1 - np.argmax(scores) >= patience
    return False

  def train(
    self, state, checkpoints: checkpoint.Checkpoints, flops_per_image: int
  ) -> None:
    """Trains from the latest checkpoint to the end.

    Args:
      state: the first state, from which a fresh run starts.
      checkpoints: of the workdir.
      flops_per_image: of training.

    Raises:
      errors.UserError: the loss is no longer finite.
    """
    config, plan = self.config, self.run.plan
    start = checkpoints.latest_step() or 0
    if start:
      state = checkpoints.restore(start, state)
      print(f'resumed at step {start} of {plan.total}')
      if self.is_patience_spent(start):
        return
    state = devices.replicate(state)
    key = devices.share(jax.random.key(config.seed))
    calls = plan.calls(start, config.train.steps_per_call)
    data_feed = feed.Feed(config, self.splits['train'], calls)
    log = writer.Writer(self.workdir, start, plan.total)
    running = progress.Progress(start, config.train.log_every_steps)
    compiled, since_evaluation = set(), []
    try:
      for call in calls:
        asked = time.monotonic()
        data, batches = data_feed.take()
        waited = time.monotonic() - asked
        is_new = len(call) not in compiled
        if is_new:  # Nothing else runs meanwhile: its time is told apart.
          compiled.add(len(call))
          running.settle()
          asked = time.monotonic()
        state, report = self.run.train_steps(state, data, batches, key)
        compiling = time.monotonic() - asked if is_new else 0.0
        running.add(progress.Call(call.stop, report, waited, compiling))
        evaluates = call.stop in plan.evaluations
        for step, rows, pace in running.records(drain=evaluates):
          latest = checkpoints.latest_step()
          losses = [float(loss) for row in rows for loss in row['loss'][0]]
          check_finite('loss', losses, step, latest)
          since_evaluation += rows
          ends = evaluates and step == call.stop
          scalars = self._scalars(
            step, since_evaluation if ends else rows, pace, flops_per_image
          )
          if ends:
            scalars |= self.validate(state)
            loss = [scalars.get('validation/loss', 0.0)]
            check_finite('validation loss', loss, step, latest)
            since_evaluation.clear()
          # Recorded before it is saved: a resumed run drops what is ahead.
          log.write(step, step / plan.per_epoch, scalars)
          log.progress(step, step / plan.per_epoch, scalars)
        if evaluates:
          checkpoints.save(devices.unreplicate(state), scalars)
          if self.is_patience_spent(call.stop):
            print(f'early stopping after step {call.stop}')
            break
          running.restart(call.stop)
    finally:
      data_feed.close()
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
    errors.UserError: anything that the user can mend, in one line.
  """
  config_lib.save_config(config, workdir, recipe)
  if artifacts.is_finished(pathlib.Path(workdir)):
    labelled.check_finished_data(config, workdir)
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
    flops_per_image = summary.write_layers(workdir, trainer.network)
    summary.print_overview(state.params, trainer.network.is_frozen)
    trainer.train(state, checkpoints, flops_per_image)
    step = predictor.selected_step(config, checkpoints)
    variables = checkpoints.restore_variables(step, state.variables)
  finally:
    checkpoints.close()
  finish.finish(
    config,
    workdir,
    trainer.network,
    devices.replicate(variables),
    step,
    trainer.splits,
    trainer.held_out,
  )
