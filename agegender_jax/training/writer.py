"""Scalars to metrics.jsonl, TensorBoard and the console."""

import functools
import json
import pathlib
import sys
import time

from agegender_jax import files
from agegender_jax.evaluation import artifacts

# Scalars of the progress line, and what it calls them.
_SHOWN = {
  'train/loss': 'loss',
  'train/images_per_second': 'images/s',
  'validation/age_mae': 'validation age MAE',
  'validation/age_group_accuracy': 'age group',
  'validation/gender_accuracy': 'gender',
}


def _import_tensorboard():
  """Imports tensorboardX, late and without torch.

  It asks for torch, can do without, and takes seconds where that is installed.
  """
  before = sys.modules.get('torch')
  sys.modules['torch'] = before  # None is as if it were not installed.
  try:
    import tensorboardX
  finally:
    if before is None:
      del sys.modules['torch']
  return tensorboardX


class Writer:
  """Writes one record a logged step; a resumed run continues the file."""

  def __init__(self, workdir: str, start_step: int, num_steps: int):
    """Opens the records, dropping those past `start_step`.

    Args:
      workdir: output folder.
      start_step: the step that the run continues from.
      num_steps: of the whole run.
    """
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    kept = [row for row in artifacts.read_metrics(workdir) if row['step'] <= start_step]
    files.write_whole(path, ''.join(json.dumps(row) + '\n' for row in kept))
    self._file = path.open('a')
    self._workdir, self._start_step = pathlib.Path(workdir), start_step
    self._num_steps = num_steps
    self._start = (time.monotonic(), start_step)
    self._open_line = False

  @functools.cached_property
  def _tensorboard(self):
    return _import_tensorboard().SummaryWriter(
      str(self._workdir / 'tensorboard'),
      purge_step=self._start_step + 1 if self._start_step else None,
    )

  def write(self, step: int, epoch: float, scalars: dict[str, float]) -> None:
    """Writes a record.

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

  def progress(self, step: int, epoch: float, scalars: dict[str, float]):
    """Shows step, loss, images/s and time left, on one line on a terminal."""
    seconds, first = self._start
    done = step - first
    left = (time.monotonic() - seconds) / done * (self._num_steps - step)
    text = f'step {step}/{self._num_steps}  epoch {epoch:.1f}'
    for name, title in _SHOWN.items():
      if name in scalars:
        text += f'  {title} {scalars[name]:.4g}'
    minutes, seconds = divmod(round(left), 60)
    text += f'  left {minutes}:{seconds:02d}'
    evaluated = any(name.startswith('validation/') for name in scalars)
    if sys.stdout.isatty():
      print('\r\033[K' + text, end='\n' if evaluated else '', flush=True)
      self._open_line = not evaluated
    else:
      print(text, flush=True)

  def close(self) -> None:
    """Ends the console line and closes the files."""
    if self._open_line:
      print()
    self._file.close()
    if '_tensorboard' in vars(self):
      self._tensorboard.close()
