"""Calibrates a network on pictures held out of training and scoring."""

import os

import numpy as np

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.evaluation import labelled
from agegender_jax.scoring import calibration


def are_shared(source, other) -> bool:
  """Says whether two splits have a picture in common."""
  return source.fingerprint == other.fingerprint and not set(source.names).isdisjoint(
    other.names
  )


def open_held_out(config, train, scored):
  """Opens the pictures that calibrate a run.

  Args:
    config: the run's configuration.
    train: source of the pictures trained on.
    scored: source of those to be scored.

  Returns:
    (source of data.calibration_split, else of data.validation_split, its
    name); the source is None, and a line is printed, where there is no such
    picture or where the validation split itself is trained on or scored.

  Raises:
    errors.UserError: data.calibration_split is trained on or scored.
  """
  asked = config.data.calibration_split
  split = asked or config.data.validation_split
  try:
    source = labelled.open_split(config, split)
  except errors.EmptySplitError:
    print(f'no calibration: split "{split}" holds no picture')
    return None, split
  for what, other in (('trained on', train), ('scored', scored)):
    if not are_shared(source, other):
      continue
    if asked:
      raise errors.UserError(
        f'data.calibration_split = "{split}" has pictures that are {what}: '
        'name a split that is held out of both, or leave it empty'
      )
    print(
      f'no calibration: data.validation_split = "{split}" has pictures that '
      f'are {what}; data.calibration_split can name another split'
    )
    return None, split
  return source, split


def calibrate(config, network, variables, step: int, source, split: str):
  """Fits age intervals and the temperature of gender.

  Args:
    config: the run's configuration.
    network: see predictor.
    variables: replicated over the devices.
    step: of the variables.
    source: of the held-out pictures, None for none.
    split: its name.

  Returns:
    calibration.fit's dict with what it was fitted on: `step`, `data`, `split`,
    `fingerprint`, `oversample`. None without pictures.
  """
  if source is None:
    return None
  table = labelled.predict_split(network, variables, source, config.data.age_groups)
  fitted = {
    'step': step,
    'data': config.data.name,
    'split': split,
    'fingerprint': source.fingerprint,
    'oversample': config.data.oversample,
    **calibration.fit(table),
  }
  print(describe(fitted, table))
  return fitted


def describe(fitted, table) -> str:
  """Says in one line what was fitted, and why what was not."""
  level = calibration.SHOWN_LEVEL
  parts = []
  if fitted['age']:
    half = np.asarray(fitted['age']['levels'][str(level)])
    parts.append(
      f'{level:.0%} age intervals of +-{half.min():.1f} to {half.max():.1f} '
      f'years in {len(half)} bins of predicted age'
    )
  elif 'age_pred' in table:
    parts.append('no age intervals, too few known ages')
  elif 'age_group_pred' in table:
    parts.append('no age intervals, a network of groups gives no years')
  if fitted['gender']:
    temperature = fitted['gender']['temperature']
    parts.append(f'gender at temperature {temperature:.2f}')
  elif 'gender_prob' in table:
    parts.append('gender as it is, since none or all of them are wrong')
  return (
    f'calibrated on {fitted["num_examples"]} pictures of '
    f'"{fitted["split"]}": {"; ".join(parts)}'
  )


def find_calibration(
  config, workdir: str, network, variables, step: int, train, scored
):
  """Returns a run's stored calibration, fitted anew where it does not fit.

  A stored one is taken if it is of the same step and of the calibration
  split that is asked for, if any. Otherwise one is fitted, and stored unless
  train.restore_step asks for another step than the run's own. On other data
  no split can be asked for: it could be of these data or of the run's own.

  Args:
    config: of the run, with its overrides.
    workdir: output folder of the run.
    network: see predictor.
    variables: replicated over the devices.
    step: of the variables.
    train: source of the pictures trained on; None if those to be scored are
      of other data: then nothing can be fitted.
    scored: source of the pictures to be scored.

  Returns:
    See `calibrate`; None, and a line is printed, without one that was fitted
    on pictures that are not scored now.

  Raises:
    errors.UserError: see `open_held_out`; a split is asked for on other data.
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
    if stored['fingerprint'] == scored.fingerprint and are_shared(
      labelled.open_split(config, stored['split']), scored
    ):
      print(
        f'no calibration: {os.path.basename(place)} was fitted on pictures of '
        f'"{stored["split"]}", which are scored now'
      )
      return None
    return stored
  if train is None:
    print(
      f'no calibration of step {step} in "{workdir}": evaluate the run on its '
      'own data first'
    )
    return None
  source, split = open_held_out(config, train, scored)
  fitted = calibrate(config, network, variables, step, source, split)
  if fitted and not config.train.restore_step:
    calibration.write(place, fitted)
  return fitted
