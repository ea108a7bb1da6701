"""Orbax checkpoints with a digest per leaf: two latest and the best are kept.

`checkpoints/STEP/` holds the items `variables`, `optimizer` and `record`: a JSON
file with the validation scores and the SHA-256 of every leaf, checked at every
read. `checkpoints.json` beside the folder lists the steps that are kept, so that
a folder that was deleted is missed.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from agegender_jax import errors, files

# Two items, so that prediction reads the network without the optimizer.
VARIABLES, OPTIMIZER, RECORD = 'variables', 'optimizer', 'record'
NUM_LATEST = 2  # The second is what a resumed run falls back to.


class DamagedError(errors.UserError):
  """A checkpoint that is not as it was saved."""


class Checkpoints:
  """The checkpoints of a workdir."""

  def __init__(self, workdir: str, ranking: Sequence[tuple[str, int]]):
    """Opens the checkpoints; nothing is written before the first save.

    Args:
      workdir: output folder.
      ranking: (score as `save` gets it, 1 or -1 = more or less is better);
        the first that a run has ranks its checkpoints.

    Raises:
      errors.UserError: checkpoints of the run are missing.
    """
    self._workdir, self._ranking = pathlib.Path(workdir).absolute(), ranking
    self._folder = self._workdir / 'checkpoints'
    self._index = self._workdir / 'checkpoints.json'
    self._writer, self._is_saving = None, False
    if self._folder.exists() and not self._folder.is_dir():
      raise errors.UserError(f'{self._folder} is not a folder: move it away')
    self._check_none_missing()

  def _check_none_missing(self):
    if not self._index.exists():
      return
    try:
      expected = set(json.loads(self._index.read_text())['steps'])
    except (ValueError, KeyError, TypeError):
      raise errors.UserError(
        f'{self._index} is damaged: delete it if {self._folder} is complete'
      ) from None
    found = self.steps()
    missing = sorted(expected - set(found))
    if missing:
      steps = ', '.join(map(str, missing))
      raise errors.UserError(
        f'the checkpoint of step {steps} is gone from {self._folder} (there: '
        f'{", ".join(map(str, found)) or "none"}): bring it back, or delete '
        f'{self._index} to go on with what is there'
        + ('' if found else ', which is to start from step 0')
      )

  def steps(self) -> list[int]:
    """Returns the steps that are kept, ascending."""
    if not self._folder.is_dir():
      return []
    names = (path.name for path in self._folder.iterdir())
    return sorted(int(name) for name in names if name.isdecimal())

  def latest_step(self) -> int | None:
    """Returns the newest checkpoint's step, None without any."""
    return max(self.steps(), default=None)

  def best_step(self) -> int | None:
    """Returns the best checkpoint's step, the later one of equals.

    Raises:
      DamagedError: the scores of one cannot be read.
    """
    with self._naming_whole_ones():
      return max(self.steps(), key=lambda step: (self._rank(step), step), default=None)

  def _rank(self, step):
    scores = self._record(step)['scores']
    return next(
      (sign * scores[name] for name, sign in self._ranking if name in scores),
      -np.inf,
    )

  def check_step(self, step: int) -> int:
    """Returns `step` if it was kept, else raises errors.UserError."""
    if step not in self.steps():
      kept = ', '.join(map(str, self.steps())) or 'none'
      raise errors.UserError(
        f'no checkpoint of step {step}: train.restore_step can be {kept}'
      )
    return step

  def save(self, state, scores: dict[str, float], pending: Any = None) -> None:
    """Saves in the background; the caller may donate the state at once.

    Args:
      state: a steps.TrainState of NumPy arrays.
      scores: the validation scores, with the ranking metric.
      pending: what else a resumed run continues with, as JSON.
    """
    self.wait()
    for path in self._folder.glob('*.orbax-checkpoint-tmp'):
      shutil.rmtree(path)  # Of a process that was killed.
    trees = {VARIABLES: state.variables, OPTIMIZER: state.opt_state}
    record = {
      'step': int(state.step),
      'scores': {k: float(v) for k, v in scores.items() if np.isfinite(v)},
      'pending': pending,
      'leaves': {name: _leaves(tree) for name, tree in trees.items()},
    }
    items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    items[RECORD] = ocp.args.JsonSave({**record, 'digest': _digest_json(record)})
    _ignore_late_results()
    if self._writer is None:
      alone = _this_process_alone()
      handler = ocp.CompositeCheckpointHandler(
        **{name: ocp.StandardCheckpointHandler(**alone) for name in trees},
        **{RECORD: ocp.JsonCheckpointHandler(**alone)},
        composite_options=ocp.CompositeOptions(**alone),
      )
      self._writer = ocp.AsyncCheckpointer(handler, **alone)
    self._is_saving = True
    if record['step'] in self.steps():  # Not there meanwhile, and not missed.
      self._list(set(self.steps()) - {record['step']})
    self._writer.save(
      self._folder / str(record['step']),
      args=ocp.args.Composite(**items),
      force=True,
    )

  def _retain(self):
    """Deletes all but the latest ones and the best; lists what is kept."""
    steps = self.steps()
    kept = {*steps[-NUM_LATEST:], self.best_step()}
    self._list(kept)
    for step in set(steps) - kept:
      shutil.rmtree(self._folder / str(step))

  def _list(self, steps):
    """Writes which steps are kept."""
    files.write_whole(self._index, json.dumps({'steps': sorted(steps)}) + '\n')

  def record(self, step: int) -> dict[str, Any]:
    """Returns what was recorded with a step: `step`, `scores`, `pending`, `leaves`.

    Raises:
      DamagedError: it is not as it was saved.
    """
    with self._naming_whole_ones():
      return self._record(step)

  def _record(self, step):
    try:
      record = json.loads((self._folder / str(step) / RECORD / 'metadata').read_text())
      digest = record.pop('digest')
      if digest != _digest_json(record) or record['step'] != step:
        raise ValueError('its digest differs')
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise self._damaged(step, f'{RECORD}: {errors.one_line(error)}') from None
    return record

  def restore_variables(
    self, step: int, target: dict[str, Any] | None = None
  ) -> dict[str, Any]:
    """Restores params and batch_stats.

    Args:
      step: a step that was kept.
      target: variables of the same structure and shapes; None takes any network.

    Returns:
      The variables, as NumPy arrays.

    Raises:
      errors.UserError: the checkpoint is damaged or of another network.
    """
    self.wait()
    with self._naming_whole_ones():
      if target is not None:
        _check_same(target, self._record(step)['leaves'][VARIABLES])
      return self._read(step, VARIABLES, target)

  def restore(self, step: int, target):
    """Restores a steps.TrainState like `target`; raises as above."""
    variables = self.restore_variables(step, target.variables)
    with self._naming_whole_ones():
      opt_state = self._read(step, OPTIMIZER, target.opt_state)
    return target.replace(
      step=jax.numpy.asarray(step, target.step.dtype),
      params=variables['params'],
      batch_stats=variables['batch_stats'],
      opt_state=opt_state,
    )

  @contextlib.contextmanager
  def _naming_whole_ones(self):
    """Adds to an error about a damaged checkpoint which ones are whole."""
    try:
      yield
    except DamagedError as error:
      whole = ', '.join(str(k) for k in self.steps() if not self.damage(k)) or 'none'
      raise DamagedError(
        f'{error}; whole are: {whole}; bring it back, or choose another by '
        '--config.train.restore_step=STEP'
      ) from None

  def _read(self, step, item, target=None):
    expected = self._record(step)['leaves'][item]
    if target is not None:
      target = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), target)
    _ignore_late_results()
    try:
      alone = _this_process_alone()
      handler = ocp.StandardCheckpointHandler(**alone)
      with ocp.Checkpointer(handler, **alone) as reader:
        args = ocp.args.StandardRestore(target)
        tree = reader.restore(self._folder / str(step) / item, args=args)
    except Exception as error:  # Whatever Orbax and TensorStore make of it.
      raise self._damaged(step, f'{item}: {errors.one_line(error)}') from None
    found = _leaves(tree)
    for name in sorted(expected.keys() | found.keys()):
      if expected.get(name) != found.get(name):
        raise self._damaged(step, f'{item}: the digest of {name} differs')
    return tree

  def _damaged(self, step, reason):
    return DamagedError(
      f'the checkpoint of step {step} in {self._folder} is damaged ({reason})'
    )

  def damage(self, step):
    """Returns what is wrong with a checkpoint, None for nothing."""
    try:
      for item in (VARIABLES, OPTIMIZER):
        self._read(step, item)
    except DamagedError as error:
      return error
    return None

  def set_damaged_aside(self) -> None:
    """Renames damaged checkpoints to STEP.damaged, for a run that resumes.

    It prints how many steps are lost.

    Raises:
      errors.UserError: none is whole.
    """
    steps = self.steps()
    damage = {step: self.damage(step) for step in steps}
    whole = [step for step in steps if damage[step] is None]
    if steps and not whole:
      raise errors.UserError(
        f'{damage[steps[-1]]}, and no other one is whole: bring one back, or '
        'choose another --workdir'
      )
    for step in sorted(set(steps) - set(whole)):
      path = self._folder / f'{step}.damaged'
      shutil.rmtree(path, ignore_errors=True)
      (self._folder / str(step)).rename(path)
      lost, text = step - whole[-1], 'no step is lost'
      if lost > 0:
        text = f'{lost} steps are lost and trained again from step {whole[-1]}'
      print(f'warning: {damage[step]}; it is now {path.name}, {text}')
    if whole and len(whole) < len(steps):
      self._retain()

  def wait(self) -> None:
    """Waits for the save under way, then deletes what is not kept."""
    if self._is_saving:
      self._is_saving = False
      self._writer.wait_until_finished()
      self._retain()

  def close(self) -> None:
    """Waits for the save under way and ends its thread."""
    self.wait()
    if self._writer is not None:
      self._writer.close()


