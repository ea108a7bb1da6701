"""Several real processes on one machine: they equal one, and end with one line."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from agegender_jax import config, errors
from agegender_jax.runtime import checkpoint, cluster, hosts
from agegender_jax.runtime import process as process_lib

FLAGS = (
  '--config=configs/quickstart.py:runlocal',
  '--config.data.image_size=32', '--config.data.synthetic_examples=64',
  '--config.train.batch_size=8', '--config.train.bootstrap_samples=20',
  '--config.train.eval_every_epochs=0', '--config.train.eval_every_steps=8',
  '--config.train.log_every_steps=1', '--config.train.num_steps=20',
  '--config.distributed.heartbeat_timeout_seconds=10',
)  # fmt: skip
# Where XLA has other threads, and so another order of sums: the recipe's rate makes of
# the last bit of one a digit within ten steps.
RATE = '--config.optimizer.learning_rate=1e-5'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


def environment():
  """Leaves out the two devices that conftest asks for."""
  flags = os.environ['XLA_FLAGS']
  flags = re.sub(r'--xla_force_host_platform_device_count=\d+', '', flags)
  return {**os.environ, 'XLA_FLAGS': flags}


def start(workdir, data, *flags, number=1, devices=2, **variables):
  """Starts one process, or several by scripts/launch_local.py."""
  launch = ['scripts/launch_local.py', f'--processes={number}', '--']
  return subprocess.Popen(
    [sys.executable, *(launch if number > 1 else ['-m', 'agegender_jax.main']), *FLAGS,
     f'--workdir={workdir}', f'--config.data.data_dir={data}',
     f'--config.train.cpu_devices={devices}', *flags],
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    env=environment() | variables,
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


def check_equal_to_one_process(tmp_path, data, number, devices, *flags):
  one, many = tmp_path / 'one', tmp_path / 'many'
  for workdir, processes in ((one, 1), (many, number)):
    process = start(workdir, data, *flags, number=processes, devices=devices)
    status, _, lines = end(process)
    assert (status, lines) == (0, [])
  check_rows(many, one)
  cores = process_lib.num_cores()
  if cores % number == 0 or cores < number:  # Every device has as many of them.
    assert leaves(many) == leaves(one)
  scores = (json.loads((path / 'scores.json').read_text()) for path in (many, one))
  check_scores(*scores)
  return many


def check_rows(workdir, like):
  found, expected = rows(workdir), rows(like)
  assert [row['step'] for row in found] == list(range(1, 21))
  for row, like in zip(found, expected, strict=True):
    names = [name for name in like if name.endswith(('loss', 'mae', 'accuracy'))]
    values = pytest.approx([like[name] for name in names], rel=1e-5)
    assert 'train/loss' in names and [row[name] for name in names] == values
  assert {'validation/loss', 'validation/age_mae'} <= set(names)


def check_scores(found, expected):
  numbers = {k: v for k, v in expected.items() if not isinstance(v, str)}
  assert {k: found[k] for k in numbers} == pytest.approx(numbers, rel=1e-4)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, data):
  return check_equal_to_one_process(tmp_path_factory.mktemp('runs'), data, 2, 2)


def test_two_processes_have_the_bits_of_one_with_two_devices(undisturbed):
  assert (undisturbed / 'report.html').exists()


@pytest.mark.nightly
@pytest.mark.parametrize('number', [2, 4])
def test_processes_have_the_bits_of_one_with_four_devices(tmp_path, data, number):
  check_equal_to_one_process(tmp_path, data, number, 4)


@pytest.mark.nightly
def test_a_process_more_than_devices_is_refused(tmp_path, data):
  status, _, lines = end(start(tmp_path, data, number=2, devices=3))
  assert status == 2 and 'not a multiple of the 2 processes' in lines[0]


@pytest.mark.nightly
def test_slurms_variables_are_found(tmp_path, data):
  job = {'SLURM_JOB_ID': str(os.getpid()), 'SLURM_STEP_NODELIST': 'localhost',
         'SLURM_NTASKS': '2'}  # fmt: skip
  flags = '--config.distributed.coordinator=auto', RATE
  processes = [
    start(tmp_path / 'many', data, *flags, SLURM_PROCID=i, SLURM_LOCALID=i, **job)
    for i in '01'
  ]
  processes.append(start(tmp_path / 'one', data, RATE))
  assert [end(process)[::2] for process in processes] == [(0, [])] * 3
  check_rows(tmp_path / 'many', tmp_path / 'one')


@pytest.mark.nightly
def test_evaluation_shared_out_equals_one_process(undisturbed, tmp_path, data):
  many = shutil.copytree(undisturbed, tmp_path / 'many')
  # Other images are scored than those that calibrate, so that both are shared out.
  flags = ('--mode=evaluate', '--config.data.eval_split=train',
           '--config.data.calibration_split=test')  # fmt: skip
  found = {}
  for workdir, number in ((undisturbed, 1), (many, 2)):
    status, stdout, lines = end(start(workdir, data, *flags, number=number))
    assert (status, lines) == (0, []) and 'calibrated on 16 images' in stdout
    folder = workdir / 'eval' / 'synthetic_train_20'
    found[number] = json.loads((folder / 'scores.json').read_text())
    assert len((folder / 'predictions.csv').read_text().splitlines()) == 44
  check_scores(found[2], found[1])


@pytest.mark.nightly
def test_teachers_answer_for_each_image_as_in_one_process(tmp_path, data):
  teacher = tmp_path / 'teacher'
  kind = '--config.tasks.age.kind=ldl'
  status, _, lines = end(start(teacher, data, kind, '--config.train.num_steps=8'))
  assert (status, lines) == (0, [])
  flags = (kind, f'--config.train.teachers={teacher}')
  check_equal_to_one_process(tmp_path, data, 2, 2, *flags)


def children(pid):
  """Returns the processes that a process started, by their index."""
  tasks = pathlib.Path(f'/proc/{pid}/task').glob('*/children')
  found = [path.read_text() for path in tasks]
  return sorted(int(child) for text in found for child in text.split())


@pytest.mark.nightly
def test_a_lost_process_ends_all_and_a_restart_gives_the_same_bits(
  undisturbed, tmp_path, data
):
  process = start(tmp_path, data, number=2)
  wait_for_step(process, 10)
  clock = time.monotonic()
  os.kill(children(process.pid)[1], signal.SIGKILL)
  status, _, lines = end(process)
  assert time.monotonic() - clock < 60
  assert status in (128 + signal.SIGKILL, cluster.LOST)
  assert len(lines) == 1 and 'another process of the run is lost' in lines[0], lines
  # Then the same run, stopped by a signal to one of the processes alone.
  process = start(tmp_path, data, number=2)
  wait_for_step(process, 11)
  os.kill(children(process.pid)[1], signal.SIGTERM)
  status, _, lines = end(process)
  assert status == 143 and len(lines) == 2, lines
  assert all('stopped by SIGTERM at step' in line for line in lines)
  status, stdout, lines = end(start(tmp_path, data, number=2))
  assert (status, lines) == (0, [])
  assert re.search(r'resumed at step 1\d of 20', stdout)
  assert leaves(tmp_path) == leaves(undisturbed)


@pytest.mark.nightly
@pytest.mark.parametrize('index', [0, 1])
def test_a_frozen_process_is_lost_and_ends_when_it_goes_on(
  undisturbed, tmp_path, data, index
):
  process = start(tmp_path, data, number=2)
  wait_for_step(process, 10)
  clock = time.monotonic()
  parents = children(process.pid)
  [frozen] = children(parents[index])
  os.kill(frozen, signal.SIGSTOP)
  while pathlib.Path(f'/proc/{parents[1 - index]}').exists():
    assert time.monotonic() - clock < 60
    time.sleep(0.1)
  os.kill(frozen, signal.SIGCONT)
  status, _, lines = end(process)
  assert status == cluster.LOST and len(lines) == 2
  assert all('another process of the run is lost' in line for line in lines)
  status, stdout, lines = end(start(tmp_path, data, number=2))
  assert (status, lines) == (0, []) and 'resumed at step 8 of 20' in stdout
  assert leaves(tmp_path) == leaves(undisturbed)


@pytest.mark.nightly
def test_processes_with_other_flags_are_refused(tmp_path, data):
  values = ('127.0.0.1:29471', '2')
  processes = []
  for index in range(2):
    pairs = zip(cluster.VARIABLES, (*values, str(index)), strict=True)
    flag = f'--config.seed={index}'
    processes.append(start(tmp_path, data, flag, **dict(pairs)))
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


def test_a_failed_connection_without_text_is_one_line(monkeypatch):
  def fail(**_):
    raise RuntimeError

  monkeypatch.setattr(hosts.jax.config, 'update', lambda *_: None)
  monkeypatch.setattr(hosts.jax.distributed, 'initialize', fail)
  with pytest.raises(errors.UserError, match='no connection .* a:1 .*: RuntimeError'):
    hosts.join(config.default_config().distributed, ('a:1', 2, 0))


@pytest.mark.parametrize('values', [('a:1', '', ''), ('', '2', '0'), ('a', '2', '0'),
                                    ('a:1', '2', '2'), ('a:1', '2', ''),
                                    ('', '', '1')])  # fmt: skip
def test_half_a_cluster_is_refused(monkeypatch, values):
  for name, value in zip(cluster.VARIABLES, values, strict=True):
    monkeypatch.setenv(name, value)
  with pytest.raises(errors.UserError, match='HOST:PORT'):
    cluster.find(config.default_config().distributed)
