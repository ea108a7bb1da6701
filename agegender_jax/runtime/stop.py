"""Stop signals: a checkpoint where training runs, at once everywhere else.

Python runs its signal handlers between two instructions of the main thread, which
may sit in a compiler for minutes. A thread on `signal.set_wakeup_fd` hears of a
signal at once and ends the process, unless the loop of training has said that it
will: then it waits for the checkpoint, at most `GRACE_SECONDS` but for a save.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

from agegender_jax.runtime import process

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE_SECONDS = 8.0


class StopError(Exception):
  """A signal has come."""


class Stop:
  """What has been asked for, and who answers."""

  def __init__(self):
    self.requested = 0  # The signal, 0 without one.
    self._deferrals = 0
    self._is_saving = False
    self._lock = threading.Lock()

  def listen(self) -> None:
    """Takes over SIGTERM and SIGINT of this process."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in SIGNALS:
      signal.signal(number, lambda number, frame: None)
      signal.siginterrupt(number, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=self._listen, args=(reader,), daemon=True).start()

  def _listen(self, reader):
    while True:
      for number in os.read(reader, 64):
        if number in SIGNALS:
          self._hear(number)

  def _hear(self, number):
    with self._lock:
      if self.requested or not self._deferrals:
        self.leave(number)
      self.requested = number
    threading.Thread(target=self._leave_late, args=(number,), daemon=True).start()

  def _leave_late(self, number):
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline or self._is_saving:
      time.sleep(0.05)
    self.leave(number)

  @contextlib.contextmanager
  def deferred(self) -> Iterator[None]:
    """Leaves the process to the body, which looks at `requested` soon."""
    with self._lock:
      self._deferrals += 1
    try:
      yield
    finally:
      with self._lock:
        self._deferrals -= 1

  @contextlib.contextmanager
  def at_once(self) -> Iterator[None]:
    """Lets a signal end the process within the body, such as a compilation."""
    with self._lock:
      kept, self._deferrals = self._deferrals, 0
      if self.requested:
        self.leave(self.requested)
    try:
      yield
    finally:
      with self._lock:
        self._deferrals = kept

  def check(self) -> None:
    """Raises StopError once a signal has come."""
    if self.requested:
      raise StopError

  @contextlib.contextmanager
  def saving(self) -> Iterator[None]:
    """Lets the body end, however long it takes."""
    self._is_saving = True
    try:
      yield
    finally:
      self._is_saving = False

  def leave(self, number: int, done: str = '') -> None:
    """Ends the process with one line and status 128 + number.

    Args:
      number: the signal.
      done: what was saved before, '' for nothing.
    """
    name = signal.Signals(number).name
    line = f'stopped by {name}{done}; run the same command again'
    process.leave(128 + number, line)


STOP = Stop()
