"""The benchmark: its tables and processes."""

import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, schema
from agegender_jax.training import augment

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'scripts'))

import benchmark  # noqa: E402, found by the path above.
from benchmarking import noise, tables  # noqa: E402
from benchmarking import worker as worker_lib  # noqa: E402


def worker(name='one', seconds=(0.5, 0.2, 0.25), **facts):
  """Returns what stands for a worker that took its turns."""
  facts = {'images': 10} | facts
  memory = {'peak_rss': 1.5, 'peak_device': None}
  return types.SimpleNamespace(
    name=name, seconds=list(seconds), facts=facts, memory=memory
  )


def test_row_has_the_median_over_rounds_and_the_speed():
  row = tables.create_row(worker(flops_per_image=2e9), config_lib.default_config())
  assert row['images_per_second'] == {'median': 40, 'low': 20, 'high': 50}
  assert row['ms'] == {'median': 250, 'low': 200, 'high': 500}
  assert row['tflops'] == pytest.approx(0.08)
  assert row['net'] == 'cnn 32-64, 128 per branch'


def test_ratio_pairs_the_rounds():
  ratio = tables.create_ratio(
    worker('a', [1.0, 2.0, 4.0]), worker('b', [2.0, 2.0, 2.0])
  )
  assert ratio == {'name': 'a / b', 'median': 1.0, 'low': 0.5, 'high': 2.0}


def test_table_leaves_out_what_no_row_has():
  row = tables.create_row(worker(), config_lib.default_config())
  lines = tables.to_markdown({'rows': [row, row | {'ms': None}]}).split('\n')
  titles = [cell.strip() for cell in lines[0].strip('|').split('|')]
  assert titles == ['net', 'batch', 'px', 'dtype', 'what', 'images/s', 'ms',
                    'peak RSS, GiB']  # fmt: skip
  assert '| 40.0 [20.0 to 50.0] | 250.00 [200.00 to 500.00] |' in lines[2]
  assert '| 40.0 [20.0 to 50.0] |  |' in lines[3]


@pytest.mark.parametrize('load, warns', [(0.1, False), (2.0, True)])
def test_a_loaded_machine_is_reported(load, warns):
  machine = tables.describe_machine()
  machine |= {'load_before': load, 'device': '1 x cpu'}
  assert ('these times mean little' in tables.describe(machine, '')) == warns


class _Turns:
  def __init__(self, name, log, fails=False):
    self.name, self.log, self.fails = name, log, fails

  def go(self, steps):
    if self.fails:
      raise worker_lib.WorkerDiedError(self.name)
    self.log.append((self.name, steps))

  def close(self):
    self.log.append((self.name, 'closed'))


def test_workers_take_turns_and_are_closed():
  log = []
  worker_lib.alternate([_Turns('a', log), _Turns('b', log)], 2, 7)
  assert log == [('a', 7), ('b', 7)] * 2 + [('a', 'closed'), ('b', 'closed')]


def test_workers_are_closed_when_one_dies():
  log = []
  with pytest.raises(worker_lib.WorkerDiedError):
    worker_lib.alternate([_Turns('a', log), _Turns('b', log, fails=True)], 2, 1)
  assert log == [('a', 1), ('a', 'closed'), ('b', 'closed')]


def test_what_a_worker_refuses_is_a_line(tmp_path):
  task = {'malloc': 'stock', 'config': str(tmp_path), 'warmup': 0}
  with pytest.raises(errors.UserError, match='no run in workdir'):
    worker_lib.Worker('jax', task)


def test_a_worker_that_dies_says_why(tmp_path):
  config_lib.save_config(config_lib.default_config(), str(tmp_path))
  task = {'malloc': 'stock', 'config': str(tmp_path), 'module': 'nothing'}
  with pytest.raises(worker_lib.WorkerDiedError, match="'benchmarking.nothing'"):
    worker_lib.Worker('jax', task)