def _this_process_alone() -> dict[str, Any]:
  """Returns the options with which Orbax waits for no other process."""
  own = jax.process_index()
  options = ocp.options.MultiprocessingOptions(
    primary_host=own, active_processes={own}, barrier_sync_key_prefix=str(own)
  )
  return {'multiprocessing_options': options}


def list_files(workdir: str) -> list[str]:
  """Returns the paths of the checkpoints' files, others whenever a run saves."""
  found = os.walk(os.path.join(workdir, 'checkpoints'))
  return sorted(os.path.join(at, name) for at, _, names in found for name in names)


def _leaves(tree) -> dict[str, list]:
  """Returns path -> [dtype, shape, SHA-256] of the leaves of a tree."""

  def describe(leaf):
    array = np.asarray(leaf)
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    digest = hashlib.sha256(content).hexdigest()
    return [str(array.dtype), list(array.shape), digest]

  return {path: describe(leaf) for path, leaf in _flatten(tree)}


def _flatten(tree) -> list[tuple[str, Any]]:
  """Returns the leaves of a tree with their paths."""
  found = jax.tree_util.tree_flatten_with_path(tree)[0]
  name = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
  return [(name(path), leaf) for path, leaf in found]


@functools.cache
def _ignore_late_results() -> None:
  """Silences reads and writes that end after the first failure was raised.

  TensorStore reports them to an event loop that Orbax has closed by then.
  """
  report = sys.unraisablehook

  def hook(unraisable):
    if str(unraisable.exc_value) != 'Event loop is closed':
      report(unraisable)

  sys.unraisablehook = hook


def _digest_json(content) -> str:
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_same(target, found) -> None:
  """Raises errors.UserError at the first leaf whose shape differs."""
  wanted = {name: tuple(leaf.shape) for name, leaf in _flatten(target)}
  has = {name: tuple(shape) for name, (_, shape, _) in found.items()}
  for name in sorted(wanted.keys() | has.keys()):
    if wanted.get(name) != has.get(name):
      raise errors.UserError(
        f'the checkpoint is of another network: {name} is '
        f'{has.get(name, "absent")} there and {wanted.get(name, "absent")} in '
        'the configuration; evaluate with the model of the run'
      )
