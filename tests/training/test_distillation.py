"""What teachers answer, and what is learned from it."""

import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, recipes
from agegender_jax.data import source as source_lib
from agegender_jax.evaluation import evaluate, grad_cam
from agegender_jax.inference import predictor
from agegender_jax.models import tasks
from agegender_jax.training import distillation, steps, trainer


def config_of(kind='ldl', size=16, **fields):
  config = config_lib.default_config()
  recipes.set_run_local(config)
  config.data.update({'name': 'synthetic', 'synthetic_examples': 60, **fields})
  config.data.image_size = size
  config.model.layers, config.model.branch = 'conv:4 pool', 'gap'
  config.tasks.age.kind = kind
  return config


def test_half_of_the_loss_is_the_divergence_from_the_teacher():
  run_tasks = tasks.create_tasks(config_of().tasks, 'adience')
  logits = {'age': jnp.zeros((2, tasks.NUM_YEARS)), 'gender': jnp.array([[0.0], [2.0]])}
  sure = np.eye(tasks.NUM_YEARS, dtype=np.float32)[[3, 90]]
  batch = {
    'age': jnp.array([3.0, 50.0]),
    'gender': jnp.array([1, -1]),
    'mask': jnp.ones(2),
    'known': jnp.array([2.0, 0, 1, 0, 0]),
  }
  _, labels = steps.weighted_loss(run_tasks, logits, batch)
  taught = batch | {
    'teacher_age': jnp.asarray(sure),
    'teacher_gender': jnp.array([[0.2, 0.8], [0.5, 0.5]]),
  }
  _, found = steps.weighted_loss(run_tasks, logits, taught)
  # Log K for each image; of gender the first image alone is known.
  expected = (float(labels['age']) + np.log(tasks.NUM_YEARS)) / 2
  assert float(found['age']) == pytest.approx(expected, rel=1e-4)
  divergence = 0.2 * np.log(0.2 / 0.5) + 0.8 * np.log(0.8 / 0.5)
  expected = (float(labels['gender']) + divergence) / 2
  assert float(found['gender']) == pytest.approx(expected, rel=1e-4)


def test_a_teacher_may_be_in_the_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  ours = config_of()
  ours.train.teachers = ' ~/gone, ~/other'
  with pytest.raises(errors.UserError, match=f'no run in workdir "{tmp_path}/gone"'):
    distillation.predict_targets(ours, [])


@pytest.mark.nightly
def test_a_run_learns_from_the_mean_of_its_teachers(tmp_path, monkeypatch, no_figures):
  monkeypatch.setattr(grad_cam, 'write_saliency', lambda *args: None)
  folder = {'data_dir': str(tmp_path / 'data')}
  teacher = str(tmp_path / 'teacher')
  theirs = config_of('interval', 16, **folder)
  trainer.train_and_evaluate(theirs, teacher)
  ours = config_of('ldl', 8, **folder)
  ours.train.teachers = f'{teacher},{teacher}'
  run_tasks = tasks.create_tasks(ours.tasks, 'adience')
  targets = distillation.predict_targets(ours, run_tasks)
  source = source_lib.create_source(theirs.data, 'train')
  network, variables, _ = predictor.restore(theirs, teacher)
  table = evaluate.predict_split(network, variables, source, 'adience')
  age, gender = targets['teacher_age'], targets['teacher_gender']
  np.testing.assert_allclose(age, table['age_distribution'], rtol=1e-5)
  np.testing.assert_allclose(gender[:, 1], table['gender_prob'], rtol=1e-5)
  trainer.train_and_evaluate(ours, str(tmp_path / 'student'))
  ours.tasks.age.kind = 'mse'
  with pytest.raises(errors.UserError, match='age.kind = mse is none; use interval'):
    distillation.predict_targets(ours, run_tasks)
  ours.tasks.age.kind, ours.train.teachers = 'ldl', str(tmp_path)
  with pytest.raises(errors.UserError, match='no run in workdir'):
    distillation.predict_targets(ours, run_tasks)
