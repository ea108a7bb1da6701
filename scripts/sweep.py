r"""Runs the settings that a recipe's `sweep` lists, one after the other.

python scripts/sweep.py --config=configs/adience_levi_hassner.py:target=age \
  --sweep=batch_size --workdir=runs/batch_size \
  --config.data.source_dir=PATH_TO_ADIENCE

Each run is a training of its own process in a folder below --workdir, with its
output in log.txt; further --config.FIELD=VALUE go to every run. `--seeds=0,1,2`
repeats each setting, as does a recipe's argument `fold=K`. Run again, the same
command leaves finished runs alone, unless they saw other data, and resumes what
was killed. A failed run is reported and the rest go on; the exit status is then
2. `scripts/summarise.py` reads the sweep.json that is left.
"""

import datetime
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from agegender_jax import cli, recipes
from agegender_jax import config as config_lib
from agegender_jax import errors as errors_lib
from agegender_jax.evaluation import artifacts
from agegender_jax.studies import sweeps

SHOWN_SCORES = ('age_mae', 'age_group_accuracy', 'gender_accuracy')
SECONDS_TO_STOP = 20  # That a run gets before it is killed.
SECONDS_BETWEEN_LINES = 60  # Of progress, where it is not a terminal.


class Progress:
  """Says how far a sweep is and how long the rest takes."""

  def __init__(self, runs: int):
    """Starts the clock for so many runs."""
    self._left, self._start = runs, time.monotonic()
    # Of the runs behind: how many there were to do, and their seconds.
    self._done, self._seconds = 0.0, 0.0
    self._spoken, self._first = time.monotonic(), 0.0
    self._open_line = False

  def time_left(self, fraction: float = 0.0) -> str:
    """Returns the time left, `fraction` of the current run being done."""
    done = self._done + fraction - self._first
    if done <= 0:
      return 'unknown'
    seconds = self._seconds + time.monotonic() - self._start
    left = seconds / done * (self._left - fraction)
    return str(datetime.timedelta(seconds=round(left)))

  def show(self, title: str, log: str) -> None:
    """Shows the last line of progress in a run's output."""
    steps = re.findall(r'step (\d+)/(\d+).*', log)
    if not steps:
      return
    fraction = int(steps[-1][0]) / int(steps[-1][1])
    if resumed := re.search(r'resumed at step (\d+) of (\d+)', log):
      self._first = int(resumed[1]) / int(resumed[2])
    text = f'{title}  step {"/".join(steps[-1])}'
    text += f'  sweep left {self.time_left(fraction)}'
    if sys.stdout.isatty():
      print('\r\033[K' + text, end='', flush=True)
      self._open_line = True
    elif time.monotonic() - self._spoken > SECONDS_BETWEEN_LINES:
      print(text, flush=True)
      self._spoken = time.monotonic()

  def end(self, text: str, failed: bool = False) -> None:
    """Ends a run with a line about it; a failed one tells no run's time."""
    now = time.monotonic()
    if not failed:
      self._done += 1 - self._first
      self._seconds += now - self._start
    self._left, self._first, self._start = self._left - 1, 0.0, now
    if self._left:
      text += f'  sweep left {self.time_left()}'
    print(('\r\033[K' if self._open_line else '') + text, flush=True)
    self._open_line = False


def train(run: sweeps.Run, folder: pathlib.Path, title: str, progress) -> str:
  """Trains a run in a process of its own.

  Args:
    run: what to train.
    folder: of the run.
    title: of its progress.
    progress: see Progress.

  Returns:
    '' or, if it failed, the last line of its output.
  """
  folder.mkdir(parents=True, exist_ok=True)
  log = folder / 'log.txt'
  start = log.stat().st_size if log.exists() else 0
  command = [sys.executable, '-m', 'agegender_jax.main', *run.flags]
  with log.open('ab') as stream:
    process = subprocess.Popen(
      [*command, f'--workdir={folder}'],
      stdout=stream,
      stderr=subprocess.STDOUT,
      env={**os.environ, 'PYTHONUNBUFFERED': '1'},
      # A Ctrl-C is this process's to heed.
      start_new_session=True,
    )

  def output():
    with log.open('rb') as stream:
      stream.seek(max(start, log.stat().st_size - 4096))
      return stream.read().decode(errors='replace')

  try:
    while True:
      try:
        process.wait(timeout=1)
        break
      except subprocess.TimeoutExpired:
        progress.show(title, output())
  except BaseException:
    process.terminate()
    try:
      process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
    raise
  if process.returncode == 0:
    return ''
  lines = [line.strip() for line in output().splitlines() if line.strip()]
  last = lines[-1] if lines else 'no output'
  return last if process.returncode == 2 else (
    f'status {process.returncode}, {last}'
  )  # fmt: skip


