"""Whole processes that are timed: trainings from the command line, starts.

python -m benchmarking.runs --config=... [--config.overrides]

starts a recipe as `main` does, for two steps on a batch of noise, and prints
JSON: `marks`, the clock (seconds since the epoch) at the end of each stage;
`device`; `versions`.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

_LOGGED = 4  # Rows that a timed run logs; the first holds the compilation.


def _run(command, malloc, **env):
  """Runs a process and returns its stdout.

  Raises:
    errors.UserError: the process ended with status 2.
    RuntimeError: it failed otherwise.
  """
  from agegender_jax import errors
  from benchmarking import worker

  result = subprocess.run(
    [sys.executable, '-m', *command],
    capture_output=True,
    text=True,
    env=worker.environment(**worker.malloc_variables(malloc), **env),
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
    from agegender_jax import config as config_lib

    config = config_lib.default_config()
    config.update(self.config.to_dict())
    config.model.init_from = ''  # Other weights take the same time.
    train = config.train
    train.num_epochs, train.eval_every_epochs = 0.0, 0.0
    train.num_steps = train.eval_every_steps = _LOGGED * calls
    train.log_every_steps, train.bootstrap_samples = calls, 2
    train.select = 'last'
    with tempfile.TemporaryDirectory() as folder:
      recipe, workdir = pathlib.Path(folder, 'recipe'), pathlib.Path(folder, 'run')
      config_lib.save_config(config, str(recipe))
      flag = f'--config={config_lib.__file__}:{recipe}'
      _run(['agegender_jax.main', f'--workdir={workdir}', flag], self.malloc)
      lines = (workdir / 'metrics.jsonl').read_text().splitlines()
      summary = json.loads((workdir / 'run.json').read_text())
    speeds = [json.loads(line)['train/images_per_second'] for line in lines[1:]]
    # Rows are of equally many steps: their mean time is what counts.
    mean = statistics.fmean(1 / speed for speed in speeds)
    self.seconds.append(mean * config.train.batch_size)
    peak = summary.get('peak_memory_bytes', 0) / 2**30
    self.memory['peak_rss'] = max(self.memory['peak_rss'], peak)

  def close(self) -> None:
    """Does nothing: a turn leaves no process behind."""


def time_starts(recipe_flags: list[str], count: int, malloc: str) -> list[dict]:
  """Starts a recipe several times, the first time with an empty cache.

  Args:
    recipe_flags: `--config=...` and overrides as typed.
    count: starts after the first one.
    malloc: one of worker.MALLOCS.

  Returns:
    A dict per start: `seconds` by stage, since the process was asked for;
    `device`; `versions`.
  """
  result = []
  with tempfile.TemporaryDirectory() as cache:
    # Where the package keeps compiled programs unless told otherwise.
    env = {'XDG_CACHE_HOME': cache, 'JAX_COMPILATION_CACHE_DIR': None}
    for _ in range(count + 1):
      start = time.time()
      output = _run(['benchmarking.runs', *recipe_flags], malloc, **env)
      found = json.loads(output.strip().splitlines()[-1])
      seconds = {k: mark - start for k, mark in found.pop('marks').items()}
      result.append(found | {'seconds': seconds})
  return result


def main() -> None:
  """Goes through the stages of a start."""
  marks = {'python': time.time()}
  from absl import flags

  import agegender_jax.main  # noqa: F401, it defines the flags.
  from agegender_jax.runtime import process

  flags.FLAGS(sys.argv)
  config = flags.FLAGS.config
  process.set_up(config)
  marks['flags'] = time.time()

  # What `main` imports to train.
  import jax

  from agegender_jax.training import trainer  # noqa: F401
  from benchmarking import jax_jobs

  marks['imports'] = time.time()
  stepper = jax_jobs.Stepper(config)
  jax.block_until_ready(stepper.state)
  marks['state'] = time.time()
  for stage in ('first step', 'second step'):
    jax.block_until_ready((stepper.call(), stepper.state))
    marks[stage] = time.time()
  device = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
  versions = {'jax': jax.__version__}
  print(json.dumps({'marks': marks, 'device': device, 'versions': versions}))


if __name__ == '__main__':
  main()
