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

import contextlib
import dataclasses
import datetime
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

from agegender_jax import cli, errors, files, recipes, scoring
from agegender_jax import config as config_lib
from agegender_jax.evaluation import artifacts
from agegender_jax.studies import sweeps

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_TO_STOP = 20  # That a run gets before it is killed.
SECONDS_BETWEEN_LINES = 30  # Of progress.


@contextlib.contextmanager
def _uninterrupted():
  """Puts off what would interrupt a block until its end: no orphan is left."""
  came = []
  before = {n: signal.signal(n, lambda *_: came.append(1)) for n in SIGNALS}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  if came:
    raise KeyboardInterrupt


def train(run: sweeps.Run, folder: pathlib.Path, title: str) -> str:
  """Trains a run in a process of its own.

  Args:
    run: what to train.
    folder: of the run.
    title: of its progress.

  Returns:
    '' or, if it failed, the last line of its output.
  """
  folder.mkdir(parents=True, exist_ok=True)
  log = folder / 'log.txt'
  start = log.stat().st_size if log.exists() else 0
  process, shown = None, time.monotonic()

  def output():
    with log.open('rb') as stream:
      stream.seek(max(start, log.stat().st_size - 4096))
      return stream.read().decode(errors='replace')

  try:
    with log.open('ab') as stream, _uninterrupted():
      command = [sys.executable, '-m', 'agegender_jax.main', *run.flags]
      process = subprocess.Popen(
        [*command, f'--workdir={folder}'],
        stdout=stream,
        stderr=subprocess.STDOUT,
        env={**os.environ, 'PYTHONUNBUFFERED': '1'},
        start_new_session=True,  # A Ctrl-C goes to this process alone.
      )
    while process.poll() is None:
      try:
        process.wait(timeout=1)
      except subprocess.TimeoutExpired:
        if time.monotonic() - shown > SECONDS_BETWEEN_LINES:
          steps = re.findall(r'step \d+/\d+', output())
          print('  '.join([title, *steps[-1:]]), flush=True)
          shown = time.monotonic()
  except BaseException:
    if process:
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
  is_users = process.returncode == 2
  return last if is_users else f'status {process.returncode}, {last}'


def check_finished(run: sweeps.Run, folder: pathlib.Path) -> str:
  """Returns how a finished run was trained differently, '' if it was not."""
  # Imported late: only finished runs need JAX here.
  from agegender_jax.evaluation import summary

  try:
    config = sweeps.resolve(run)
    changed = config_lib.check_resume(config, str(folder))
    summary.check_finished_data(config, str(folder))
    return '; '.join(changed or [])
  except errors.UserError as error:
    return str(error)


def run_all(
  runs: list[sweeps.Run], folder: pathlib.Path, head: dict
) -> list[sweeps.Run]:
  """Trains what is not finished, one run after the other.

  Args:
    runs: of the sweep.
    folder: of the sweep.
    head: see sweeps.create_head.

  Returns:
    The runs with their errors.
  """
  places = [folder / run.folder for run in runs]
  is_new = [not artifacts.is_finished(place) for place in places]
  # Before any training, so that no stopped sweep lists another's runs as its.
  runs = [
    run if new else dataclasses.replace(run, error=check_finished(run, place))
    for run, place, new in zip(runs, places, is_new, strict=True)
  ]
  sweeps.write_record(folder, head, runs)
  seconds: list[float] = []  # Of the runs that were trained to their end.
  for row, place in enumerate(places):
    title = f'[{row + 1}/{len(runs)}] {runs[row].folder}'
    if is_new[row]:
      print(title, flush=True)
      start = time.monotonic()
      error = train(runs[row], place, title)
      seconds += [] if error else [time.monotonic() - start]
      runs[row] = dataclasses.replace(runs[row], error=error)
      sweeps.write_record(folder, head, runs)
    else:
      title += '  finished before'
    error, left = runs[row].error, sum(is_new[row + 1 :])
    ending = f'failed: {error}' if error else describe(place)
    if left and seconds:
      rest = datetime.timedelta(seconds=round(left * statistics.fmean(seconds)))
      ending += f'  sweep left about {rest}'
    print(f'{title}  {ending}', flush=True)
  return runs


def describe(folder: pathlib.Path) -> str:
  """Returns a finished run's scores in a few words."""
  scores = files.read_json(folder / 'scores.json')
  return '  '.join(
    f'{metric.title} {metric.text(scores[metric.name])}'
    for metric in scoring.headlines()
    if metric.name in scores
  )


def parse_flags(argv: list[str]):
  """Returns the command line's own flags and those for every run.

  Raises:
    errors.UserError: what is needed is absent, or a flag is unknown.
  """
  parser = cli.Parser(__doc__)
  parser.add_argument('--config', default='', help='configs/NAME.py[:arg]')
  parser.add_argument('--sweep', default='', help='name of the sweep')
  parser.add_argument('--workdir', default='', help='folder of the sweep')
  parser.add_argument('--seeds', default='0', help='such as 0,1,2')
  values, given = parser.parse_known_args(argv)
  for flag in given:
    if not re.match(r'--config\.[^=]+=|--(no)?config\.[^=]+$', flag):
      raise errors.UserError(f'unknown flag or argument "{flag}"; see --help')
  if not values.config or not values.workdir:
    raise errors.UserError('--config=configs/NAME.py and --workdir=DIR needed')
  if not re.fullmatch(r'\d+(,\d+)*', values.seeds):
    raise errors.UserError(f'--seeds={values.seeds}: give such as 0,1,2')
  return values, given


def main(argv: list[str]) -> int:
  """Runs a sweep and returns the exit status."""
  values, given = parse_flags(argv)
  path, _, arg = values.config.partition(':')
  known = sweeps.list_sweeps(recipes.load(path))
  if values.sweep not in known:
    raise errors.unknown(f'sweep of {path}', values.sweep, known)
  seeds = [int(seed) for seed in values.seeds.split(',')]
  runs = sweeps.create_runs(path, arg, known[values.sweep], seeds, given)
  for run in runs:
    sweeps.resolve(run)  # A typing error should show before the first run.
  folder = cli.create_folder('--workdir', values.workdir)
  runs = run_all(runs, folder, sweeps.create_head(path, arg, values.sweep, given))
  failed = [run for run in runs if run.error]
  for run in failed:
    print(f'error: {folder / run.folder}: {run.error}', file=sys.stderr)
  print(
    f'{len(runs) - len(failed)} of {len(runs)} runs finished; '
    f'python scripts/summarise.py --workdir={folder}'
  )
  return 2 if failed else 0


def _interrupt(number, frame):
  raise KeyboardInterrupt


if __name__ == '__main__':
  for number in SIGNALS[1:]:  # Python has one of its own for SIGINT.
    signal.signal(number, _interrupt)
  try:
    cli.run(main)
  except KeyboardInterrupt:
    print('\nstopped; the same command goes on from there', file=sys.stderr)
    sys.exit(130)
