"""Disks that are full, over quota or read-only for real; names that are too long."""

import shutil
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


@pytest.fixture
def quota(tmp_path):
  """A folder of a large disk that may hold a megabyte."""
  if not shutil.which('mkfs.btrfs'):
    pytest.skip('a real quota needs btrfs-progs')
  image, path = tmp_path / 'image', tmp_path / 'mounted'
  path.mkdir()
  with image.open('wb') as file:
    file.truncate(2**28)
  subprocess.run(['mkfs.btrfs', '-q', image], check=True)
  if mount('-o', 'loop', image, path).returncode:
    pytest.skip('no right to mount a btrfs here')
  folder = path / 'limited'
  for command in (
    ('quota', 'enable', path),
    ('subvolume', 'create', folder),
    ('qgroup', 'limit', '1M', folder),
  ):
    subprocess.run(['btrfs', *command], check=True, stdout=subprocess.DEVNULL)
  yield folder
  subprocess.run(['umount', '--lazy', path], check=True)


def save(checkpoints, step, size):
  kernel = np.random.default_rng(step).normal(size=size).astype(np.float32)
  state = steps.TrainState(
    step=np.int32(step), params={'kernel': kernel}, batch_stats={}, opt_state=[kernel]
  )
  checkpoints.save(state, {'validation/age_mae': float(step)})
  checkpoints.wait()


def check_checkpoint(folder, reason, make_room):
  ranking = [('validation/age_mae', -1)]
  checkpoints = checkpoint.Checkpoints(str(folder), ranking)
  save(checkpoints, 1, 10)
  with pytest.raises(Exception) as raised:
    save(checkpoints, 2, 500_000)
  assert reason in files.fixable_error(raised.value)
  again = checkpoint.Checkpoints(str(folder), ranking)
  assert again.steps() == [1] and not again.damage(1)
  assert not make_room().returncode
  save(again, 2, 500_000)
  again.close()
  assert again.steps() == [1, 2] and not list(folder.glob('checkpoints/*tmp*'))


def check_files(folder, reason):
  files.write_whole(folder / 'a', 'whole')
  with lock.hold(str(folder)):
    pass
  with pytest.raises(OSError) as raised:
    files.write_whole(folder / 'a', bytes(2_000_000))
  assert files.fixable_error(raised.value) == f'{folder / "a"}: {reason}'
  with pytest.raises(OSError, match=reason):
    (folder / 'rest').write_bytes(bytes(2_000_000))
  with lock.hold(str(folder)), pytest.raises(errors.UserError), lock.hold(str(folder)):
    pass
  assert (folder / 'a').read_text() == 'whole'


def test_a_checkpoint_that_finds_the_disk_full_leaves_the_one_before(disk):
  check_checkpoint(
    disk, 'No space left on device', lambda: mount('-o', 'remount,size=8m', disk)
  )


def test_a_checkpoint_over_quota_leaves_the_one_before(quota):
  more = ['btrfs', 'qgroup', 'limit', '16M', quota]
  check_checkpoint(
    quota, 'Disk quota exceeded', lambda: subprocess.run(more, capture_output=True)
  )


def test_a_full_disk_keeps_files_and_grants_the_lock(disk):
  check_files(disk, 'No space left on device')


def test_a_quota_keeps_files_and_grants_the_lock(quota):
  check_files(quota, 'Disk quota exceeded')


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
