"""Scoring a split, of the run's own data or of others."""

import json
import types

import faces_on_disk
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import schema
from agegender_jax.data import source as source_lib
from agegender_jax.evaluation import evaluate, grad_cam
from agegender_jax.inference import predictor

NETWORK = types.SimpleNamespace(
  tasks=[types.SimpleNamespace(name='age', label='age', weight=2.0)]
)


def predict_split(network, variables, source, age_groups):
  """Stands in for evaluate.predict_split: everyone is 30."""
  error = source.labels['age'] - 30
  return source.labels | {
    'age_pred': np.full(len(source), 30.0),
    'age_loss': np.where(source.labels['age'] == -1, np.nan, error**2),
  }


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A config of UTKFace and the workdir of a run on its train split."""
  faces_on_disk.write_utkface(tmp_path / 'faces', 60)
  config = config_lib.default_config()
  config.data.update({
    'source_dir': str(tmp_path / 'faces'), 'data_dir': str(tmp_path / 'data'),
    'image_size': 8, 'cache': 'none', 'train_split': 'seed5k_trainval',
    'test_split': 'seed5k_test', 'eval_split': 'seed5k_test',
  })  # fmt: skip
  config.train.bootstrap_samples = 0
  workdir = tmp_path / 'run'
  config_lib.save_config(config, str(workdir))
  fingerprint = source_lib.create_source(config.data, 'all').fingerprint
  data = {'name': 'utkface', 'fingerprint': fingerprint}
  (workdir / 'data.json').write_text(json.dumps(data))
  monkeypatch.setattr(evaluate, 'predict_split', predict_split)
  monkeypatch.setattr(grad_cam, 'write_saliency', lambda *args: None)
  monkeypatch.setattr(predictor, 'restore', lambda *args: (NETWORK, {}, 7))
  return types.SimpleNamespace(config=config, workdir=str(workdir))


def test_the_loss_is_undefined_where_no_label_is_known(run):
  def score(age):
    source = source_lib.create_source(run.config.data, 'all')
    source.labels['age'][:] = age
    return evaluate.score_step(run.config, NETWORK, {}, source, 'all', 7)[0]

  assert score(33)['age_loss'] == 9 and score(33)['loss'] == 18
  scores = score(schema.UNKNOWN)
  assert 'age_loss' not in scores and 'loss' not in scores


def test_images_trained_on_are_known_under_either_name_of_the_data(run):
  own = evaluate.evaluate(run.config, run.workdir)
  assert own['num_near_duplicates'] == 0 and 'num_trained_on' not in own
  trained = len(source_lib.create_source(run.config.data, 'seed5k_trainval'))
  run.config.data.name = 'folder'
  run.config.data.eval_split = 'all'
  scores = evaluate.evaluate(run.config, run.workdir)
  assert scores['data'] == 'folder' and scores['num_examples'] == 60
  assert scores['num_trained_on'] == scores['num_near_duplicates'] == trained > 30


def test_a_calibration_is_of_the_splits_of_the_run_s_own_data(run):
  run.config.data.name = 'folder'
  run.config.data.eval_split = 'test'
  found = []

  def open_calibration_set(config, open_split, train, scored):
    found.append((config.data.name, len(train), len(scored)))
    return None, ''

  run.config.data.calibration_split = 'rest_validation'

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(evaluate, 'open_calibration_set', open_calibration_set)
    evaluate.evaluate(run.config, run.workdir)
  ((name, train, scored),) = found
  assert name == 'utkface' and train + scored == 60