def describe(folder: pathlib.Path) -> str:
  """Returns a finished run's scores in a few words."""
  scores = json.loads((folder / 'scores.json').read_text())
  return '  '.join(
    f'{name} {scores[name]:.4g}' for name in SHOWN_SCORES if name in scores
  )


def check_finished(run: sweeps.Run, folder: pathlib.Path) -> str:
  """Says what a finished run was trained with otherwise, '' if nothing."""
  # Imported late: only finished runs need JAX here.
  from agegender_jax.evaluation import labelled

  try:
    config = sweeps.resolve(run)
    config_lib.save_config(config, str(folder))
    labelled.check_finished_data(config, str(folder))
    return ''
  except errors_lib.UserError as error:
    return str(error)


def run_all(runs: list, folder: pathlib.Path, head: dict) -> dict[str, str]:
  """Trains what is not finished, one run after the other.

  Args:
    runs: of the sweep.
    folder: of the sweep.
    head: see sweeps.write_record.

  Returns:
    Folder -> why it failed.
  """
  waiting = [run for run in runs if not artifacts.is_finished(folder / run.folder)]
  # Before any training, so that no stopped sweep lists another's runs as its.
  errors = {
    run.folder: error
    for run in runs
    if run not in waiting and (error := check_finished(run, folder / run.folder))
  }
  sweeps.write_record(folder, head, runs, errors)
  progress = Progress(len(waiting))
  for number, run in enumerate(runs, 1):
    title = f'[{number}/{len(runs)}] {run.folder}'
    place = folder / run.folder
    if run in waiting:
      print(title, flush=True)
      if error := train(run, place, title, progress):
        errors[run.folder] = error
        sweeps.write_record(folder, head, runs, errors)
    error = errors.get(run.folder, '')
    ending = f'failed: {error}' if error else describe(place)
    if run in waiting:
      progress.end(f'{title}  {ending}', failed=bool(error))
    else:
      print(f'{title}  finished before  {ending}', flush=True)
  return errors


def parse_flags(argv: list[str]):
  """Returns the command line's own flags and those for every run.

  Raises:
    errors_lib.UserError: what is needed is absent, or a flag is unknown.
  """
  parser = cli.Parser(__doc__)
  parser.add_argument('--config', default='', help='configs/NAME.py[:arg]')
  parser.add_argument('--sweep', default='', help='name of the sweep')
  parser.add_argument('--workdir', default='', help='folder of the sweep')
  parser.add_argument('--seeds', default='0', help='such as 0,1,2')
  values, given = parser.parse_known_args(argv)
  for flag in given:
    if not re.match(r'--config\.[^=]+=|--(no)?config\.[^=]+$', flag):
      raise errors_lib.UserError(f'unknown flag or argument "{flag}"; see --help')
  if not values.config or not values.workdir:
    raise errors_lib.UserError('--config=configs/NAME.py and --workdir=DIR needed')
  if not re.fullmatch(r'\d+(,\d+)*', values.seeds):
    raise errors_lib.UserError(f'--seeds={values.seeds}: give such as 0,1,2')
  return values, given


def main(argv: list[str]) -> int:
  """Runs a sweep and returns the exit status."""
  values, given = parse_flags(argv)
  path, _, arg = values.config.partition(':')
  known = sweeps.list_sweeps(recipes.load(path))
  if values.sweep not in known:
    raise errors_lib.UserError(
      f'--sweep={values.sweep}: {path} has no such sweep'
      f'{errors_lib.nearest(values.sweep, known)}; '
      f'known: {", ".join(known) or "none"}'
    )
  seeds = [int(seed) for seed in values.seeds.split(',')]
  runs = sweeps.create_runs(path, arg, known[values.sweep], seeds, given)
  for run in runs:
    sweeps.resolve(run)  # A typing error should show before the first run.
  folder = cli.create_folder('--workdir', values.workdir)
  head = {'recipe': path, 'sweep': values.sweep}
  errors = run_all(runs, folder, head)
  for name, error in errors.items():
    print(f'error: {folder / name}: {error}', file=sys.stderr)
  done = len(runs) - len(errors)
  print(
    f'{done} of {len(runs)} runs finished; '
    f'python scripts/summarise.py --workdir={folder}'
  )
  return 2 if errors else 0


def _interrupt(number, frame):
  raise KeyboardInterrupt


if __name__ == '__main__':
  for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, _interrupt)
  try:
    cli.run(main)
  except KeyboardInterrupt:
    print('\nstopped; the same command goes on from there', file=sys.stderr)
    sys.exit(130)
