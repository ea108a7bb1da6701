"""Whole processes as timed things: training from the command line, starts."""

import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from agegender_jax import config as config_lib
from agegender_jax import errors
from benchmarking import rounds

# What AGEGENDER_MALLOC calls the allocators of --malloc.
_MALLOCS = {'tuned': '1', 'stock': '0', 'jemalloc': 'jemalloc'}
_LOGGED = 4  # Rows that a timed run logs; the first holds the compilation.


def _run(command, **env):
  """Runs a process; returns its stdout.

  Raises:
    errors.UserError: what the process called the user's to mend.
    RuntimeError: it failed otherwise.
  """
  result = subprocess.run(
    [sys.executable, *command],
    capture_output=True,
    text=True,
    env=rounds.environment(**env),
    check=False,
  )
  if result.returncode == 2:
    line = result.stderr.strip().splitlines()[-1]
    raise errors.UserError(line.removeprefix('error: '))
  if result.returncode:
    raise RuntimeError(f'{command} failed:\n{result.stderr[-3000:]}')
  return result.stdout


class WholeRun:
  """Training from the command line; takes turns as a Worker does.

  A turn is a run of its own, in a fresh workdir: data pipeline, augmentation,
  step, metrics, log. Its speed is what it logs, without the first row.
  """

  def __init__(self, name: str, config, malloc: str):
    """Keeps its arguments; nothing is started yet.

    Args:
      name: for the table.
      config: the recipe's.
      malloc: the allocator.
    """
    self.name, self.config, self.malloc = name, config, malloc
    self.facts = {'peer': 'ours', 'images': config.train.batch_size}
    self.seconds, self.memory = [], {}

  def go(self, steps: int) -> None:
    """Trains for 4 x `steps` steps, and evaluates once at the end."""
    config = config_lib.default_config()
    config.update(self.config.to_dict())
    config.model.init_from = ''  # Other weights take the same time.
    train = config.train
    train.num_epochs, train.eval_every_epochs = 0.0, 0.0
    train.num_steps = train.eval_every_steps = _LOGGED * steps
    train.log_every_steps, train.bootstrap_samples = steps, 2
    train.select = 'last'
    with tempfile.TemporaryDirectory() as folder:
      recipe, workdir = pathlib.Path(folder, 'recipe'), f'{folder}/run'
      config_lib.save_config(config, str(recipe))
      command = [
        '-m', 'agegender_jax.main', '--mode=train', f'--workdir={workdir}',
        f'--config={config_lib.__file__}:{recipe}',
      ]  # fmt: skip
      _run(command, AGEGENDER_MALLOC=_MALLOCS[self.malloc])
      lines = pathlib.Path(workdir, 'metrics.jsonl').read_text().splitlines()
    rows = [json.loads(line) for line in lines][1:]
    speeds = [row['train/images_per_second'] for row in rows]
    # Rows are of equally many steps: their mean time is what counts.
    mean = statistics.fmean(1 / speed for speed in speeds)
    self.seconds.append(mean * config.train.batch_size)
    # The largest so far of all processes that ended: these runs.
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    self.memory['peak_rss'] = most / 2**20

  def close(self) -> None:
    """Does nothing: a turn leaves no process behind."""


def time_starts(recipe_flags: list[str], count: int, malloc: str) -> list[dict]:
  """Starts a recipe several times, the first time with an empty cache.

  Args:
    recipe_flags: `--config=...` and overrides as typed.
    count: starts after the first one.
    malloc: the allocator.

  Returns:
    A dict a start: `seconds` by stage, since the process was asked for;
    `device`; `versions`.
  """
  result = []
  with tempfile.TemporaryDirectory() as cache:
    # Where the package keeps compiled programs unless told otherwise.
    env = {'XDG_CACHE_HOME': cache, 'JAX_COMPILATION_CACHE_DIR': None}
    env['AGEGENDER_MALLOC'] = _MALLOCS[malloc]
    for _ in range(count + 1):
      start = time.time()
      output = _run(['-m', 'benchmarking.startup', *recipe_flags], **env)
      found = json.loads(output.strip().splitlines()[-1])
      seconds = {k: mark - start for k, mark in found.pop('marks').items()}
      result.append(found | {'seconds': seconds})
  return result
