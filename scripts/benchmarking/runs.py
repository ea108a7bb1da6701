"""Whole trainings from the command line that are timed."""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from agegender_jax import config as config_lib
from agegender_jax import errors
from benchmarking import worker

_LOGGED = 4  # Rows that a timed run logs; the first holds the compilation.


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
    self.name, self.malloc = name, malloc
    self.config = config.copy_and_resolve_references()
    self.facts = {'images': config.train.batch_size}
    self.seconds, self.memory = [], {'peak_rss': 0.0}

  def go(self, calls: int) -> None:
    """Trains for 4 x `calls` steps, and evaluates once at the end.

    Raises:
      errors.UserError: the process ended with status 2.
      RuntimeError: it failed otherwise.
    """
    self.config.model.init_from = ''  # Other weights take the same time.
    train = self.config.train
    train.num_epochs, train.eval_every_epochs = 0.0, 0.0
    train.num_steps = train.eval_every_steps = _LOGGED * calls
    train.log_every_steps, train.bootstrap_samples = calls, 2
    train.select = 'last'
    with tempfile.TemporaryDirectory() as folder:
      config_lib.save_config(self.config, f'{folder}/recipe')
      command = [sys.executable, '-m', 'agegender_jax.main', f'--workdir={folder}/run']
      env = worker.environment(**worker.malloc_variables(self.malloc))
      done = subprocess.run(
        [*command, f'--config={config_lib.__file__}:{folder}/recipe'],
        capture_output=True,
        text=True,
        check=False,
        env=env,
      )
      lines = done.stderr.strip().splitlines()
      if done.returncode == 2:
        raise errors.UserError(lines[-1].removeprefix('error: '))
      if done.returncode:
        raise RuntimeError('\n'.join(['the training failed:', *lines[-15:]]))
      run = pathlib.Path(folder, 'run')
      rows = (run / 'metrics.jsonl').read_text().splitlines()
      summary = json.loads((run / 'run.json').read_text())
    speeds = [json.loads(row)['train/images_per_second'] for row in rows[1:]]
    # Rows are of equally many steps: their mean time is what counts.
    mean = statistics.fmean(1 / speed for speed in speeds)
    self.seconds.append(mean * train.batch_size)
    peak = summary.get('peak_memory_bytes', 0) / 2**30
    self.memory['peak_rss'] = max(self.memory['peak_rss'], peak)

  def close(self) -> None:
    """Does nothing: a turn leaves no process behind."""
