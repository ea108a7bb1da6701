"""Which records are due, and what their times hold."""

import jax
import numpy as np
import pytest

from agegender_jax.runtime import devices
from agegender_jax.training import progress


class Report:
  """A call's report that is done when the test says so."""

  def __init__(self, value, ready=True):
    self.value, self.ready, self.waited_for = value, ready, False

  def is_ready(self):
    return self.ready

  def block_until_ready(self):
    self.ready = self.waited_for = True
    return self


@pytest.fixture
def clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  monkeypatch.setattr(devices, 'read', lambda report: report['seen'].value)
  return now


def call(stop, ready=True, waited=0.0, compiling=0.0):
  return progress.Call(stop, {'seen': Report(stop, ready)}, waited, compiling)


def test_a_record_is_due_after_so_many_steps(clock):
  running = progress.Progress(start=10, log_every_steps=4)
  for stop in (12, 14, 16, 18, 20):
    clock[0] += 1
    running.add(call(stop, waited=0.25))
    found = list(running.records(drain=False))
    if stop not in (14, 18):
      assert not found
      continue
    ((step, reports, scalars),) = found
    assert step == stop and reports == [stop - 2, stop]
    # Two seconds for four steps, without a gap between the records.
    assert scalars == {
      'train/step_seconds': 0.5,
      'train/input_wait_seconds': 0.125,
    }


def test_calls_that_run_are_left_alone_until_there_are_many(clock):
  running = progress.Progress(start=0, log_every_steps=1)
  calls = [call(stop, ready=False) for stop in range(1, 7)]
  for one in calls[: progress.CALLS_IN_FLIGHT]:
    running.add(one)
    assert not list(running.records(drain=False))
  assert not any(one.report['seen'].waited_for for one in calls)
  running.add(calls[4])
  assert [step for step, *_ in running.records(drain=False)] == [1]
  assert [one.done is None for one in calls[:5]] == [False] + [True] * 4
  running.add(calls[5])
  clock[0] += 1
  steps = [step for step, *_ in running.records(drain=True)]
  assert steps == [2, 3, 4, 5, 6]


def test_draining_ends_a_record_with_the_last_call(clock):
  running = progress.Progress(start=0, log_every_steps=3)
  for stop in (2, 4, 5):
    running.add(call(stop, ready=False))
  clock[0] += 5
  found = list(running.records(drain=True))
  assert [(step, reports) for step, reports, _ in found] == [
    (4, [2, 4]),
    (5, [5]),
  ]
  assert not list(running.records(drain=True))


def test_compiling_is_told_apart_once(clock):
  running = progress.Progress(start=0, log_every_steps=2)
  clock[0] += 7  # Of compiling.
  running.add(call(2, ready=False, compiling=7.0))
  clock[0] += 1
  # A shorter call comes, and its program is a new one: the first has run.
  running.settle()
  clock[0] += 3
  running.add(call(3, ready=False, compiling=3.0))
  clock[0] += 2
  first, last = [scalars for *_, scalars in running.records(drain=True)]
  assert first['train/compile_seconds'] == 7
  assert first['train/step_seconds'] == pytest.approx(1 / 2)
  assert last['train/compile_seconds'] == 3
  assert last['train/step_seconds'] == pytest.approx(2)


def test_what_happens_between_two_records_may_be_left_out(clock):
  running = progress.Progress(start=0, log_every_steps=1)
  running.add(call(1))
  list(running.records(drain=True))
  clock[0] += 50  # An evaluation.
  running.restart(1)
  clock[0] += 1
  running.add(call(2))
  ((_, _, scalars),) = running.records(drain=True)
  assert scalars['train/step_seconds'] == 1


def test_reports_of_devices_come_back_by_name():
  def two_steps(state, data, batches, key):
    value = devices.psum(batches['x'].sum(-1))
    return state, {'loss': (value, value + 1)}

  compiled = devices.pmap_train_steps(two_steps, terms='progress')
  batches = devices.shard_steps({'x': np.arange(8.0, dtype=np.float32)}, 2)
  key = devices.share(jax.random.key(0))
  running = progress.Progress(start=0, log_every_steps=2)
  running.add(progress.Call(2, compiled({}, {}, batches, key)[1], 0.0))
  ((step, (report,), _),) = running.records(drain=True)
  assert step == 2
  np.testing.assert_array_equal(report['loss'], [[6, 22], [7, 23]])
