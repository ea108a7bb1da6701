"""Injects faults into real runs and prints the table of docs/reliability.md.

  python scripts/torture.py --kills=50 --flips=120 --disks=12 --rivals=5 --signals=20

A run of twelve steps on drawn faces is killed, stopped, starved of disk space and
damaged. It must end with one line and the right status, lose nothing that was saved,
and reach the parameters and scores of a run that nothing disturbed. The code is
copied first: what is edited meanwhile is not tested.
"""

import argparse
import collections
import json
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from agegender_jax.runtime import checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLAGS = (
  '--config=configs/quickstart.py:runlocal',
  '--config.data.image_size=32', '--config.data.synthetic_examples=64',
  '--config.train.batch_size=8', '--config.train.bootstrap_samples=20',
  '--config.train.num_steps=12', '--config.train.eval_every_epochs=0',
  '--config.train.eval_every_steps=3', '--config.train.log_every_steps=1',
)  # fmt: skip
STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}
RANKING = [('validation/age_mae', -1)]
# Reached by every run that ends: the straight one takes about a minute.
TIMEOUT = 600


class Torture:
  """A straight run, and the same run under faults.

  Attributes:
    counts: fault -> outcome -> how often.
    failures: what was not as promised.
  """

  def __init__(self, folder: pathlib.Path, seed: int):
    """Trains the straight run."""
    self.folder, self.random = folder, random.Random(seed)
    for name in ('agegender_jax', 'configs'):
      shutil.copytree(ROOT / name, folder / 'code' / name)
    self.counts = collections.defaultdict(collections.Counter)
    self.failures = []
    self.straight = folder / 'straight'
    for workdir in (folder / 'first', self.straight):  # The first one compiles.
      start = time.monotonic()
      status, lines = self.finish(self.start(workdir))
      if status:
        raise SystemExit(f'the straight run failed: {status} {lines}')
    self.seconds = time.monotonic() - start
    if self.difference(folder / 'first'):
      raise SystemExit(f'two straight runs differ: {self.difference(folder / "first")}')

  def start(self, workdir, limit: int = 0, data: str = 'data', **options):
    """Starts the command; `limit` is the largest file it may write, bytes."""
    flags = [f'--workdir={workdir}', f'--config.data.data_dir={self.folder / data}']

    process = subprocess.Popen(
      [sys.executable, '-m', 'agegender_jax.main', *FLAGS, *flags],
      cwd=self.folder / 'code',
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
      **options,
    )
    if limit:
      resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    return process

  def finish(self, process) -> tuple[int, list[str]]:
    """Waits for a process; returns its status and its lines on stderr."""
    try:
      _, text = process.communicate(timeout=TIMEOUT)
    finally:
      process.kill()
    return process.returncode, text.splitlines()

  def note(self, fault: str, outcome: str, is_promised: bool, detail='') -> None:
    """Counts an outcome and prints it."""
    self.counts[fault][outcome] += 1
    print(f'{fault}: {outcome} {detail}', flush=True)
    if not is_promised:
      self.failures.append(f'{fault}: {outcome} {detail}')

  def difference(self, workdir) -> str:
    """Returns how a run's parameters or scores differ from the straight one's."""
    ends = []
    for path in (workdir, self.straight):
      checkpoints = checkpoint.Checkpoints(str(path), RANKING)
      step = checkpoints.latest_step()
      leaves = checkpoints.record(step)['leaves']
      flat = {f'{item}/{k}': v for item in leaves for k, v in leaves[item].items()}
      scores = json.loads((path / 'scores.json').read_text())
      ends.append({'latest': step, **flat, **scores})
    names = [k for k in ends[1] if ends[0].get(k) != ends[1][k]]
    return ', '.join(f'{k} {ends[0].get(k)} not {ends[1][k]}' for k in names[:3])

  def end(self, fault: str, workdir) -> None:
    """Lets a disturbed run end and compares it."""
    status, lines = self.finish(self.start(workdir))
    detail = f'{status} {lines[-1:]}' if status else self.difference(workdir)
    what = 'ENDS OTHERWISE' if detail else 'ends with the same bits'
    self.note(f'{fault}, then finished', what, not detail, detail)
    shutil.rmtree(workdir)

  def disturb(self, fault: str, count: int, chain: int, hit) -> None:
    """Disturbs runs `chain` times each, at random moments, until `count`."""
    done = 0
    while done < count:
      workdir = self.folder / f'{fault}-{done}'
      for _ in range(min(chain, count - done)):
        process = self.start(workdir)
        time.sleep(self.random.uniform(0.05, 1) * self.seconds)
        if process.poll() is not None:
          self.finish(process)
          break  # It had ended before it was hit.
        hit(process)
        done += 1
      self.end(fault, workdir)

  def kill(self, process) -> None:
    """Kills a process."""
    process.kill()
    self.finish(process)
    self.note('SIGKILL', 'killed', True)

  def stop(self, process) -> None:
    """Sends a stop signal, every fourth time twice."""
    number = self.random.choice(list(STATUS))
    is_twice = self.random.random() < 0.25
    start = time.monotonic()
    process.send_signal(number)
    if is_twice:
      time.sleep(0.1)
      process.send_signal(number)
    status, lines = self.finish(process)
    seconds = time.monotonic() - start
    fault = f'{number.name}{" twice" if is_twice else ""}'
    if status == 0:
      self.note(fault, 'came after the end', True)
      return
    # Before Python has begun to listen, the system's own default applies.
    is_early = status == -number and not lines
    is_good = is_early or (
      status == STATUS[number] and len(lines) == 1 and seconds < 10
    )
    what = 'before it listens' if is_early else 'one line' if is_good else 'BAD'
    self.note(fault, what, is_good, (status, f'{seconds:.1f} s', lines[-2:]))

  def fill_disk(self, number: int) -> None:
    """Limits the size of files, as a full disk or a quota does."""
    workdir, data = self.folder / f'disk-{number}', f'data-{number}'
    limit = int(10 ** self.random.uniform(3.3, 6.3))
    status, lines = self.finish(self.start(workdir, limit, data))
    is_good = status == 0 or (status == 2 and len(lines) == 1)
    what = 'BAD' if not is_good else 'large enough' if status == 0 else 'one line'
    self.note('file too large', what, is_good, (limit, status, lines[-2:]))
    self.end('file too large', workdir)
    shutil.rmtree(self.folder / data, ignore_errors=True)

  def rival(self, number: int) -> None:
    """Starts a second process in the workdir of a first."""
    workdir = self.folder / f'rival-{number}'
    first = self.start(workdir)
    while not (workdir / '.lock').exists():
      time.sleep(0.05)
    time.sleep(self.random.uniform(0, self.seconds / 3))
    status, lines = self.finish(self.start(workdir))
    is_good = status == 2 and len(lines) == 1 and f'process {first.pid}' in lines[0]
    if first.poll() is not None:
      is_good, lines = True, ['the first had ended']
    self.note('second process', 'refused' if is_good else 'BAD', is_good, lines[-2:])
    status, lines = self.finish(first)
    self.note('second process, the first', 'ends well' if not status else 'BAD',
              not status, lines[-2:])  # fmt: skip
    self.end('second process', workdir)

  def flip(self, count: int) -> None:
    """Flips single bits of a checkpoint, and reads it."""
    source = checkpoint.Checkpoints(str(self.straight), RANKING)
    step = source.latest_step()
    expected = source.record(step)['leaves']
    copy = self.folder / 'flipped'
    shutil.copytree(self.straight, copy)
    paths = [p for p in (copy / 'checkpoints' / str(step)).rglob('*') if p.is_file()]
    for _ in range(count):
      (path,) = self.random.choices(paths, [p.stat().st_size for p in paths])
      content = path.read_bytes()
      flipped = bytearray(content)
      flipped[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
      path.write_bytes(flipped)
      checkpoints = checkpoint.Checkpoints(str(copy), RANKING)
      error = checkpoints.damage(step)
      # Orbax keeps copies that nobody reads.
      is_same = error is None and checkpoints.record(step)['leaves'] == expected
      what = 'named' if error else 'not read, same values' if is_same else 'WRONG'
      self.note('flipped bit', what, what != 'WRONG', path.relative_to(copy))
      path.write_bytes(content)
    error = checkpoint.Checkpoints(str(copy), RANKING).damage(step)
    self.note('all bits as before', f'{error or "whole"}', error is None)

  def table(self) -> str:
    """Returns the counts as Markdown."""
    lines = ['| fault | outcome | times |', '|---|---|---:|']
    for fault, outcomes in self.counts.items():
      for outcome, count in sorted(outcomes.items()):
        lines.append(f'| {fault} | {outcome} | {count} |')
    return '\n'.join(lines)


def main() -> None:
  """Runs what the flags ask for."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  for name in ('kills', 'flips', 'disks', 'rivals', 'signals', 'seed'):
    parser.add_argument(f'--{name}', type=int, default=0)
  asked = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    torture = Torture(pathlib.Path(folder), asked.seed)
    print(f'the straight run took {torture.seconds:.0f} s', flush=True)
    try:
      torture.flip(asked.flips)
      for number in range(asked.disks):
        torture.fill_disk(number)
      for number in range(asked.rivals):
        torture.rival(number)
      torture.disturb('signal', asked.signals, 4, torture.stop)
      torture.disturb('SIGKILL', asked.kills, 6, torture.kill)
    finally:
      print(torture.table(), *torture.failures, sep='\n')
  sys.exit(bool(torture.failures))


if __name__ == '__main__':
  main()
