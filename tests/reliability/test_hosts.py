"""Several real processes on one machine: they equal one, and end with one line."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from agegender_jax import config, errors
from agegender_jax.runtime import checkpoint, cluster

FLAGS = (
  '--config=configs/quickstart.py:runlocal',
  '--config.data.image_size=32', '--config.data.synthetic_examples=64',
  '--config.train.batch_size=8', '--config.train.bootstrap_samples=20',
  '--config.train.eval_every_epochs=0', '--config.train.eval_every_steps=8',
  '--config.train.log_every_steps=1', '--config.train.num_steps=20',
  '--config.distributed.heartbeat_timeout_seconds=10',
  # The recipe's rate makes of the last bit of a sum a digit within ten steps.
  '--config.optimizer.learning_rate=1e-5',
)  # fmt: skip


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


def environment():
  """Leaves out the two devices that conftest asks for."""
  flags = os.environ['XLA_FLAGS']
  flags = re.sub(r'--xla_force_host_platform_device_count=\d+', '', flags)
  return {**os.environ, 'XLA_FLAGS': flags}


def start(workdir, data, *flags, number=1, devices=2):
  """Starts one process, or several by scripts/launch_local.py."""
  launch = ['scripts/launch_local.py', f'--processes={number}', '--']
  return subprocess.Popen(
    [sys.executable, *(launch if number > 1 else ['-m', 'agegender_jax.main']), *FLAGS,
     f'--workdir={workdir}', f'--config.data.data_dir={data}',
     f'--config.train.cpu_devices={devices}', *flags],
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
  )  # fmt: skip


def end(process):
  """Waits for a process; returns status, stdout and the lines on stderr."""
  stdout, stderr = process.communicate(timeout=300)
  return process.returncode, stdout, stderr.splitlines()


def rows(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def leaves(workdir):
  checkpoints = checkpoint.Checkpoints(str(workdir), [('validation/age_mae', -1)])
  return checkpoints.record(checkpoints.latest_step())['leaves']


def wait_for_step(process, step):
  for line in process.stdout:
    if f'step {step}/20' in line:
      return
  raise AssertionError(process.stderr.read())


def check_equal_to_one_process(tmp_path, data, number):
  one, many = tmp_path / 'one', tmp_path / 'many'
  for workdir, processes in ((one, 1), (many, number)):
    process = start(workdir, data, number=processes, devices=number)
    status, _, lines = end(process)
    assert (status, lines) == (0, [])
  found, expected = rows(many), rows(one)
  assert [row['step'] for row in found] == list(range(1, 21))
  for row, like in zip(found, expected, strict=True):
    names = [name for name in like if name.endswith(('loss', 'mae', 'accuracy'))]
    values = pytest.approx([like[name] for name in names], rel=1e-5)
    assert 'train/loss' in names and [row[name] for name in names] == values
  assert {'validation/loss', 'validation/age_mae'} <= set(names)
  scores = [json.loads((path / 'scores.json').read_text()) for path in (one, many)]
  numbers = {k: v for k, v in scores[0].items() if not isinstance(v, str)}
  assert numbers == pytest.approx({k: scores[1][k] for k in numbers}, rel=1e-4)
  return many


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, data):
  return check_equal_to_one_process(tmp_path_factory.mktemp('runs'), data, 2)


def test_two_processes_equal_one_with_two_devices(undisturbed):
  assert (undisturbed / 'report.html').exists()


@pytest.mark.nightly
def test_four_processes_equal_one_with_four_devices(tmp_path, data):
  check_equal_to_one_process(tmp_path, data, 4)


def children(process):
  """Returns the processes that a process started, by their index."""
  tasks = pathlib.Path(f'/proc/{process.pid}/task').glob('*/children')
  found = [path.read_text() for path in tasks]
  return sorted(int(child) for text in found for child in text.split())


@pytest.mark.nightly
def test_a_lost_process_ends_all_and_a_restart_gives_the_same_bits(
  undisturbed, tmp_path, data
):
  process = start(tmp_path, data, number=2)
  wait_for_step(process, 10)
  clock = time.monotonic()
  os.kill(children(process)[1], signal.SIGKILL)
  status, _, lines = end(process)
  assert time.monotonic() - clock < 60
  assert status in (128 + signal.SIGKILL, cluster.LOST)
  assert len(lines) == 1 and 'another process of the run is lost' in lines[0], lines
  # Then the same run, stopped by a signal to one of the processes alone.
  process = start(tmp_path, data, number=2)
  wait_for_step(process, 11)
  os.kill(children(process)[1], signal.SIGTERM)
  status, _, lines = end(process)
  assert status == 143 and len(lines) == 2, lines
  assert all('stopped by SIGTERM at step' in line for line in lines)
  status, stdout, lines = end(start(tmp_path, data, number=2))
  assert (status, lines) == (0, [])
  assert re.search(r'resumed at step 1\d of 20', stdout)
  assert leaves(tmp_path) == leaves(undisturbed)


@pytest.mark.nightly
def test_processes_with_other_flags_are_refused(tmp_path, data):
  values = {'JAX_COORDINATOR_ADDRESS': '127.0.0.1:29471', 'JAX_NUM_PROCESSES': '2'}
  processes = []
  for index in range(2):
    own_flags = (f'--workdir={tmp_path}', f'--config.data.data_dir={data}',
                 f'--config.seed={index}')  # fmt: skip
    command = [sys.executable, '-m', 'agegender_jax.main', *FLAGS, *own_flags]
    own = environment() | values | {'JAX_PROCESS_ID': str(index)}
    processes.append(
      subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=own)
    )
  ends = [end(process) for process in processes]
  assert ends[0][0] == 2 and len(ends[0][2]) == 1
  assert 'seed is 1 in process 1 and 0 in process 0' in ends[0][2][0]
  assert ends[1][0] in (2, cluster.LOST) and len(ends[1][2]) == 1


def test_variables_that_a_mode_does_not_use_are_refused(tmp_path):
  values = zip(cluster.VARIABLES, ('127.0.0.1:1', '2', '0'), strict=True)
  result = subprocess.run(
    [sys.executable, '-m', 'agegender_jax.main', '--mode=predict', *FLAGS[:1],
     f'--workdir={tmp_path}'],
    env=environment() | dict(values), capture_output=True, text=True,
  )  # fmt: skip
  lines = result.stderr.splitlines()
  assert result.returncode == 2 and len(lines) == 1
  assert 'is for one process' in lines[0]


def test_processes_are_found_in_the_configuration_then_in_jaxs_variables(monkeypatch):
  for name in cluster.VARIABLES:
    monkeypatch.delenv(name, raising=False)
  fields = config.default_config().distributed
  assert cluster.find(fields) is None
  for name, value in zip(cluster.VARIABLES, ('a:1', '4', '3'), strict=True):
    monkeypatch.setenv(name, value)
  assert cluster.find(fields) == ('a:1', 4, 3)
  fields.update(coordinator='b:2', num_processes=2, process_id=1)
  assert cluster.find(fields) == ('b:2', 2, 1)
  fields.coordinator = 'auto'
  assert cluster.find(fields) == ('auto', 0, 0)


@pytest.mark.parametrize('values', [('a:1', '', ''), ('', '2', '0'), ('a', '2', '0'),
                                    ('a:1', '2', '2'), ('a:1', '2', ''),
                                    ('', '', '1')])  # fmt: skip
def test_half_a_cluster_is_refused(monkeypatch, values):
  for name, value in zip(cluster.VARIABLES, values, strict=True):
    monkeypatch.setenv(name, value)
  with pytest.raises(errors.UserError, match='HOST:PORT'):
    cluster.find(config.default_config().distributed)
