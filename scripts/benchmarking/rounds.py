"""Starts worker processes and takes turns among them."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from agegender_jax import errors

_SCRIPTS = pathlib.Path(__file__).parent.parent


class WorkerDied(Exception):
  """A worker ended before it was told to: out of memory, most likely."""


def environment(**changes: str | None) -> dict[str, str]:
  """Returns the environment of a process that imports these packages.

  Args:
    **changes: to this process's own; None takes a variable out.
  """
  paths = [str(_SCRIPTS), str(_SCRIPTS.parent)]
  paths += filter(None, [os.environ.get('PYTHONPATH')])
  result = {
    **os.environ,
    'PYTHONPATH': os.pathsep.join(paths),
    # Several processes share a GPU here, and one would take most of it.
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    'TF_CPP_MIN_LOG_LEVEL': '2',
    **changes,
  }
  return {name: value for name, value in result.items() if value is not None}


class Worker:
  """A process that runs a job when told to.

  Attributes:
    name: for the table.
    facts: what the job said of itself.
    seconds: a call, by round.
    memory: the last answer's `peak_rss` and `peak_device`, GiB or None.
  """

  def __init__(self, name: str, task: dict, **env: str):
    """Starts a process and waits until it is ready.

    Args:
      name: for the table.
      task: see worker.create_job.
      **env: changes of the environment.

    Raises:
      errors.UserError: the job refuses the task.
      WorkerDied: the process ended.
    """
    self.name, self.task = name, task
    self.seconds, self.memory = [], {}
    self._errors = tempfile.TemporaryFile('w+')
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'benchmarking.worker'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      text=True,
      env=environment(**env),
    )
    self.facts = self._ask(json.dumps(task))

  def _ask(self, line):
    try:
      self._process.stdin.write(line + '\n')
      self._process.stdin.flush()
    except BrokenPipeError:
      pass  # The empty answer says so.
    answer = self._process.stdout.readline()
    if not answer:
      status = self._process.wait()
      self._errors.seek(0)
      last = self._errors.read().strip().splitlines()[-15:]
      self.close()
      text = '\n'.join(last)
      raise WorkerDied(f'{self.name} ended with status {status}\n{text}')
    answer = json.loads(answer)
    if 'error' in answer:
      self.close()
      raise errors.UserError(f'{self.name}: {answer["error"]}')
    return answer

  def go(self, steps: int) -> None:
    """Takes a turn of `steps` calls."""
    answer = self._ask(str(steps))
    self.seconds.append(answer.pop('seconds'))
    self.memory = answer

  def close(self) -> None:
    """Ends the process."""
    if not self._process.stdin.closed:
      try:
        self._process.stdin.close()
      except BrokenPipeError:
        pass
    self._process.wait()
    self._process.stdout.close()
    self._errors.close()


def alternate(workers: list, rounds: int, steps: int) -> None:
  """Lets workers take turns and ends them.

  Args:
    workers: of a kind that has `go` and `close`.
    rounds: turns of each.
    steps: calls a turn.
  """
  try:
    for _ in range(rounds):
      for worker in workers:
        worker.go(steps)
  finally:
    for worker in workers:
      worker.close()
