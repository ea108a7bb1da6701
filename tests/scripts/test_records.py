"""The rows that want a GPU: a few steps on a CPU, and what goes wrong."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import faces_on_disk
import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / 'scripts/records.sh'
SMALL = (
  '--config.data.cache=memmap', '--config.train.steps_per_call=1',
  '--config.train.num_epochs=0', '--config.train.num_steps=2',
  '--config.train.eval_every_epochs=0', '--config.train.eval_every_steps=2',
  '--config.optimizer.warmup_epochs=0', '--config.train.batch_size=4',
  '--config.train.bootstrap_samples=2', '--config.data.image_size=32',
)  # fmt: skip
# Stands for Python: it writes down what it is asked for.
STUB = """#!/bin/bash
for word; do case $word in --workdir=*) name=${word##*/} ;; esac; done
echo "$@" >> "$0.calls"
[ "$name" != "$FAILS" ] || exit 2
[ -z "${SLEEPS:-}" ] || exec sleep 60
"""


def write_fairface(folder):
  """Writes label files and images as FairFace's owners name them."""
  for part, count in (('train', 60), ('val', 20)):
    rows = ['file,age,gender,race,service_test']
    (folder / part).mkdir(parents=True)
    for number in range(1, count + 1):
      name = f'{part}/{number}.jpg'
      seed = 5000 + number + 100 * (part == 'val')
      (folder / name).write_bytes(faces_on_disk.jpeg(seed))
      age = ('3-9', '20-29', 'more than 70')[number % 3]
      rows.append(f'{name},{age},{("Male", "Female")[number % 2]},White,True')
    table = folder / f'fairface_label_{part}.csv'
    table.write_text('\n'.join(rows) + '\n')


@pytest.fixture
def command(tmp_path):
  """The command line, of folders whose names have blanks."""
  for name in ('utk face', 'fair face'):
    (tmp_path / name).mkdir()
  return ['bash', str(SCRIPT), 'utk face', 'fair face', 'the out']


def run(command, folder, **env):
  env = {**os.environ, **env}
  return subprocess.run(
    command, capture_output=True, text=True, env=env, cwd=folder, check=False
  )


@pytest.fixture
def stub(tmp_path):
  path = tmp_path / 'stub'
  path.write_text(STUB)
  path.chmod(0o755)
  return path


def calls(stub):
  return stub.with_name('stub.calls').read_text().splitlines()


def test_each_row_is_a_training(command, stub, tmp_path):
  done = run(command, tmp_path, PYTHON=str(stub), FAILS='')
  assert done.returncode == 0, done.stderr
  found = calls(stub)
  assert len(found) == 11
  start = f'init_from={tmp_path}/the out/fairface'
  assert sum(line.endswith(start) for line in found) == 3
  assert (tmp_path / 'the out/data/utkface').resolve() == tmp_path / 'utk face'


@pytest.mark.parametrize(
  'name, count', [('fairface_first', 7), ('fairface', 8), ('full_1', 11)]
)
def test_a_row_that_fails_is_named(command, stub, tmp_path, name, count):
  done = run(command, tmp_path, PYTHON=str(stub), FAILS=name)
  assert done.returncode == 2 and name in done.stderr and done.stderr.count('\n') == 1
  assert len(calls(stub)) == count  # None starts from a network that is not there.


def test_what_is_wrong_is_a_line(command, stub, tmp_path):
  assert (
    'error: bash scripts/records.sh' in run(command[:2], tmp_path, PYTHON='ls').stderr
  )
  (tmp_path / 'fair face').rmdir()
  done = run(command, tmp_path, PYTHON=str(stub))
  assert done.returncode == 2 and done.stderr.startswith(
    'error: fair face is no folder'
  )
  assert not stub.with_name('stub.calls').exists()
  done = run(command, tmp_path, PYTHON='no-such-python')
  assert done.returncode == 2 and 'name a Python' in done.stderr


def test_a_stopped_script_leaves_no_training(command, stub, tmp_path):
  env = {**os.environ, 'PYTHON': str(stub), 'FAILS': '', 'SLEEPS': '1'}
  with subprocess.Popen(command, env=env, cwd=tmp_path, start_new_session=True) as one:
    path = stub.with_name('stub.calls')
    while not path.exists() or len(calls(stub)) < 7:
      time.sleep(0.05)
    one.send_signal(signal.SIGTERM)
    assert one.wait(20) == 143
    with pytest.raises(ProcessLookupError):  # Nothing of its group lives.
      os.killpg(one.pid, 0)


@pytest.mark.nightly
def test_every_row_is_trained_and_scored(command, tmp_path):
  for name in ('utk face', 'fair face'):
    (tmp_path / name).rmdir()
  faces_on_disk.write_utkface(tmp_path / 'utk face', 400)
  write_fairface(tmp_path / 'fair face')
  command += [*SMALL, f'--config.data.data_dir={tmp_path / "prepared"}']
  times = []
  for _ in range(2):  # The second time all are finished.
    done = run(command, tmp_path, PYTHON=sys.executable, JAX_PLATFORMS='cpu')
    assert done.returncode == 0, done.stderr
    scores = sorted((tmp_path / 'the out').glob('*/scores.json'))
    assert len(scores) == 11
    times.append([path.stat().st_mtime_ns for path in scores])
  assert times[0] == times[1]
