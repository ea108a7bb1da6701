"""A process that runs one job over and over, and the parent that times it.

The first line of the process's input is a task, JSON; it answers with facts
about the job. Every further line is a number N; it answers with the seconds per
call over N calls and with its memory. Processes that are compared take turns,
so that what slows the machine slows all of them.
"""

import contextlib
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.runtime import process

_SCRIPTS = pathlib.Path(__file__).parent.parent
MALLOCS = ('tuned', 'stock')


class WorkerDiedError(Exception):
  """A process ended before it was told to: out of memory, most likely."""


def environment(**changes: str | None) -> dict[str, str]:
  """Returns the environment of a process that imports these packages.

  Args:
    **changes: to this process's own; None takes a variable out.
  """
  paths = [str(_SCRIPTS), str(_SCRIPTS.parent), os.environ.get('PYTHONPATH', '')]
  result = {
    **os.environ,
    'PYTHONPATH': os.pathsep.join(filter(None, paths)),
    # Several processes share a GPU here, and one would take most of it.
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    'TF_CPP_MIN_LOG_LEVEL': '2',
    **changes,
  }
  return {name: value for name, value in result.items() if value is not None}


def malloc_variables(malloc: str) -> dict[str, str]:
  """Returns the variables that give a process one of MALLOCS."""
  return {'AGEGENDER_MALLOC': '0' if malloc == 'stock' else ''}


class Worker:
  """A process that runs a job when told to.

  Attributes:
    name: for the table.
    facts: what the job reports about itself.
    seconds: per call, one number per round.
    memory: the last answer's `peak_rss` and `peak_device`, GiB or None.
  """

  def __init__(self, name: str, task: dict, **env: str | None):
    """Starts the process and waits until it is ready.

    Args:
      name: for the table.
      task: see `create_job`; `malloc`, one of MALLOCS; `warmup`, calls.
      **env: changes of the environment.

    Raises:
      errors.UserError: the job refuses the task.
      WorkerDiedError: the process ended.
    """
    self.name, self.task = name, task
    self.seconds, self.memory = [], {}
    self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115 (see close)
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'benchmarking.worker'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      text=True,
      env=environment(**malloc_variables(task['malloc']), **env),
    )
    self.facts = self._ask(json.dumps(task))

  def _ask(self, line):
    try:
      self._process.stdin.write(line + '\n')
      self._process.stdin.flush()
    except BrokenPipeError:
      pass  # The answer is empty then.
    answer = self._process.stdout.readline()
    if not answer:
      status = self._process.wait()
      self._errors.seek(0)
      last = '\n'.join(self._errors.read().strip().splitlines()[-15:])
      self.close()
      raise WorkerDiedError(f'{self.name} ended with status {status}\n{last}')
    answer = json.loads(answer)
    if 'error' in answer:
      self.close()
      raise errors.UserError(f'{self.name}: {answer["error"]}')
    return answer

  def go(self, calls: int) -> None:
    """Takes a turn of so many calls."""
    answer = self._ask(str(calls))
    self.seconds.append(answer.pop('seconds'))
    self.memory = answer

  def close(self) -> None:
    """Ends the process."""
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.wait()
    self._process.stdout.close()
    self._errors.close()


def alternate(workers: list, rounds: int, calls: int) -> None:
  """Lets workers take turns of so many calls, then ends them."""
  try:
    for _ in range(rounds):
      for worker in workers:
        worker.go(calls)
  finally:
    for worker in workers:
      worker.close()


def create_job(task: dict):
  """Creates what the task names.

  Args:
    task: `module` (of this package) whose Step it is; `config`, a folder with a
      config.json; `malloc`.

  Returns:
    An object with `run(count)`, which returns seconds per call; `facts`, a
    dict; and `device_memory()`, GiB or None.
  """
  if not process.tune_malloc() and task['malloc'] == 'tuned':
    raise errors.UserError('the allocator cannot be tuned here: pass --malloc=stock')
  config = config_lib.load_config(task['config'])
  # Imported late: the allocator is tuned before there are threads.
  module = importlib.import_module(f'benchmarking.{task["module"]}')
  return module.Step(config)


def main() -> None:
  """Answers on what was stdout; what libraries print goes to stderr."""
  sink = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def answer(**values):
    print(json.dumps(values), file=sink, flush=True)

  try:
    task = json.loads(sys.stdin.readline())
    job = create_job(task)
    if task['warmup']:
      job.run(task['warmup'])
    answer(**job.facts)
    for line in sys.stdin:
      seconds, peak = job.run(int(line)), process.peak_memory()
      peak_rss = peak and peak / 2**30
      answer(seconds=seconds, peak_rss=peak_rss, peak_device=job.device_memory())
  except errors.UserError as error:
    answer(error=str(error))


if __name__ == '__main__':
  main()
