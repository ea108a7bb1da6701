"""What a run logs: step times, metrics.jsonl, TensorBoard, the progress line."""

import functools
import json
import pathlib
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np

from agegender_jax import files, scoring
from agegender_jax.evaluation import artifacts
from agegender_jax.runtime import devices

# Dispatches whose results the host leaves unread: bounds what waits on the device.
CALLS_IN_FLIGHT = 4
# Scalars of the progress line beside the headline metrics of validation.
_SHOWN = {
  'train/loss': 'loss',
  'train/images_per_second': 'images/s',
}


class Meter:
  """Collects the reports and times of the steps between two records."""

  def __init__(self, step: int):
    """Begins at a step, now."""
    self.restart(step)

  def restart(self, step: int) -> None:
    """Begins the next record at a step, now."""
    self.step, self._clock = step, time.monotonic()
    self._reports: list[dict[str, jax.Array]] = []
    self._waited = self._compiling = 0.0

  def add(self, report, waited: float, compiling: float = 0.0) -> None:
    """Adds a dispatch, and waits while too many are under way.

    Args:
      report: see steps.create_train_steps, not waited for.
      waited: seconds for its batch.
      compiling: seconds until it returned, where it had to be compiled.
    """
    self._reports.append(report)
    self._waited += waited
    self._compiling += compiling
    if len(self._reports) > CALLS_IN_FLIGHT:
      jax.block_until_ready(self._reports[-1 - CALLS_IN_FLIGHT])

  def end(self, step: int) -> tuple[list[dict[str, np.ndarray]], dict[str, float]]:
    """Waits for all steps up to `step` and begins the next record.

    Returns:
      The reports, name -> float32 [steps, 2] each, and the times as scalars.
    """
    reports = [devices.unreplicate(report) for report in self._reports]
    count = step - self.step
    seconds = time.monotonic() - self._clock - self._compiling
    times = {
      'train/step_seconds': seconds / count,
      'train/input_wait_seconds': self._waited / count,
    }
    if self._compiling:
      times['train/compile_seconds'] = self._compiling
    self.restart(step)
    return reports, times


def sum_reports(reports: Sequence[dict[str, np.ndarray]]) -> dict[str, list[float]]:
  """Joins reports, name -> (sum, count) [steps, 2], into name -> [sum, count]."""
  return {
    name: np.concatenate([report[name] for report in reports])
    .sum(axis=0, dtype=np.float64)
    .tolist()
    for name in reports[0]
  }


def mean_metrics(reports: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
  """Joins reports, name -> (sum, count) [steps, 2], into `train/<name>` means."""
  sums = sum_reports(reports)
  return {
    f'train/{name}': total / count for name, (total, count) in sums.items() if count
  }


class Logger:
  """Writes one record per logged step; a resumed run continues the file."""

  def __init__(self, workdir: str, start_step: int, num_steps: int):
    """Opens the records, dropping those past `start_step`, of `num_steps` in all."""
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    kept = [row for row in artifacts.read_metrics(workdir) if row['step'] <= start_step]
    files.write_whole(path, ''.join(json.dumps(row) + '\n' for row in kept))
    self._file = path.open('a')
    self._workdir, self._start_step = pathlib.Path(workdir), start_step
    self._num_steps = num_steps
    self._clock = time.monotonic()
    self._open_line = False

  @functools.cached_property
  def _tensorboard(self):
    return _import_tensorboard().SummaryWriter(
      str(self._workdir / 'tensorboard'),
      purge_step=self._start_step + 1 if self._start_step else None,
    )

  def write(self, step: int, epoch: float, scalars: dict[str, float]) -> None:
    """Writes a record and shows it.

    Args:
      step: optimizer steps done.
      epoch: passes over the training split done.
      scalars: name -> value, names as `train/loss`.
    """
    record = {'step': step, 'epoch': round(epoch, 4), **scalars}
    self._file.write(json.dumps(record) + '\n')
    self._file.flush()
    for name, value in scalars.items():
      self._tensorboard.add_scalar(name, value, step)
    self._show(step, epoch, scalars)

  def _show(self, step, epoch, scalars):
    """Shows step, loss, images/s and time left, on one line on a terminal."""
    done = max(1, step - self._start_step)  # A resumed run may validate first.
    left = (time.monotonic() - self._clock) / done * (self._num_steps - step)
    text = f'step {step}/{self._num_steps}  epoch {epoch:.1f}'
    for name, title in _SHOWN.items():
      if name in scalars:
        text += f'  {title} {scalars[name]:.4g}'
    for metric in scoring.headlines(2):
      if f'validation/{metric.name}' in scalars:
        value = metric.text(scalars[f'validation/{metric.name}'])
        text += f'  {metric.title} {value}'
    minutes, seconds = divmod(round(left), 60)
    text += f'  left {minutes}:{seconds:02d}'
    evaluated = any(name.startswith('validation/') for name in scalars)
    if sys.stdout.isatty():
      print('\r\033[K' + text, end='\n' if evaluated else '', flush=True)
      self._open_line = not evaluated
    else:
      print(text, flush=True)

  def close(self) -> None:
    """Ends the progress line and closes the files."""
    if self._open_line:
      print()
    self._file.close()
    if '_tensorboard' in vars(self):
      self._tensorboard.close()


def _import_tensorboard():
  """Imports tensorboardX without torch, which takes seconds and is not needed."""
  before = sys.modules.get('torch')
  # None is as if it were not installed.
  sys.modules['torch'] = before  # type: ignore[assignment]
  try:
    import tensorboardX
  finally:
    if before is None:
      del sys.modules['torch']
  return tensorboardX
