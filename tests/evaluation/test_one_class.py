import types

import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.evaluation import summary


@pytest.mark.parametrize('genders, stops', [([1, 1, -1], True), ([0, 1, -1], False)])
def test_a_task_with_one_class_in_training_stops(genders, stops):
  labels = {'gender': np.array(genders)}
  splits = dict.fromkeys(('train', 'validation'), types.SimpleNamespace(labels=labels))
  task = types.SimpleNamespace(name='gender', label='gender')
  config = config_lib.default_config()

  def check():
    summary.check_labels(
      config, [task], splits, [('validation/gender_accuracy', 'max')]
    )

  if stops:
    with pytest.raises(errors.UserError, match='gender in .* are one class'):
      check()
    config.data.allow_unread_labels = True
  check()
