"""Damaged checkpoints are named, never read."""

import json
import os
import pathlib
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, schema
from agegender_jax.inference import predictor
from agegender_jax.models import tasks
from agegender_jax.runtime import checkpoint
from agegender_jax.training import divergence, steps


def train_state(step):
  random = np.random.default_rng(step)
  kernel = random.normal(size=(16, 16)).astype(np.float32)
  return steps.TrainState(
    step=jnp.asarray(step, jnp.int32),
    params={'dense': {'kernel': kernel}},
    batch_stats={'norm': {'mean': kernel[0]}},
    opt_state=(np.int32(step), {'mu': {'dense': {'kernel': -kernel}}}),
  )


def open_at(path):
  return checkpoint.Checkpoints(str(path), [('validation/age_mae', -1)])


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A workdir with the steps 1 (best), 3 and 4."""
  folder = tmp_path_factory.mktemp('saved')
  checkpoints = open_at(folder)
  for step, value in [(1, 4.0), (2, 9.0), (3, 7.0), (4, 8.0)]:
    checkpoints.save(train_state(step), {'validation/age_mae': value}, {'rows': step})
  checkpoints.close()
  assert checkpoints.steps() == [1, 3, 4]
  return folder


@pytest.fixture
def workdir(saved, tmp_path):
  shutil.copytree(saved, tmp_path / 'run')
  return tmp_path / 'run'


def flip(path: pathlib.Path, bit: int) -> None:
  content = bytearray(path.read_bytes())
  content[bit // 8] ^= 1 << bit % 8
  path.write_bytes(bytes(content))


def largest(folder: pathlib.Path) -> pathlib.Path:
  """Returns the file that holds an item's leaves."""
  inner = folder / 'd'  # Beside it lie copies that Orbax does not read.
  paths = (inner if inner.exists() else folder).iterdir()
  return max(paths, key=lambda path: path.stat().st_size)


