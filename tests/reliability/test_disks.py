"""Disks that are full or read-only for real, and names that are too long."""

import subprocess

import numpy as np
import pytest

from agegender_jax import errors, files
from agegender_jax.runtime import checkpoint, lock
from agegender_jax.training import steps


def mount(*arguments):
  return subprocess.run(['mount', *map(str, arguments)], capture_output=True)


@pytest.fixture
def disk(tmp_path):
  """A disk of half a megabyte."""
  path = tmp_path / 'disk'
  path.mkdir()
  if mount('-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', path).returncode:
    pytest.skip('no right to mount a tmpfs here')
  yield path
  subprocess.run(['umount', '--lazy', path], check=True)


def save(checkpoints, step, size):
  kernel = np.random.default_rng(step).normal(size=size).astype(np.float32)
  state = steps.TrainState(
    step=np.int32(step), params={'kernel': kernel}, batch_stats={}, opt_state=[kernel]
  )
  checkpoints.save(state, {'validation/age_mae': float(step)})
  checkpoints.wait()


def test_a_checkpoint_that_finds_the_disk_full_leaves_the_one_before(disk):
  ranking = [('validation/age_mae', -1)]
  checkpoints = checkpoint.Checkpoints(str(disk), ranking)
  save(checkpoints, 1, 10)
  with pytest.raises(Exception) as raised:
    save(checkpoints, 2, 500_000)
  assert 'No space left on device' in files.fixable_error(raised.value)
  again = checkpoint.Checkpoints(str(disk), ranking)
  assert again.steps() == [1] and not again.damage(1)
  assert not mount('-o', 'remount,size=8m', disk).returncode
  save(again, 2, 500_000)
  again.close()
  assert again.steps() == [1, 2] and not list(disk.glob('checkpoints/*tmp*'))


def test_a_full_disk_keeps_files_and_grants_the_lock(disk):
  files.write_whole(disk / 'a', 'whole')
  with lock.hold(str(disk)):
    pass
  with pytest.raises(OSError) as raised:
    files.write_whole(disk / 'a', bytes(1_000_000))
  expected = f'{disk / "a"}: No space left on device'
  assert files.fixable_error(raised.value) == expected
  with pytest.raises(OSError, match='No space'):
    (disk / 'rest').write_bytes(bytes(1_000_000))
  with lock.hold(str(disk)), pytest.raises(errors.UserError), lock.hold(str(disk)):
    pass
  assert (disk / 'a').read_text() == 'whole'


def test_a_read_only_disk_is_named(disk):
  assert not mount('-o', 'remount,ro', disk).returncode
  for name, write in (
    ('a', lambda: files.write_whole(disk / 'a', 'text')),
    ('.lock', lambda: lock.hold(str(disk)).__enter__()),
    ('new', lambda: lock.hold(str(disk / 'new')).__enter__()),
  ):
    with pytest.raises(OSError) as raised:
      write()
    expected = f'{disk / name}: Read-only file system'
    assert files.fixable_error(raised.value) == expected


def test_a_name_that_is_too_long_is_named(tmp_path):
  for path in (tmp_path / ('n' * 300), tmp_path / '/'.join(['d' * 100] * 50)):
    with pytest.raises(OSError) as raised, lock.hold(str(path)):
      pass
    assert files.fixable_error(raised.value).endswith(': File name too long')
  with pytest.raises(OSError) as raised:
    files.write_whole(tmp_path / ('n' * 300), 'text')
  assert files.fixable_error(raised.value).endswith(': File name too long')
