import subprocess
import sys

import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors
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


PEAK = """
from agegender_jax.evaluation import summary
print(summary._peak_memory()['peak_memory_bytes'])
"""


def test_the_peak_of_memory_does_not_start_from_the_parents():
  if not sys.platform.startswith('linux'):
    pytest.skip('/proc is of Linux')
  ballast = np.ones(2**28)  # 2 GiB: getrusage would report them.
  command = [sys.executable, '-c', PEAK]
  result = subprocess.run(command, capture_output=True, text=True, check=True)
  assert 2**26 < int(result.stdout) < ballast.nbytes / 2


def test_a_run_without_records_is_an_error_in_words(tmp_path):
  with pytest.raises(errors.UserError, match='metrics.jsonl has no record'):
    summary.run_summary(str(tmp_path), config_lib.default_config(), 1)
