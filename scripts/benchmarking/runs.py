"""Trainings from the command line that are timed: whole runs, and starts."""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from agegender_jax import config as config_lib
from agegender_jax import errors
from benchmarking import worker

_LOGGED = 4  # Rows that a timed run logs; the first holds the compilation.


def _train(config, folder, malloc, steps, log_every_steps, **env):
  """Trains for so many steps in `folder`/run, in a process of its own.

  Returns:
    Seconds from the start of the process to each line of its progress.

  Raises:
    errors.UserError: the process ended with status 2.
    RuntimeError: it failed otherwise.
  """
  copy = config_lib.default_config()
  copy.update(config.to_dict())
  copy.model.init_from = ''  # Other weights take the same time.
  train = copy.train
  train.num_epochs, train.eval_every_epochs = 0.0, 0.0
  train.num_steps = train.eval_every_steps = steps
  train.log_every_steps, train.bootstrap_samples = log_every_steps, 2
  train.select = 'last'
  config_lib.save_config(copy, f'{folder}/recipe')
  command = [
    sys.executable, '-u', '-m', 'agegender_jax.main', f'--workdir={folder}/run',
    f'--config={config_lib.__file__}:{folder}/recipe',
  ]  # fmt: skip
  start, seconds = time.monotonic(), []
  with tempfile.TemporaryFile('w+') as stderr:
    process = subprocess.Popen(
      command,
      stdout=subprocess.PIPE,
      stderr=stderr,
      text=True,
      env=worker.environment(**worker.malloc_variables(malloc), **env),
    )
    for line in process.stdout:
      if line.startswith('step '):
        seconds.append(time.monotonic() - start)
    status = process.wait()
    stderr.seek(0)
    lines = stderr.read().strip().splitlines()
  if status == 2:
    raise errors.UserError(lines[-1].removeprefix('error: '))
  if status:
    raise RuntimeError('\n'.join(['the training failed:', *lines[-15:]]))
  return seconds


class WholeRun:
  """Training from the command line; takes turns as a Worker does.

  A turn is a run in a fresh workdir: input pipeline, augmentation, step,
  metrics, log. Its speed is what it logs, without the first row.
  """

  def __init__(self, name: str, config, malloc: str):
    """Keeps its arguments; nothing is started yet.

    Args:
      name: for the table.
      config: the recipe's.
      malloc: one of worker.MALLOCS.
    """
    self.name, self.config, self.malloc = name, config, malloc
    self.facts = {'images': config.train.batch_size}
    self.seconds, self.memory = [], {'peak_rss': 0.0}

  def go(self, calls: int) -> None:
    """Trains for 4 x `calls` steps, and evaluates once at the end."""
    with tempfile.TemporaryDirectory() as folder:
      _train(self.config, folder, self.malloc, _LOGGED * calls, calls)
      run = pathlib.Path(folder, 'run')
      lines = (run / 'metrics.jsonl').read_text().splitlines()
      summary = json.loads((run / 'run.json').read_text())
    speeds = [json.loads(line)['train/images_per_second'] for line in lines[1:]]
    # Rows are of equally many steps: their mean time is what counts.
    mean = statistics.fmean(1 / speed for speed in speeds)
    self.seconds.append(mean * self.config.train.batch_size)
    peak = summary.get('peak_memory_bytes', 0) / 2**30
    self.memory['peak_rss'] = max(self.memory['peak_rss'], peak)

  def close(self) -> None:
    """Does nothing: a turn leaves no process behind."""


def time_starts(config, count: int, malloc: str) -> tuple[list[dict], str]:
  """Starts a training several times, the first time with nothing compiled.

  Args:
    config: the recipe's; its data are prepared already.
    count: starts after the first one.
    malloc: one of worker.MALLOCS.

  Returns:
    Per start the seconds from the command to the end of each stage; the device.
  """
  result = []
  with tempfile.TemporaryDirectory() as cache:
    # Where the package keeps compiled programs unless told otherwise.
    env = {'XDG_CACHE_HOME': cache, 'JAX_COMPILATION_CACHE_DIR': None}
    for _ in range(count + 1):
      with tempfile.TemporaryDirectory() as folder:
        first, second = _train(config, folder, malloc, 2, 1, **env)
        summary = json.loads(pathlib.Path(folder, 'run/run.json').read_text())
      result.append({'the first step is done': first, 'the second': second})
  return result, summary['device']
