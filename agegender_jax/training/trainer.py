"""Trains a network, keeps the best, scores it (`--mode=train`)."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from agegender_jax import config as config_lib
from agegender_jax import errors, files, report
from agegender_jax.data import pipeline
from agegender_jax.data import source as source_lib
from agegender_jax.evaluation import (
  artifacts,
  evaluate,
  grad_cam,
  summary,
)
from agegender_jax.inference import crops, predictor, weights
from agegender_jax.models import flops, parameter_groups
from agegender_jax.runtime import checkpoint, devices, hosts, lock, stop
from agegender_jax.training import (
  augment,
  distillation,
  divergence,
  initialise,
  logging,
  optimizers,
  schedules,
  steps,
)

# Of a device's memory, what the images may take; the rest is for training.
_LARGEST_SHARE = 0.7


@dataclasses.dataclass(frozen=True)
class Run:
  """What trains a network; it follows from the configuration alone.

  Attributes:
    durations: when the run does what.
    schedule: step -> learning rate.
    state: the first state, on one device.
    train_steps: steps.create_train_steps, compiled over the devices.
  """

  durations: schedules.Durations
  schedule: optax.Schedule
  state: steps.TrainState
  train_steps: Callable


def create_run(config, network: predictor.Network, num_examples: int) -> Run:
  """Creates optimizer, first state and train step.

  Args:
    config: the run's configuration.
    network: of the same configuration.
    num_examples: of the training split.

  Raises:
    errors.UserError: anything in the configuration that the user can fix.
  """
  durations = schedules.create_durations(config.train, num_examples)
  schedule = schedules.create_schedule(config.optimizer, durations)
  factors = {}
  if config.optimizer.layer_decay:
    table = flops.layer_table(network.model, network.input_size)
    factors = optimizers.layer_factors(table, config.optimizer.layer_decay)
  optimizer = optimizers.create_optimizer(config.optimizer, schedule, factors)
  if config.train.ema_decay:
    optimizer = optimizers.with_average(optimizer, config.train.ema_decay)
  state = steps.create_state(
    network.model, optimizer, network.input_size, config.seed, network.is_frozen
  )
  parameter_groups.check_rules(
    config.optimizer.freeze, config.optimizer.lr_multipliers, state.params
  )
  train_step = steps.create_train_step(
    network.model,
    optimizer,
    network.tasks,
    augment.create_augment(
      augment.create_strengths(config.data), config.data.crop_size
    ),
    network.normalize_fn,
    network.is_frozen,
    skips_nonfinite=config.train.on_nonfinite == 'skip',
    mixup=config.train.mixup,
  )
  train_steps = devices.pmap_train_steps(steps.create_train_steps(train_step))
  return Run(durations, schedule, state, train_steps)


def load_images(source: source_lib.Source) -> jax.Array:
  """Copies the images of a split to every device, for `data.cache=device`.

  Returns:
    uint8 [N, S, S, 3].

  Raises:
    errors.UserError: the devices have too little memory.
  """
  shape = source.gather(np.zeros(1, np.int64)).shape[1:]
  needed = len(source) * int(np.prod(shape))
  statistics = jax.local_devices()[0].memory_stats() or {}
  available = statistics.get('bytes_limit')
  if available and needed > _LARGEST_SHARE * available:
    raise errors.UserError(
      f'data.cache=device needs {needed / 1e9:.1f} GB per device for '
      f'{len(source)} images and each has {available / 1e9:.1f} GB: use '
      '--config.data.cache=memmap or a smaller image_size'
    )
  return devices.replicate(source.gather(np.arange(len(source))))


class Trainer:
  """Everything of a run that does not change while it trains."""

  def __init__(self, config, workdir: str):
    """Opens the data and builds network, optimizer and step.

    Raises:
      errors.UserError: anything in the configuration or data that the user can
        fix.
    """
    self.config, self.workdir = config, workdir
    devices.check_batch_size('train.batch_size', config.train.batch_size)
    if config.train.mixup and config.train.batch_size // jax.device_count() % 2:
      raise errors.UserError(
        f'train.mixup needs an even batch per device: train.batch_size = '
        f'{config.train.batch_size} on {jax.device_count()} devices is odd'
      )
    self.network = predictor.Network(config)
    self.ranking = predictor.create_ranking(config, self.network.tasks)
    if config.train.on_nonfinite not in divergence.ON_NONFINITE:
      raise errors.unknown(
        'train.on_nonfinite', config.train.on_nonfinite, divergence.ON_NONFINITE
      )
    if config.train.restore_step:
      raise errors.UserError('train.restore_step is for --mode=evaluate')
    with hosts.first_alone():  # It prepares and decodes.
      self._open_data()
    summary.check_processes(config, self.splits)
    self.order = pipeline.create_order(config, self.splits['train'])
    self.run = create_run(config, self.network, self.order.epoch_size)
    self.baseline_loss = divergence.majority_loss(
      self.network.tasks, self.splits['train'].labels
    )

  def _open_data(self) -> None:
    """Opens the splits and the calibration set, and checks the labels."""
    config = self.config
    open_split = source_lib.create_opener(config.data)
    self.splits = {
      key: open_split(config.data[f'{key}_split'])
      for key in ('train', 'validation', 'test')
    }
    for key, source in self.splits.items():
      if not len(source):
        raise errors.UserError(
          f'data.{key}_split = "{config.data[f"{key}_split"]}" is empty'
        )
    summary.check_labels(config, self.network.tasks, self.splits, self.ranking)
    # Opened before the long work: what is wrong with it is said at once.
    self.calibration_set = evaluate.open_calibration_set(
      config, open_split, self.splits['train'], self.splits['test']
    )

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
    config, durations = self.config, self.run.durations
    start = hosts.ask_first(checkpoints.latest_step) or 0
    pending: dict[str, Any] = {}  # What a run that was stopped by a signal leaves.
    if start:
      if hosts.is_first():
        state = checkpoints.restore(start, state)
      pending = hosts.ask_first(lambda: checkpoints.record(start)['pending']) or {}
      print(f'resumed at step {start} of {durations.total}', flush=True)
    state = devices.replicate(hosts.broadcast(state))
    key = devices.share(jax.random.key(config.seed))
    calls = durations.calls(start, config.train.steps_per_call)
    source = self.splits['train']
    images = load_images(source) if config.data.cache == 'device' else None
    batches = pipeline.train_batches(
      source,
      self.order,
      calls,
      config.data.num_workers,
      with_images=images is None,
      part=jax.process_index(),
      parts=jax.process_count(),
    )
    log: Any = hosts.Silent()
    if hosts.is_first():
      log = logging.Logger(self.workdir, start, durations.total)
    vote = hosts.Vote(logging.CALLS_IN_FLIGHT)
    watch = divergence.Watch(
      self.baseline_loss, config.train.max_skipped_steps, checkpoints
    )
    log_every = config.train.log_every_steps
    compiled, since_evaluation = set(), []
    if 'sums' in pending:
      sums = pending['sums']
      kept = {'skipped': sums.pop('skipped', [0.0, 0.0])}
      sums |= kept if config.train.on_nonfinite == 'skip' else {}
      since_evaluation = [{k: np.array([pair]) for k, pair in sums.items()}]
    deferral = contextlib.ExitStack()
    try:
      deferral.enter_context(stop.STOP.deferred())
      if 'scalars' in pending:  # It was about to validate.
        self._evaluate(start, state, pending['scalars'], checkpoints, log)
      if hosts.ask_first(self._is_patience_spent, start):
        return
      meter = logging.Meter(start)
      for call in calls:
        state, report, *seconds = self._dispatch(
          call, state, images, batches, key, is_new=len(call) not in compiled
        )
        compiled.add(len(call))
        meter.add(report, *seconds)
        step, evaluates = call.stop, call.stop in durations.evaluations
        stopped = vote.largest(stop.STOP.requested, report)
        # The same steps wherever a run was stopped.
        is_due = step // log_every > call.start // log_every
        if not (evaluates or stopped or is_due):
          continue
        reports, times = meter.end(step)
        watch.check(reports, step)
        since_evaluation += reports
        if stopped and not evaluates:
          pending = {'sums': logging.sum_reports(since_evaluation)}
          self._leave(stopped, state, pending, checkpoints, log)
        scalars = self._scalars(
          step, since_evaluation if evaluates else reports, times, flops_per_image
        )
        if not evaluates:
          log.write(step, step / durations.per_epoch, scalars)
          continue
        self._evaluate(step, state, scalars, checkpoints, log)
        since_evaluation.clear()
        if hosts.ask_first(self._is_patience_spent, step):
          print(f'early stopping after step {step}')
          break
        meter.restart(step)
    finally:
      deferral.close()
      batches.close()
      log.close()
      checkpoints.wait()

  def _dispatch(self, call, state, images, batches, key, is_new):
    """Asks for the steps of a call, which are compiled if `is_new`.

    Returns:
      The state after them, their report, seconds for the batch, and until it
      was compiled; neither state nor report is waited for.
    """
    clock = time.monotonic()
    batch = devices.shard_steps(next(batches), len(call))
    waited = time.monotonic() - clock
    if not is_new:
      return *self.run.train_steps(state, images, batch, key), waited, 0.0
    jax.block_until_ready(state)  # Nothing else runs meanwhile: its time is known.
    clock = time.monotonic()
    with stop.STOP.at_once():
      state, report = self.run.train_steps(state, images, batch, key)
    return state, report, waited, time.monotonic() - clock

  def _evaluate(self, step, state, scalars, checkpoints, log) -> None:
    """Validates, logs and saves a step; a signal leaves that to the next run."""
    try:
      scalars = scalars | self._validate(state)
    except stop.StopError:
      pending = {'scalars': scalars}
      self._leave(stop.STOP.requested, state, pending, checkpoints, log)
    loss = [scalars.get('validation/loss', 0.0)]
    divergence.check_finite('validation loss', loss, step, checkpoints)
    # Recorded before it is saved: a resumed run drops what is ahead.
    log.write(step, step / self.run.durations.per_epoch, scalars)
    checkpoints.save(devices.unreplicate(state), scalars)
    stopped = max(hosts.gather_json(stop.STOP.requested))
    if stopped:
      self._leave(stopped, None, None, checkpoints, log)

  def _leave(self, number, state, pending, checkpoints, log) -> None:
    """Saves a state, unless it is None, and ends the process, as a signal asks."""
    with stop.STOP.saving():
      if state is not None:
        checkpoints.save(devices.unreplicate(state), {}, pending)
      checkpoints.wait()
      log.close()
      step = hosts.ask_first(checkpoints.latest_step)
      hosts.shut_down()
    stop.STOP.leave(number, f' at step {step}, which is saved')

  def _validate(self, state) -> dict[str, float]:
    """Scores the validation split, as `validation/<score>`."""
    start = time.monotonic()
    table = evaluate.predict_split(
      self.network,
      state.variables,
      self.splits['validation'],
      self.config.data.age_groups,
      # Several processes share the batches, so that none may leave alone.
      stop.STOP.check if jax.process_count() == 1 else None,
    )
    scores = evaluate.score_split(self.network, table, num_samples=0)
    scores['seconds'] = time.monotonic() - start
    return {f'validation/{name}': value for name, value in scores.items()}

  def _scalars(self, step, reports, times, flops_per_image) -> dict[str, float]:
    """Returns what is logged of training up to a step."""
    speed = self.config.train.batch_size / times['train/step_seconds']
    # On a GPU it would be done after the steps that are asked for already.
    with jax.default_device(devices.host_device()):
      rate = float(self.run.schedule(step - 1))
    means = logging.mean_metrics(reports)
    if means.pop('train/skipped', None) is not None:
      means['train/skipped_steps'] = logging.sum_reports(reports)['skipped'][0]
    return {
      **means,
      'train/learning_rate': rate,
      'train/images_per_second': speed,
      'train/tflops': flops_per_image * speed / 1e12,
      **times,
    }

  def _is_patience_spent(self, step: int) -> bool:
    """Returns True if validation had stopped improving by `step`."""
    patience = self.config.train.patience_evaluations
    rows = artifacts.read_metrics(self.workdir) if patience else []
    for name, sign in self.ranking:
      scores = [sign * row[name] for row in rows if row['step'] <= step and name in row]
      if scores:
        return bool(len(scores) - 1 - np.argmax(scores) >= patience)
    return False

  def finish(self, variables, step: int) -> None:
    """Calibrates and scores a step and writes what the run leaves.

    Args:
      variables: of the step, on one device.
      step: the chosen one.
    """
    config, workdir, network = self.config, self.workdir, self.network
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    recipe = crops.recipe_of(config.data.name)
    if hosts.is_first():
      weights.write(pathlib.Path(workdir) / weights.RUN_FILE, variables, step, recipe)
    variables = devices.replicate(variables)
    test = self.splits['test']
    fitted = evaluate.calibrate(
      config, workdir, network, variables, step, *self.calibration_set
    )
    scores, table = evaluate.score_step(
      config,
      network,
      variables,
      test,
      config.data.test_split,
      step,
      self.splits['train'].hashes,
      fitted,
    )
    if not hosts.is_first():
      return
    artifacts.write_results(workdir, scores, table, test, config, fitted)
    grad_cam.write_saliency(network, variables, test, workdir)
    speed = summary.run_summary(workdir, config, num_parameters)
    files.write_json(pathlib.Path(workdir, 'run.json'), speed)
    page = report.write_report(workdir)
    print(json.dumps(scores, indent=2))
    summary.print_speed(speed)
    print(f'report: {page}')


def train_and_evaluate(config, workdir: str, recipe: str = '') -> None:
  """Trains, resuming where the workdir stands, then scores the test split.

  The recipe's path and argument are for the record.

  Raises:
    errors.UserError: anything that the user can fix, in one line.
  """
  with lock.hold(workdir) if hosts.is_first() else contextlib.nullcontext():
    _train_and_evaluate(config, workdir, recipe)


def _train_and_evaluate(config, workdir, recipe):
  is_first = hosts.is_first()
  changed = hosts.ask_first(config_lib.check_resume, config, workdir)
  is_finished = hosts.ask_first(artifacts.is_finished, pathlib.Path(workdir))
  info = files.read_json(f'{workdir}/run.json') if is_finished and is_first else {}
  if 'predictions' in info:
    raise errors.UserError(
      f'workdir "{workdir}" holds the scores of a file (--mode=score), no run: choose '
      'another --workdir'
    )
  extends = any(name.split()[0] in config_lib.LENGTH_FIELDS for name in changed or [])
  if is_finished and not extends:
    if is_first:
      summary.check_finished_data(config, workdir)
    print(f'workdir "{workdir}" holds this run, finished: nothing to do')
    return
  if is_first and changed is None:
    _save_config(config, workdir, recipe)
  elif is_first:
    config_lib.check_cpu(workdir, devices.cpu_count(), devices.threads())
  trainer = Trainer(config, workdir)
  state, flops_per_image = trainer.run.state, 0
  checkpoints: Any = hosts.Silent()
  try:
    if is_first:
      checkpoints = checkpoint.Checkpoints(workdir, trainer.ranking)
      state = _begin(trainer, checkpoints, recipe, changed, is_finished)
      flops_per_image = summary.write_layers(workdir, trainer.network)
      summary.print_overview(state.params, trainer.network.is_frozen)
    if config.train.teachers:
      targets = distillation.predict_targets(config, trainer.network.tasks)
      trainer.splits['train'].labels.update(targets)
    trainer.train(state, checkpoints, flops_per_image)
    step = hosts.ask_first(predictor.selected_step, config, checkpoints)
    assert step is not None  # Training ends with a checkpoint.
    variables = state.variables
    if is_first:
      variables = checkpoints.restore_variables(step, variables)
    variables = hosts.broadcast(variables)
  finally:
    checkpoints.close()
  trainer.finish(variables, step)


def _save_config(config, workdir, recipe):
  cpu = devices.cpu_count(), devices.threads()
  config_lib.save_config(config, workdir, recipe, *cpu)


def _begin(trainer: Trainer, checkpoints, recipe, changed, is_finished):
  """Checks the workdir, writes what goes before the first step, returns the state."""
  config, workdir, state = trainer.config, trainer.workdir, trainer.run.state
  checkpoints.set_damaged_aside()
  latest = checkpoints.latest_step()
  _check_begun(workdir, latest, is_finished)
  if changed:
    own = config_lib.load_config(workdir)
    _extend(trainer, own, latest or 0, changed)
    if is_finished:
      kept = artifacts.keep_scores(workdir, own)
      print(f'the scores so far are kept in {kept}')
    _save_config(config, workdir, recipe)
  if latest:
    summary.check_same_data(workdir, trainer.splits['train'])
  else:
    summary.write_data_summary(config, workdir, trainer.splits)
    if config.model.init_from:
      state = initialise.initialise(config, state, workdir)
  return state


def _check_begun(workdir: str, latest: int | None, is_finished: bool) -> None:
  """Raises errors.UserError if a run had checkpoints and has none now."""
  rows = artifacts.read_metrics(workdir)
  evaluated = [row for row in rows if any(k.startswith('validation/') for k in row)]
  # Recorded before they are saved, in the background: two may have no checkpoint.
  if latest is None and (is_finished or len(evaluated) > 2):
    raise errors.UserError(
      f'the run in "{workdir}" had begun, but {workdir}/checkpoints is gone or empty: '
      'bring it back, or choose another --workdir'
    )


def _extend(trainer: Trainer, own, latest: int, changed: list[str]) -> None:
  """Prints how a run goes on from step `latest` otherwise than in its `own` config.

  Raises:
    errors.UserError: it stands beyond the new end.
  """
  config, durations = trainer.config, trainer.run.durations
  if latest > durations.total:
    raise errors.UserError(
      f'the run stands at step {latest}, beyond the end that is asked for '
      f'({durations.total}): {"; ".join(changed)}'
    )
  print(
    f'the run goes on from step {latest} of {durations.total}: {"; ".join(changed)}'
  )
  order = pipeline.create_order(own, trainer.splits['train'])
  before = schedules.create_durations(own.train, order.epoch_size)
  if config.optimizer.schedule == 'cosine' and before.total != durations.total:
    old = schedules.create_schedule(own.optimizer, before)
    print(
      f'the cosine now ends at step {durations.total} instead of {before.total}: the '
      f'learning rate of the next step is {float(trainer.run.schedule(latest)):.3g} '
      f'instead of {float(old(latest)):.3g}, so the result is not that of one run of '
      'this length'
    )