def assert_same(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_flipped_bit_is_found_wherever_it_lies(workdir):
  checkpoints = open_at(workdir)
  random = np.random.default_rng(0)
  for item in (checkpoint.VARIABLES, checkpoint.OPTIMIZER, checkpoint.RECORD):
    path = largest(workdir / 'checkpoints' / '4' / item)
    content = path.read_bytes()
    for _ in range(6):
      flip(path, int(random.integers(8 * len(content))))
      try:
        restored = checkpoints.restore(4, train_state(0))
      except checkpoint.DamagedError as error:
        assert 'step 4' in str(error) and 'whole are: 1, 3' in str(error)
        assert '\n' not in str(error)
      else:  # A byte that Orbax does not read.
        assert_same(restored, train_state(4))
      path.write_bytes(content)
  assert_same(checkpoints.restore(4, train_state(0)), train_state(4))


@pytest.mark.parametrize('item', ['variables', 'optimizer', 'record'])
@pytest.mark.parametrize('cut', [0, 100, None])
def test_a_cut_or_absent_item_is_named(workdir, item, cut):
  folder = workdir / 'checkpoints' / '3' / item
  if cut is None:
    shutil.rmtree(folder)
  else:
    os.truncate(largest(folder), cut)
  checkpoints = open_at(workdir)
  with pytest.raises(checkpoint.DamagedError, match=f'step 3 .*{item}.* 1, 4;'):
    checkpoints.restore(3, train_state(0))


def test_resume_falls_back_and_says_what_is_lost(workdir, capsys):
  flip(largest(workdir / 'checkpoints' / '4' / 'optimizer'), 4000)
  checkpoints = open_at(workdir)
  checkpoints.set_damaged_aside()
  assert '1 steps are lost' in capsys.readouterr().out
  assert checkpoints.steps() == [1, 3]
  assert_same(checkpoints.restore(3, train_state(0)), train_state(3))
  assert checkpoints.record(3)['pending'] == {'rows': 3}
  again = open_at(workdir)
  again.set_damaged_aside()
  assert not capsys.readouterr().out
  again.save(train_state(4), {})
  again.close()
  assert again.steps() == [1, 3, 4]


def test_a_damaged_best_is_not_replaced_in_silence(workdir):
  record = workdir / 'checkpoints' / '1' / 'record' / 'metadata'
  record.write_text(record.read_text().replace('4.0', '9.5'))
  with pytest.raises(checkpoint.DamagedError, match='step 1'):
    open_at(workdir).best_step()


def test_none_whole_is_an_error(workdir):
  for path in (workdir / 'checkpoints').iterdir():
    shutil.rmtree(path / 'variables')
  with pytest.raises(errors.UserError, match='no other one is whole'):
    open_at(workdir).set_damaged_aside()


@pytest.mark.parametrize('names', [['1'], ['4'], ['1', '3', '4']])
def test_deleted_checkpoints_are_missed(workdir, names):
  for name in names:
    shutil.rmtree(workdir / 'checkpoints' / name)
  with pytest.raises(errors.UserError, match=f'step {", ".join(names)} is gone'):
    open_at(workdir)


def test_a_renamed_step_is_refused(workdir):
  (workdir / 'checkpoints' / '4').rename(workdir / 'checkpoints' / '5')
  (workdir / 'checkpoints.json').unlink()
  with pytest.raises(checkpoint.DamagedError, match='step 5'):
    open_at(workdir).restore(5, train_state(0))


def test_a_damaged_index_and_a_file_in_place_of_the_folder(workdir):
  index = workdir / 'checkpoints.json'
  index.write_text(json.dumps({'steps': [1]})[:-3])
  with pytest.raises(errors.UserError, match='checkpoints.json is damaged'):
    open_at(workdir)
  index.unlink()
  shutil.rmtree(workdir / 'checkpoints')
  (workdir / 'checkpoints').write_text('')
  with pytest.raises(errors.UserError, match='is not a folder'):
    open_at(workdir)


def test_skipped_steps_in_a_row_end_a_run():
  def reports(*flags):
    columns = {'loss': np.zeros(len(flags)), 'skipped': np.array(flags)}
    return [{name: np.c_[values, values] for name, values in columns.items()}]

  watch = divergence.Watch(1.0, 2, None)
  watch.check(reports(1), 6)
  watch.check(reports(1, 0, 1, 1), 10)
  with pytest.raises(errors.UserError, match='3 steps in a row, up to step 11'):
    watch.check(reports(1, 1, 0, 0), 14)


def test_a_step_that_a_training_deletes_meanwhile_is_read_again(workdir, monkeypatch):
  monkeypatch.setattr(predictor, 'create_ranking', lambda *_: [('validation/loss', -1)])
  chosen = []

  def choose(config, checkpoints):
    chosen.append(checkpoints.latest_step())
    if len(chosen) == 1:  # Two evaluations pass before the step is read.
      for step in (5, 6):
        checkpoints.save(train_state(step), {'validation/age_mae': 1.0})
      checkpoints.wait()
    return chosen[-1]

  monkeypatch.setattr(predictor, 'selected_step', choose)
  network = types.SimpleNamespace(tasks=())
  variables, step = predictor.read_selected(None, network, str(workdir))
  assert chosen == [4, 6] and step == 6
  assert_same(variables['params'], train_state(6).params)
  shutil.rmtree(workdir / 'checkpoints' / '6' / 'variables')
  with pytest.raises(checkpoint.DamagedError):  # Nothing has changed meanwhile.
    predictor.read_selected(None, network, str(workdir))
  assert chosen == [4, 6, 6]


def test_a_loss_of_a_thousand_baselines_is_a_warning(capsys):
  config = config_lib.default_config()
  config.tasks.age.kind, config.tasks.gender.kind = 'mse', 'binary'
  config.tasks.age.weight, config.tasks.gender.weight = 2.0, 10.0
  labels = {
    'age': np.array([20, 30, 70, schema.UNKNOWN], np.float32),
    'gender': np.array([0, 1, schema.UNKNOWN, schema.UNKNOWN], np.int32),
  }
  run_tasks = tasks.create_tasks(config.tasks, 'adience')
  baseline = divergence.majority_loss(run_tasks, labels)
  expected = 2 * (100 + 0 + 1600) / 3 + 10 * np.log(2)
  assert baseline == pytest.approx(expected, rel=1e-5)
  watch = divergence.Watch(baseline, 0, None)
  for growth, expected in ((999, ''), (2000, 'up to step 7, 2000 times'), (3000, '')):
    watch.check([{'loss': np.array([[growth * baseline, 1]])}], 7)
    printed = capsys.readouterr().out
    assert expected in printed and bool(expected) == bool(printed)


@pytest.mark.parametrize('kind', tasks.TASKS['age'])
def test_every_kind_of_age_has_a_majority_baseline(kind):
  config = config_lib.default_config()
  config.tasks.age.kind, config.tasks.gender.kind = kind, ''
  (task,) = tasks.create_tasks(config.tasks, 'adience')
  years = np.random.default_rng(0).integers(0, 100, 3000)
  labels = {key: years for key in task.labels}
  labels |= {'age_group': years % 8} if kind == 'group' else {}
  assert 0 < divergence.majority_loss([task], labels) < 1200
