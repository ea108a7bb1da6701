"""Every recipe runs, a few steps of it, on faces drawn here."""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

from agegender_jax import checkpoint, schema, train
from agegender_jax.data import synthetic_faces

CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'
# Recipe, argument, parameters that train.
RUNS = [
  ('utk_multibranch', 'runlocal', None),
  ('utk_multibranch', 'runlocal,protocol=full', None),
  ('utk_cnn', 'runlocal', None),
  ('utk_fourconv', 'runlocal', None),
  ('utk_resnet', 'runlocal,scratch,backbone=resnet18', None),
  ('utk_vgg', 'runlocal,scratch', 2 * 131_585),
  ('utk_vgg', 'runlocal,scratch,gender', 131_585),
  ('adience_levi_hassner', 'runlocal,target=age', None),
  ('adience_resnet', 'runlocal,scratch', None),
]


def load(name, arg=''):
  spec = importlib.util.spec_from_file_location(name, CONFIGS / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg)


@pytest.fixture(scope='session')
def drawn(tmp_path_factory):
  """A folder of drawn faces in UTKFace's naming."""
  folder = tmp_path_factory.mktemp('drawn')
  for index in range(60):
    face = synthetic_faces.draw_example(0, index)
    name = f'{round(face["age"])}_{face["gender"]}_0_2017{index:04d}.jpg'
    (folder / f'{name}.chip.jpg').write_bytes(face['image'])
  return folder


@pytest.mark.parametrize('name, arg, trained', RUNS)
def test_a_recipe_runs(name, arg, trained, drawn, tmp_path, capsys):
  config = load(name, arg)
  config.data.source_dir = str(drawn)
  config.data.data_dir = str(drawn.parent / 'data')
  train.train_and_evaluate(config, str(tmp_path))
  scores = json.loads((tmp_path / 'scores.json').read_text())
  assert scores['step'] == 3 and scores['num_examples'] > 0
  total = next(
    line for line in capsys.readouterr().out.splitlines()
    if line.startswith('total')
  )  # fmt: skip
  if trained:
    assert f'{trained:,}' in total and '14,714,688' in total


def test_absent_weights_name_both_ways_out(drawn, tmp_path):
  config = load('utk_resnet', 'runlocal,backbone=resnet18')
  config.model.init_from = str(tmp_path / 'resnet18.pth')
  config.data.source_dir = str(drawn)
  config.data.data_dir = str(drawn.parent / 'data')
  with pytest.raises(schema.UserError, match='init_from=PATH.*scratch'):
    train.train_and_evaluate(config, str(tmp_path / 'run'))


def test_a_run_starts_from_another_but_for_its_new_layer(drawn, tmp_path):
  flags = {
    'data.source_dir': str(drawn),
    'data.data_dir': str(drawn.parent / 'data'),
  }
  first = load('adience_levi_hassner', 'runlocal,target=gender')
  first.update_from_flattened_dict(flags)
  train.train_and_evaluate(first, str(tmp_path / 'first'))
  second = load('adience_levi_hassner', 'runlocal,target=age')
  second.update_from_flattened_dict(flags)
  second.model.init_from = str(tmp_path / 'first')
  with pytest.raises(schema.UserError, match='branch_.*init_excuse'):
    train.train_and_evaluate(second, str(tmp_path / 'second'))
  second.model.init_excuse = 'branch_age branch_gender'
  second.optimizer.freeze = 'backbone'
  train.train_and_evaluate(second, str(tmp_path / 'third'))

  def backbone(workdir):
    checkpoints = checkpoint.Checkpoints(workdir, [('validation/loss', -1)])
    tree = checkpoints.read_variables(checkpoints.latest_step())
    checkpoints.close()
    return tree['params']['backbone']

  jax.tree.map(
    np.testing.assert_array_equal,
    backbone(str(tmp_path / 'first')),
    backbone(str(tmp_path / 'third')),
  )
  origin = json.loads((tmp_path / 'third' / 'init.json').read_text())
  assert origin == {'source': str(tmp_path / 'first'), 'step': 3}
