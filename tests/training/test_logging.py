"""What a run logs: times, means, records."""

import subprocess
import sys

import numpy as np
import pytest

from agegender_jax.runtime import devices
from agegender_jax.training import logging


class Report:
  """A dispatch's report, which knows that it was waited for."""

  def __init__(self, value):
    self.value, self.waited_for = value, False

  def block_until_ready(self):
    self.waited_for = True
    return self


@pytest.fixture
def clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(logging.time, 'monotonic', lambda: now[0])
  monkeypatch.setattr(devices, 'unreplicate', lambda report: report['seen'].value)
  return now


def test_a_record_has_all_steps_since_the_last_one(clock):
  meter = logging.Meter(10)
  for stop in (12, 14):
    clock[0] += 1
    meter.add({'seen': Report(stop)}, waited=0.25)
  reports, times = meter.end(14)
  assert reports == [12, 14]
  assert times == {'train/step_seconds': 0.5, 'train/input_wait_seconds': 0.125}
  clock[0] += 3
  meter.add({'seen': Report(15)}, waited=0.0)
  assert meter.end(15) == (
    [15], {'train/step_seconds': 3, 'train/input_wait_seconds': 0}
  )  # fmt: skip


def test_the_host_waits_only_for_what_is_long_under_way(clock):
  meter = logging.Meter(0)
  reports = [Report(step) for step in range(7)]
  for report in reports:
    meter.add({'seen': report}, waited=0.0)
  flight = logging.CALLS_IN_FLIGHT
  assert [r.waited_for for r in reports] == [True] * (7 - flight) + [False] * flight


def test_compiling_and_evaluating_are_left_out(clock):
  meter = logging.Meter(0)
  clock[0] += 8  # Seven of them compiling.
  meter.add({'seen': Report(1)}, waited=0.0, compiling=7.0)
  _, times = meter.end(1)
  assert times['train/compile_seconds'] == 7 and times['train/step_seconds'] == 1
  clock[0] += 50  # An evaluation.
  meter.restart(1)
  clock[0] += 2
  meter.add({'seen': Report(2)}, waited=0.0)
  _, times = meter.end(2)
  assert times['train/step_seconds'] == 2 and 'train/compile_seconds' not in times


def test_means_weigh_steps_by_their_counts():
  reports = [
    {'age_mae': np.float32([[6, 2]]), 'loss': np.float32([[5, 1]])},
    {'age_mae': np.float32([[0, 1]]), 'loss': np.float32([[1, 3]])},
  ]
  found = logging.mean_metrics(reports)
  assert found == pytest.approx({'train/age_mae': 2, 'train/loss': 1.5})


def test_means_leave_out_what_no_step_counted():
  reports = [{'age_mae': np.float32([[0, 0]]), 'loss': np.float32([[2, 1]])}]
  assert logging.mean_metrics(reports) == {'train/loss': 2}


CODE = """
import sys
from agegender_jax.evaluation import artifacts
from agegender_jax.training import logging
log = logging.Logger(sys.argv[1], 0, 2)
log.write(1, 0.5, {'train/loss': 1.5})
log.close()
assert artifacts.read_metrics(sys.argv[1]) == [
  {'step': 1, 'epoch': 0.5, 'train/loss': 1.5}
]
print('torch' in sys.modules)
"""


def test_tensorboard_is_written_without_importing_torch(tmp_path):
  result = subprocess.run(
    [sys.executable, '-c', CODE, str(tmp_path)],
    capture_output=True,
    text=True,
    check=True,
  )
  assert result.stdout.splitlines()[-1] == 'False'
  (events,) = (tmp_path / 'tensorboard').iterdir()
  assert b'train/loss' in events.read_bytes()
