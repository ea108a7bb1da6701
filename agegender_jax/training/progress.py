"""From calls that run to records of training: what is done, and how fast."""

import collections
import dataclasses
import time
from collections.abc import Iterator

import jax
import numpy as np

from agegender_jax.runtime import devices

# Calls whose results the host leaves unread: bounds what waits on the device.
CALLS_IN_FLIGHT = 4


@dataclasses.dataclass
class Call:
  """A dispatch whose steps run, or have run.

  Attributes:
    stop: steps that are done with it.
    report: see devices.pmap_train_steps.
    waited: seconds for its batches.
    compiling: seconds until it returned, where its program was a new one.
    done: the clock when it was done, None until that is known.
  """

  stop: int
  report: dict[str, jax.Array]
  waited: float
  compiling: float = 0.0
  done: float | None = None

  def wait(self) -> None:
    """Waits until the steps are done."""
    if self.done is None:
      jax.block_until_ready(self.report)
      self.done = time.monotonic()


class Progress:
  """Turns calls into records, each of some steps that are done."""

  def __init__(self, start: int, log_every_steps: int):
    """Begins now.

    Args:
      start: steps done before.
      log_every_steps: after how many a record is due.
    """
    self._log_every_steps = log_every_steps
    self._in_flight = collections.deque()
    self.restart(start)

  def restart(self, step: int) -> None:
    """Leaves out of all records what happened since the last one."""
    self._begin(step, time.monotonic())

  def _begin(self, step, clock):
    self._start, self._clock, self._calls = step, clock, []

  def add(self, call: Call) -> None:
    """Takes a call that was just asked for."""
    self._in_flight.append(call)

  def settle(self) -> None:
    """Waits for all calls."""
    for call in self._in_flight:
      call.wait()

  def records(
    self, drain: bool
  ) -> Iterator[tuple[int, list[dict[str, tuple[np.ndarray, ...]]], dict]]:
    """Yields the records that have become due; the devices go on meanwhile.

    Args:
      drain: wait for all calls, the last of which ends a record; else only
        for what is more than CALLS_IN_FLIGHT.

    Yields:
      The last step, the reports as devices.read brings them, and the times as
      scalars.
    """
    while self._in_flight and (
      drain
      or len(self._in_flight) > CALLS_IN_FLIGHT
      or devices.is_done(self._in_flight[0].report)
    ):
      call = self._in_flight.popleft()
      call.wait()
      self._calls.append(call)
      is_last = drain and not self._in_flight
      if is_last or call.stop - self._start >= self._log_every_steps:
        yield self._end()

  def _end(self):
    """Ends a record with the last call that was done, and begins another."""
    calls, last = self._calls, self._calls[-1]
    steps = last.stop - self._start
    compiling = sum(call.compiling for call in calls)
    waited = sum(call.waited for call in calls)
    scalars = {
      'train/step_seconds': (last.done - self._clock - compiling) / steps,
      'train/input_wait_seconds': waited / steps,
    }
    if compiling:
      scalars['train/compile_seconds'] = compiling
    self._begin(last.stop, last.done)
    return last.stop, [devices.read(call.report) for call in calls], scalars
