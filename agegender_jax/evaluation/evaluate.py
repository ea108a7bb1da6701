"""Scores a network on a split (`--mode=evaluate`, and after training)."""

import json
import pathlib

import numpy as np

from agegender_jax import config as config_lib
from agegender_jax import errors, scoring
from agegender_jax.data import duplicates
from agegender_jax.evaluation import artifacts, grad_cam, held_out, labelled, summary
from agegender_jax.inference import predictor
from agegender_jax.scoring import calibration


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
    train_hashes: uint64 [M], difference hashes of the training pictures; with
      them, `<score>_without_twins` leaves out pictures at most 3 bits from
      one of these.
    fitted: see calibration.fit; None without one.

  Returns:
    The scores, and the table of `labelled.predict_split` behind them; with a
    calibration its gender_prob is the calibrated one, gender_raw the
    network's own, and age_low and age_high (years) are there; with hashes
    `twin` is 1 where the second score leaves the picture out.
  """
  if not len(source):
    raise errors.UserError(f'split "{split}" has no examples to score')
  table = labelled.predict_split(network, variables, source, config.data.age_groups)
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
    **labelled.score_split(network, table, config.train.bootstrap_samples),
  }
  if train_hashes is not None:
    alone = ~duplicates.has_duplicate(source.hashes, train_hashes)
    rest = {name: column[alone] for name, column in table.items()}
    table['twin'] = (~alone).astype(np.int32)
    scores['num_twins'] = int((~alone).sum())
    if alone.any():
      found = scoring.score(rest, num_samples=0)
      scores |= {
        f'{name}_without_twins': found[name]
        for name in (metric.name for metric in scoring.headlines(2))
        if name in found
      }
  return scores, table


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
  source = labelled.open_split(config, split)
  own, train = config, None
  if summary.fingerprint(workdir) == source.fingerprint:
    # UTKFace's pictures may be read as a `folder` now: the same pictures, but
    # the run's splits are those of the name that it read them under.
    own = config.copy_and_resolve_references()
    own.data.name = config_lib.load_config(workdir).data.name
    train = labelled.open_split(own, own.data.train_split)
  fitted = held_out.find_calibration(
    own, workdir, network, variables, step, train, source
  )
  trained_on = len(set(source.names) & set(train.names)) if train else 0
  if trained_on:
    print(f'{trained_on} of the {len(source)} pictures were trained on')
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
  name = f'{config.data.name}_{split}_{step}{calibration.variant(config, workdir)}'
  folder = pathlib.Path(workdir) / 'eval' / name
  artifacts.write_results(folder, scores, table, source, config, fitted)
  grad_cam.write_saliency(network, variables, source, folder)
  print(json.dumps(scores, indent=2))
  print(f'written to {folder}')
  return scores