def test_peer_is_timed_without_augmentation():
  config = config_lib.default_config()
  config.data.image_size, config.data.crop_size = 256, 227
  config.data.flip, config.train.batch_size = True, 50
  config.data.jpeg, config.train.mixup = 0.5, 0.2
  plain = benchmark.without_augmentation(config)
  assert (plain.data.image_size, plain.data.crop_size) == (227, 0)
  assert not plain.data.flip and plain.train.batch_size == 50
  assert augment.create_strengths(plain.data) == augment.Strengths()
  assert plain.train.mixup == 0
  assert config.data.flip


def test_networks_of_other_sizes_are_not_compared():
  workers = [worker('a', parameters=5), worker('b', parameters=6)]
  with pytest.raises(errors.UserError, match='not the same network'):
    benchmark.check_parameters(workers)


def run_script(*args):
  """Runs the benchmark in a process of its own."""
  return subprocess.run(
    [sys.executable, str(ROOT / 'scripts/benchmark.py'), *args],
    capture_output=True,
    text=True,
    env=worker_lib.environment(),
    check=False,
  )


def test_step_is_measured_and_kept(tmp_path):
  result = run_script(
    '--measure=step', '--malloc=stock', '--rounds=2', '--steps=1',
    '--warmup=1', f'--config={ROOT}/configs/quickstart.py:runlocal',
    '--config.model.layers=conv:4 pool', '--config.model.branch=gap',
    f'--output={tmp_path}',
  )  # fmt: skip
  assert result.returncode == 0, result.stderr
  assert (tmp_path / 'benchmark.md').read_text() + '\n' == result.stdout
  content = json.loads((tmp_path / 'benchmark.json').read_text())
  assert content['measure'] == 'step'
  assert set(content['machine']) == {
    'command', 'date', 'commit', 'cpu', 'cores', 'memory_gib', 'load_before',
    'versions', 'device',
  }  # fmt: skip
  (row,) = content['rows']
  # 3 x 3 x 3 x 4 + 4, and a weight for each of 4 channels + 1 a task.
  assert row['parameters'] == 112 + 2 * 5
  # Forward and the kernel's gradient of the convolution; of the outputs the
  # input's as well.
  assert row['flops_per_image'] == 2 * 2 * 64**2 * 27 * 4 + 2 * 3 * 2 * 4
  assert len(row['seconds']) == 2 and min(row['seconds']) > 0
  speed = row['images_per_second']
  assert speed['low'] <= speed['median'] <= speed['high']
  assert speed['high'] == pytest.approx(4 / min(row['seconds']))
  for key in ('peak_rss', 'compile_seconds', 'tflops'):
    assert row[key] > 0


@pytest.mark.nightly
def test_whole_runs_are_timed(tmp_path):
  result = run_script(
    '--measure=run', '--malloc=stock', '--rounds=1', '--steps=1',
    f'--config={ROOT}/configs/quickstart.py:runlocal', '--warmup=1',
    '--config.model.layers=conv:4 pool', '--config.model.branch=gap',
    f'--config.data.data_dir={tmp_path / "data"}', f'--output={tmp_path}',
  )  # fmt: skip
  assert result.returncode == 0, result.stderr
  content = json.loads((tmp_path / 'benchmark.json').read_text())
  assert 'cpu' in content['machine']['device']
  whole, step = content['rows']
  assert whole['peak_rss'] > 0 and min(whole['seconds'] + step['seconds']) > 0
  assert content['ratios'][0]['name'].startswith('whole run / step alone')


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--malloc=fast', 'error: --malloc is some of tuned, stock'),
    ('--measure=step', 'error: --config=configs/NAME.py is needed'),
    ('--config=configs/nothing.py', 'error: --config=configs/nothing.py: no'),
  ],
)
def test_what_the_user_can_fix_is_a_line(flag, message):
  result = run_script(flag)
  assert result.returncode == 2
  assert result.stderr.startswith(message)
  assert result.stderr.count('\n') == 1


def test_noise_keeps_the_contract():
  batch = noise.create_batch(config_lib.default_config())
  assert set(batch) == set(schema.BATCH_KEYS)
  assert batch['image'].dtype == np.uint8 and batch['mask'].all()
