"""Tests of initialise.py: a file of weights, and what a run learned."""

import hashlib
import json
import os

import jax
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.inference import predictor as predictor_lib
from agegender_jax.training import initialise, steps


def zeros(*shape):
  return np.zeros(shape, np.float32)


def variables(value, groups=8):
  """Returns a small net's variables, every number of them `value`."""
  tree = {
    'params': {
      'backbone': {
        'conv1': {'kernel': zeros(3, 3)}, 'norm1': {'bias': zeros(3)}
      },
      'branch_age': {'logits': {'kernel': zeros(3, groups)}},
    },
    'batch_stats': {'backbone': {'norm1': {'mean': zeros(3)}}},
  }  # fmt: skip
  return jax.tree.map(lambda leaf: leaf + value, tree)


def values(tree):
  """Returns the one value of every leaf, by path."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    '/'.join(part.key for part in path): np.unique(leaf).item() for path, leaf in leaves
  }


def test_all_is_taken_over():
  taken = initialise.take_over(variables(1), variables(2), [])
  assert set(values(taken).values()) == {1}
  assert jax.tree.structure(taken) == jax.tree.structure(variables(2))


def test_what_is_excused_keeps_its_value_and_shape():
  # One pattern for parameters, one for statistics: each is checked over both.
  excuse = ['branch_*', 'backbone/norm1/mean']
  taken = initialise.take_over(variables(1), variables(2, groups=101), excuse)
  assert values(taken) == {
    'params/backbone/conv1/kernel': 1,
    'params/backbone/norm1/bias': 1,
    'params/branch_age/logits/kernel': 2,
    'batch_stats/backbone/norm1/mean': 2,
  }
  assert taken['params']['branch_age']['logits']['kernel'].shape == (3, 101)


def test_another_shape_is_refused():
  with pytest.raises(
    errors.UserError, match=r'branch_age.*\(3, 9\) there and \(3, 8\) here'
  ):
    initialise.take_over(variables(1, groups=9), variables(2), [])


@pytest.mark.parametrize('statistics', [{}, None])
def test_what_is_absent_there_is_refused_unless_excused(statistics):
  found = variables(1) | {'batch_stats': statistics}
  with pytest.raises(errors.UserError, match='norm1/mean is absent there'):
    initialise.take_over(found, variables(2), [])
  taken = initialise.take_over(found, variables(2), ['*/mean'])
  assert values(taken['batch_stats']) == {'backbone/norm1/mean': 2}


def test_what_is_left_over_there_is_dropped_once_excused():
  found = variables(1)
  found['params']['branch_gender'] = {'logits': {'kernel': zeros(3, 1)}}
  with pytest.raises(errors.UserError, match='branch_gender.* absent here'):
    initialise.take_over(found, variables(2), [])
  taken = initialise.take_over(found, variables(2), ['branch_gender'])
  assert set(taken['params']) == {'backbone', 'branch_age'}


def test_an_excuse_that_names_nothing_is_refused():
  with pytest.raises(errors.UserError) as error:
    initialise.take_over(variables(1), variables(2), ['branch_*', 'brunch_*'])
  message = str(error.value)
  assert message.startswith('model.init_excuse: "brunch_*" names no parameter')
  assert message.endswith('parameters begin with backbone, branch_age')


@pytest.fixture
def config(tmp_path, monkeypatch):
  """A run that starts from ~/net.npz, which has another last layer."""
  random = np.random.default_rng(0)
  shapes = {'conv1.weight': (4, 3, 3, 3), 'conv1.bias': (4,),
            'fc.weight': (9, 4)}  # fmt: skip
  np.savez(
    tmp_path / 'net.npz',
    **{key: random.normal(size=shape) for key, shape in shapes.items()},
  )
  monkeypatch.setenv('HOME', str(tmp_path))
  config = config_lib.default_config()
  config.data.image_size = 8
  config.data.normalize = 'imagenet'
  config.model.layers, config.model.branch = 'conv:4', 'gap'
  # As adience_resnet.py has it: a file may lack what is excused.
  config.model.init_excuse = 'fc branch_*'
  config.model.init_from = '~/net.npz'
  return config


def first_state(config):
  network = predictor_lib.Network(config).model
  drawn = network.init(jax.random.key(0), zeros(1, 8, 8, 3), train=False)
  return steps.TrainState(0, drawn['params'], {}, ())


def test_a_file_fills_the_backbone_and_leaves_the_branches(config, tmp_path, capsys):
  before = first_state(config)
  after = initialise.initialise(config, before, str(tmp_path))
  weights = np.load(tmp_path / 'net.npz')
  conv = after.params['backbone']['conv1']
  np.testing.assert_allclose(
    conv['kernel'], weights['conv1.weight'].transpose(2, 3, 1, 0), rtol=1e-6
  )
  np.testing.assert_allclose(conv['bias'], weights['conv1.bias'], rtol=1e-6)
  assert set(after.params) == {'backbone', 'branch_age', 'branch_gender'}
  for name in ('branch_age', 'branch_gender'):
    jax.tree.map(np.testing.assert_array_equal, after.params[name], before.params[name])
  origin = json.loads((tmp_path / 'init.json').read_text())
  digest = hashlib.sha256((tmp_path / 'net.npz').read_bytes()).hexdigest()
  assert origin['sha256'] == digest and origin['source'] == '~/net.npz'
  assert (origin['tensors'], origin['loaded'], origin['excused']) == (2, 2, 1)
  assert '2 of 2 tensors loaded, 1 excused' in capsys.readouterr().out


def test_weights_of_other_pixels_are_refused(config, tmp_path):
  config.data.normalize = 'unit'
  with pytest.raises(errors.UserError, match='data.normalize=imagenet$'):
    initialise.initialise(config, first_state(config), str(tmp_path))
  assert not (tmp_path / 'init.json').exists()


def test_lite0_wants_tensorflows_pixels(config, tmp_path):
  state = first_state(config)
  config.model.backbone = 'efficientnet_lite0'
  with pytest.raises(errors.UserError, match='data.normalize=inception$'):
    initialise.initialise(config, state, str(tmp_path))


def test_a_layer_that_is_not_excused_is_named(config, tmp_path):
  config.model.init_excuse = ''
  with pytest.raises(errors.UserError, match='left over fc; excuse those by mo'):
    initialise.initialise(config, first_state(config), str(tmp_path))


def test_a_workdir_may_begin_with_a_tilde(config, tmp_path):
  os.mkdir(tmp_path / 'run')
  config.model.init_from = '~/run'
  with pytest.raises(errors.UserError, match='no run in workdir'):
    initialise.initialise(config, first_state(config), str(tmp_path))
