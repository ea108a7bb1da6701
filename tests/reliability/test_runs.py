"""Real runs that are stopped, starved and extended end with one line."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from agegender_jax.runtime import checkpoint

FLAGS = (
  '--config=configs/quickstart.py:runlocal',
  '--config.data.image_size=32', '--config.data.synthetic_examples=64',
  '--config.train.batch_size=8', '--config.train.bootstrap_samples=20',
  '--config.train.eval_every_epochs=0', '--config.train.eval_every_steps=3',
  '--config.train.log_every_steps=1',
)  # fmt: skip


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


def start(workdir, data, *flags, steps=6, limit=0, code=()):
  process = subprocess.Popen(
    [sys.executable, *(code or ('-m', 'agegender_jax.main')), *FLAGS,
     f'--workdir={workdir}',
     f'--config.data.data_dir={data}', f'--config.train.num_steps={steps}', *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )  # fmt: skip
  if limit:
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
  return process


def end(process):
  """Waits for a process; returns status, stdout and the lines on stderr."""
  stdout, stderr = process.communicate()
  return process.returncode, stdout, stderr.splitlines()


def checkpoints_of(workdir):
  return checkpoint.Checkpoints(str(workdir), [('validation/age_mae', -1)])


def leaves(workdir):
  checkpoints = checkpoints_of(workdir)
  return checkpoints.record(checkpoints.latest_step())['leaves']


@pytest.fixture(scope='module')
def finished(tmp_path_factory, data):
  workdir = tmp_path_factory.mktemp('finished')
  status, _, lines = end(start(workdir, data))
  assert (status, lines) == (0, [])
  assert checkpoints_of(workdir).steps() == [3, 6]
  return workdir


def test_a_stopped_run_goes_on_to_the_same_bits(finished, tmp_path, data):
  flag = '--config.train.log_every_steps=2'
  process = start(tmp_path, data, flag)
  while 'step 4/6' not in process.stdout.readline():
    pass
  clock = time.monotonic()
  process.send_signal(signal.SIGTERM)
  status, _, lines = end(process)
  assert time.monotonic() - clock < 10
  assert status == 143 and len(lines) == 1, lines
  assert lines[0].startswith('stopped by SIGTERM')
  assert (tmp_path / '.lock').read_text().startswith('host ')
  status, stdout, lines = end(start(tmp_path, data, flag))
  assert (status, lines) == (0, [])
  assert 'resumed at step' in stdout
  assert_same_ends(tmp_path, finished)
  assert [row['step'] for row in rows(tmp_path)] == [2, 3, 4, 6]


# A real signal, within the first validation.
STOPPED_IN_VALIDATION = """
import os, signal, time
from agegender_jax import main
from agegender_jax.evaluation import evaluate
predict_split = evaluate.predict_split
def stopped(*arguments):
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(0.5)
  return predict_split(*arguments)
evaluate.predict_split = stopped
main.run()
"""


@pytest.mark.nightly
def test_a_run_stopped_while_it_validates_is_saved_and_validates_next(
  finished, tmp_path, data
):
  status, _, lines = end(start(tmp_path, data, code=('-c', STOPPED_IN_VALIDATION)))
  assert (status, len(lines)) == (143, 1), lines
  assert lines[0].startswith('stopped by SIGTERM at step 3, which is saved')
  assert checkpoints_of(tmp_path).steps() == [3]
  status, _, lines = end(start(tmp_path, data))
  assert (status, lines) == (0, [])
  assert_same_ends(tmp_path, finished)
  found, expected = (
    [(row['step'], row['train/loss'], row.get('validation/loss')) for row in rows(path)]
    for path in (tmp_path, finished)
  )
  assert found == expected


def rows(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def assert_same_ends(workdir, other):
  assert leaves(workdir) == leaves(other)
  scores = [(path / 'scores.json').read_text() for path in (workdir, other)]
  assert scores[0] == scores[1]


@pytest.mark.nightly  # test_disks has real full disks.
@pytest.mark.parametrize('limit', [2_000, 200_000])
def test_a_full_disk_is_one_line(tmp_path, data, finished, limit):
  status, _, lines = end(start(tmp_path, data, limit=limit))
  assert status == 2 and len(lines) == 1, lines
  assert 'File too large' in lines[0]
  status, _, lines = end(start(tmp_path, data))
  assert (status, lines) == (0, [])
  assert leaves(tmp_path) == leaves(finished)


def test_steps_that_are_not_finite_are_skipped_and_counted(tmp_path, data):
  flags = ('--config.train.on_nonfinite=skip', '--config.train.max_skipped_steps=1',
           '--config.optimizer.learning_rate=1e38',
           '--config.train.eval_every_steps=6')  # fmt: skip
  status, _, lines = end(start(tmp_path, data, *flags))
  assert status == 2 and len(lines) == 1 and '2 steps in a row' in lines[0], lines
  counts = [row['train/skipped_steps'] for row in rows(tmp_path)]
  assert counts[0] == 0 and counts[-1] == 1


def test_a_finished_run_is_extended_and_keeps_its_scores(finished, data):
  before = (finished / 'scores.json').read_text()
  status, _, lines = end(start(finished, data, '--config.optimizer.momentum=0.5'))
  assert status == 2 and 'optimizer.momentum was 0.9' in lines[0]
  status, stdout, lines = end(start(finished, data, steps=9))
  assert (status, lines) == (0, [])
  assert 'train.num_steps was 6, is 9' in stdout
  assert 'the cosine now ends at step 9 instead of 6' in stdout
  assert 'resumed at step 6 of 9' in stdout
  step = json.loads(before)['step']
  kept = finished / 'eval' / f'synthetic_test_{step}' / 'scores.json'
  assert kept.read_text() == before
  assert checkpoints_of(finished).latest_step() == 9
  status, _, lines = end(start(finished, data))
  assert status == 2 and 'beyond the end' in lines[0]


def test_gone_checkpoints_never_start_afresh(finished, data):
  folder = finished / 'checkpoints'
  os.rename(folder, finished / 'away')
  (finished / 'run.json').unlink()
  for index in (True, False):
    if not index:
      os.rename(finished / 'checkpoints.json', finished / 'away.json')
    status, _, lines = end(start(finished, data, steps=9))
    assert status == 2 and len(lines) == 1 and 'gone' in lines[0], lines
