import numpy as np
import optax
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.models import parameter_groups
from agegender_jax.training import optimizers

PARAMS = {
  'backbone': {
    'conv1': {'kernel': np.ones(2)},
    'layer1_0': {'bn1': {'scale': np.ones(2)}},
  },
  'branch_age': {'logits': {'kernel': np.ones(2)}},
}


@pytest.mark.parametrize(
  'freeze, frozen',
  [
    ('', 0),
    ('backbone', 2),
    ('backbone/conv1', 1),
    ('backbone/layer[1-3]*', 1),
    ('*/kernel', 2),
    ('back', 0),
  ],
)
def test_patterns_name_what_lies_below(freeze, frozen):
  is_frozen = parameter_groups.create_is_frozen(freeze)
  trained, left = parameter_groups.split(PARAMS, is_frozen)
  assert (len(trained), len(left)) == (3 - frozen, frozen)
  assert parameter_groups.join(trained, left) == PARAMS


@pytest.mark.parametrize('patterns', [['backbon'], ['backbone', 'backbone/conv1']])
def test_a_pattern_without_effect_is_refused(patterns):
  with pytest.raises(errors.UserError, match=patterns[-1]):
    parameter_groups.check_patterns('x', patterns, parameter_groups.flatten(PARAMS))


def test_multipliers_scale_the_change():
  config = config_lib.default_config().optimizer
  config.lr_multipliers = 'backbone/conv1=0.1 branch_age=3'
  optimizer = optimizers.create_optimizer(config, lambda _: 0.01)
  params, _ = parameter_groups.split(PARAMS, lambda path: False)
  gradients = {path: np.full(2, 5.0) for path in params}
  changes, _ = optimizer.update(gradients, optimizer.init(params), params)
  expected = [-0.001, -0.01, -0.03]
  for path, value in zip(sorted(params), expected, strict=True):
    np.testing.assert_allclose(changes[path], value, rtol=1e-4, err_msg=path)
  assert isinstance(optimizer, optax.GradientTransformation)


def test_freezing_everything_is_refused():
  parameter_groups.check_rules('backbone', '', PARAMS)
  with pytest.raises(errors.UserError, match='leaves nothing to train'):
    parameter_groups.check_rules('backbone branch_age', '', PARAMS)


def test_a_pattern_with_two_factors_is_refused():
  with pytest.raises(
    errors.UserError, match='"backbone" is given twice, as 0.1 and 10'
  ):
    config_lib.parse_factors('a', 'backbone=0.1 branch_age=3 backbone=10')


@pytest.mark.parametrize('text', ['backbone', 'backbone=x', 'backbone=0'])
def test_a_wrong_multiplier_is_refused(text):
  with pytest.raises(errors.UserError, match='NAME=FACTOR'):
    config_lib.parse_factors('a', text)


def test_a_multiplier_of_0_names_what_freezes():
  with pytest.raises(errors.UserError, match='optimizer.freeze keeps'):
    parameter_groups.check_rules('', 'backbone=0', PARAMS)
