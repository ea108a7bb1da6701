import numpy as np

from agegender_jax.evaluation import summary
from agegender_jax.models import parameter_groups

NAMES = (
  'backbone/conv1/kernel',
  'backbone/layer1_0/bn1/scale',
  'backbone/layer1_11/conv1/kernel',
  'backbone/layer2_0/conv1/kernel',
  'branch_age/dense1/kernel',
  'branch_age/logits/kernel',
)


def test_overview_groups_the_blocks_of_the_backbone(capsys):
  params = {name: np.zeros(10**row) for row, name in enumerate(NAMES)}
  is_frozen = parameter_groups.create_is_frozen('backbone/conv1 backbone/layer1_0')
  summary.print_overview(parameter_groups.join(params, {}), is_frozen)
  assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
    ['parameters', 'trained', 'frozen'],
    ['backbone/conv1', '0', '1'],
    ['backbone/layer1', '100', '10'],
    ['backbone/layer2', '1,000', '0'],
    ['branch_age', '110,000', '0'],
    ['total', '111,100', '11'],
  ]
