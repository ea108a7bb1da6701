"""Scores a network on a split (`--mode=evaluate`, and after training)."""

import json
import pathlib
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from agegender_jax import config as config_lib
from agegender_jax import errors, files, schema, scoring
from agegender_jax.data import duplicates, pipeline
from agegender_jax.data import source as source_lib
from agegender_jax.evaluation import artifacts, grad_cam, summary
from agegender_jax.inference import predictor
from agegender_jax.runtime import hosts
from agegender_jax.scoring import calibration


def predict_split(
  network: predictor.Network,
  variables,
  source,
  age_groups: str,
  before_batch: Callable[[], None] | None = None,
) -> dict[str, np.ndarray]:
  """Predicts every example of a split, once; each process its share.

  Args:
    network: see predictor.
    variables: replicated over the devices.
    source: see data.sources.
    age_groups: key of schema.AGE_GROUPS.
    before_batch: called before each batch.

  Returns:
    Columns [N]: the labels age (years), age_group, gender and age_span (first
    and last year, [N, 2]); those of
    `predictions`; `<task>_loss`, NaN where the label is unknown.
  """
  share = source
  if hosts.count() > 1:  # Of equal sizes: the last row is repeated.
    size = -(-len(source) // hosts.count())
    rows = jax.process_index() * size + np.arange(size)
    share = source.take(np.minimum(rows, len(source) - 1))
  batch_size = network.batch_size_for(len(share))
  batches: Iterable[dict] = pipeline.eval_batches(share, batch_size)
  if before_batch:
    batches = (batch for batch in batches if not before_batch())
  output = hosts.gather(network.predict_all(variables, batches))
  output = jax.tree.map(lambda values: values[: len(source)], output)
  # Of a table's columns, age_low and age_high are the predicted interval.
  labels = {key: source.labels[key] for key in ('age', 'age_group', 'gender')}
  labels['age_span'] = np.stack(
    [source.labels[key] for key in ('age_low', 'age_high')], axis=1
  )
  table = labels | predictor.predictions(output, age_groups)
  for task in network.tasks:
    known = [jnp.asarray(source.labels[key]) for key in task.labels]
    loss = task.loss(output['logits'][task.name], *known)
    # NaN is the mark of an unknown label, so a diverged network's is not.
    loss = np.nan_to_num(np.asarray(loss), nan=np.inf, posinf=np.inf)
    unknown = source.labels[task.label] == schema.UNKNOWN
    table[f'{task.name}_loss'] = np.where(unknown, np.nan, loss)
  return table


def score_split(
  network: predictor.Network, table, num_samples: int
) -> dict[str, float]:
  """Scores predictions as `scoring.score`, with the loss as in training."""
  scores = scoring.score(table, num_samples)
  losses = []
  for task in network.tasks:
    loss = table[f'{task.name}_loss']
    known = ~np.isnan(loss)
    if known.any():
      mean = float(loss[known].mean(dtype=np.float64))
      scores[f'{task.name}_loss'] = mean
      losses.append(task.weight * mean)
  # Of no known label it is undefined, like other scores.
  return scores | ({'loss': sum(losses)} if losses else {})


def score_step(
  config,
  network,
  variables,
  source,
  split: str,
  step: int,
  train_hashes=None,
  fitted=None,
) -> tuple[dict, dict]:
  """Scores a step on a split.

  Args:
    config: the run's configuration.
    network: see predictor.
    variables: replicated over the devices.
    source: the split's.
    split: its name.
    step: of the variables.
    train_hashes: uint64 [M], difference hashes of the training images; with
      them, `<score>_without_near_duplicates` leaves out images at most 3 bits from
      one of these.
    fitted: see calibration.fit; None without one.

  Returns:
    The scores, and the table of `predict_split` behind them; with a
    calibration its gender_prob is the calibrated one, gender_raw the
    network's own, and age_low and age_high (years) are there; with hashes
    `near_duplicate` is 1 where the second score leaves the image out.
  """
  if not len(source):
    raise errors.UserError(f'split "{split}" has no examples to score')
  table = predict_split(network, variables, source, config.data.age_groups)
  for name in ('age_pred', 'gender_prob'):
    count = int((~np.isfinite(table.get(name, np.zeros(0)))).sum())
    if count:
      raise errors.UserError(
        f'{count} of {len(source)} values of {name} at step {step} are not finite: '
        'choose another checkpoint by --config.train.restore_step=STEP'
      )
  if fitted:
    if 'gender_prob' in table:
      table['gender_raw'] = table['gender_prob']
    table |= calibration.apply(fitted, table)
  scores = {
    'data': config.data.name,
    'split': split,
    'num_examples': len(source),
    'step': step,
    'age_groups': config.data.age_groups,
    'oversample': config.data.oversample,
    **score_split(network, table, config.train.bootstrap_samples),
  }
  if train_hashes is not None:
    alone = ~duplicates.has_duplicate(source.hashes, train_hashes)
    rest = {name: column[alone] for name, column in table.items()}
    table['near_duplicate'] = (~alone).astype(np.int32)
    scores['num_near_duplicates'] = int((~alone).sum())
    if alone.any():
      found = scoring.score(rest, num_samples=0)
      scores |= {
        f'{name}_without_near_duplicates': found[name]
        for name in (metric.name for metric in scoring.headlines(2))
        if name in found
      }
  return scores, table


def _share_images(source, other) -> bool:
  """Returns True if two splits have an image in common."""
  return source.fingerprint == other.fingerprint and not set(source.names).isdisjoint(
    other.names
  )


def open_calibration_set(config, open_split, train, scored):
  """Opens the images that calibrate a run.

  Args:
    config: the run's configuration.
    open_split: see source.create_opener.
    train: source of the images trained on.
    scored: source of those to be scored.

  Returns:
    Source of data.calibration_split, else of data.validation_split, and its
    name. The source is None, and a line is printed, if there is no such image
    or if the validation split itself is trained on or scored.

  Raises:
    errors.UserError: data.calibration_split is trained on or scored.
  """
  asked = config.data.calibration_split
  split = asked or config.data.validation_split
  try:
    source = open_split(split)
  except errors.EmptySplitError:
    print(f'no calibration: split "{split}" holds no image')
    return None, split
  for what, other in (('trained on', train), ('scored', scored)):
    if not _share_images(source, other):
      continue
    if asked:
      raise errors.UserError(
        f'data.calibration_split = "{split}" has images that are {what}: '
        'name a split that is held out of both, or leave it empty'
      )
    print(
      f'no calibration: data.validation_split = "{split}" has images that '
      f'are {what}; data.calibration_split can name another split'
    )
    return None, split
  return source, split


def calibrate(config, workdir: str, network, variables, step: int, source, split: str):
  """Fits a calibration and stores it with the run.

  That of another step, by train.restore_step, is not stored.

  Args:
    config: the run's configuration.
    workdir: output folder of the run.
    network: see predictor.
    variables: replicated over the devices.
    step: of the variables.
    source: of the calibration set, None for none.
    split: its name.

  Returns:
    calibration.fit's dict with what it was fitted on: `step`, `data`, `split`,
    `fingerprint`, `oversample`. None without images.
  """
  if source is None:
    return None
  table = predict_split(network, variables, source, config.data.age_groups)
  fitted = {
    'step': step,
    'data': config.data.name,
    'split': split,
    'fingerprint': source.fingerprint,
    'oversample': config.data.oversample,
    **calibration.fit(table),
  }
  print(calibration.describe(fitted, table))
  if not config.train.restore_step and hosts.is_first():
    files.write_json(calibration.path(config, workdir), fitted)
  return fitted


def _find_calibration(
  config, workdir, network, variables, step, open_split, train, scored
):
  """Returns the run's calibration for the images to be scored, None for none.

  It is the stored one if that is of this step and of the split asked for. A
  split that is asked for otherwise is fitted and stored. `train` is None where
  the scored images are of other data than the run's.
  """
  place = calibration.path(config, workdir)
  stored = calibration.read(place)
  asked = config.data.calibration_split
  if train is None and asked:
    if asked != config_lib.load_config(workdir).data.calibration_split:
      raise errors.UserError(
        f'data.calibration_split = "{asked}" needs the data that the run '
        'trained on, and other data are scored: leave it out, and the '
        "run's calibration is used as it is"
      )
    asked = ''
  if stored and stored['step'] == step and asked in ('', stored['split']):
    if stored['fingerprint'] == scored.fingerprint and _share_images(
      open_split(stored['split']), scored
    ):
      print(
        f'no calibration: {place.name} was fitted on images of '
        f'"{stored["split"]}", which are scored now'
      )
      return None
    return stored
  if asked:
    found = open_calibration_set(config, open_split, train, scored)
    return calibrate(config, workdir, network, variables, step, *found)
  print(
    f'no calibration: {place} is {"of another step" if stored else "absent"}; '
    "on the run's own data --config.data.calibration_split=NAME fits it"
  )
  return None


def evaluate(config, workdir: str) -> dict:
  """Scores `data.eval_split` with the run's network (`--mode=evaluate`).

  The data may be others than the run's: a network of years is then scored by
  the groups of `data.age_groups`, one of groups by those that it has.

  Args:
    config: of the run, with its overrides.
    workdir: output folder of the run.

  Returns:
    The scores, written to `eval/{data}_{split}_{step}/` in the workdir; where
    data.oversample is not the run's own, the folder's name says so.

  Raises:
    errors.UserError: no run there, or data that cannot be scored.
  """
  network, variables, step = predictor.restore(config, workdir)
  split = config.data.eval_split
  open_split = source_lib.create_opener(config.data)
  with hosts.first_alone():  # It prepares and decodes.
    source = open_split(split)
  summary.check_processes(config, {split: source}, step)
  own, train = config, None
  if summary.fingerprint(workdir) == source.fingerprint:
    # UTKFace's images may be read as a `folder` now: the same images, but
    # the run's splits are those of the name that it read them under.
    own = config.copy_and_resolve_references()
    own.data.name = config_lib.load_config(workdir).data.name
    if own.data.name != config.data.name:
      open_split = source_lib.create_opener(own.data)
    train = open_split(own.data.train_split)
  fitted = _find_calibration(
    own, workdir, network, variables, step, open_split, train, source
  )
  trained_on = len(set(source.names) & set(train.names)) if train else 0
  if trained_on:
    print(f'{trained_on} of the {len(source)} images were trained on')
  scores, table = score_step(
    config,
    network,
    variables,
    source,
    split,
    step,
    None if train is None else train.hashes,
    fitted,
  )
  if trained_on:
    scores['num_trained_on'] = trained_on
  if not hosts.is_first():
    return scores
  name = f'{config.data.name}_{split}_{step}{calibration.variant(config, workdir)}'
  folder = pathlib.Path(workdir) / 'eval' / name
  artifacts.write_results(folder, scores, table, source, config, fitted)
  grad_cam.write_saliency(network, variables, source, folder)
  print(json.dumps(scores, indent=2))
  print(f'written to {folder}')
  return scores
