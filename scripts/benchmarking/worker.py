"""A process that runs one thing over and over, when told to.

The first line of its input is a task, JSON; it answers with what it is. Every
further line is a number N; it answers with the seconds that each of N calls
took on average and with its memory. `rounds` starts such processes and takes
turns among them, so that what slows the machine slows all alike.
"""

import importlib
import json
import os
import sys

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.runtime import process
from benchmarking import host


def create_job(task: dict):
  """Creates what the task names.

  Args:
    task: `module` (of this package) and `job`, which name the class;
      `config`, a folder with a config.json; `malloc`, `tuned`, or `stock` or
      `jemalloc`, which are as the process was started; what else the job reads.

  Returns:
    An object with `run(count)`, which returns seconds a call; `facts`, a dict;
    and `device_memory()`, GiB or None.
  """
  if task['malloc'] == 'tuned' and not process.tune_malloc():
    raise errors.UserError('the allocator cannot be tuned here: pass --malloc=stock')
  config = config_lib.load_config(task['config'])
  # Imported late: arenas are counted before there are threads.
  module = importlib.import_module(f'benchmarking.{task["module"]}')
  return module.JOBS[task['job']](task, config)


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
      answer(
        seconds=job.run(int(line)),
        peak_rss=host.peak_memory(),
        peak_device=job.device_memory(),
      )
  except errors.UserError as error:
    answer(error=str(error))


if __name__ == '__main__':
  main()
