"""Files are whole or absent; a workdir has one process; signals end it."""

import errno
import os
import platform
import resource
import signal
import subprocess
import sys
import time

import pytest

from agegender_jax import errors, files
from agegender_jax.runtime import lock


def python(code, **options):
  return subprocess.Popen(
    [sys.executable, '-c', code],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **options,
  )


def test_a_file_is_as_it_was_when_the_disk_is_full(tmp_path):
  path = tmp_path / 'a.json'
  files.write_whole(path, 'whole')
  kept = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100, kept[1]))
  try:
    with pytest.raises(OSError) as raised:
      files.write_whole(path, 'x' * 1000)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, kept)
  assert files.fixable_error(raised.value) == f'{path}: File too large'
  assert path.read_text() == 'whole' and os.listdir(tmp_path) == ['a.json']


def test_a_pipe_is_not_read_and_json_has_its_type(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  for path in (tmp_path / 'pipe', tmp_path, '/dev/zero', 'a\0b'):
    with pytest.raises(OSError) as raised:
      files.read(path)
    assert files.fixable_error(raised.value)
  path = tmp_path / 'a.json'
  assert files.read_json(path, []) == []
  with pytest.raises(errors.UserError, match='absent'):
    files.read_json(path)
  for text in ('', '[]', '3', '[' * 10**5, '\ufffe'):
    path.write_text(text)
    with pytest.raises(errors.UserError, match=r'a\.json is damaged'):
      files.read_json(path)


def test_leftovers_of_dead_processes_are_removed(tmp_path):
  dead = subprocess.Popen(['true'])
  dead.wait()
  node = platform.node()
  (tmp_path / f'.{node}-{dead.pid}-00.unfinished').touch()
  alive = tmp_path / f'.{node}-{os.getpid()}-00.unfinished'
  alive.touch()
  files.write_whole(tmp_path / 'a', b'1')
  assert sorted(os.listdir(tmp_path)) == [alive.name, 'a']


@pytest.mark.parametrize('error, expected', [
  (OSError(errno.ENOSPC, 'No space left on device', '/a/b'),
   '/a/b: No space left on device'),
  (OSError(errno.EDQUOT, 'Disk quota exceeded'), 'Disk quota exceeded'),
  (ValueError('RESOURCE_EXHAUSTED: Error writing "/run/x.tmp" [OS error 28: '
              'ENOSPC No space left on device]'),
   '/run/x.tmp: No space left on device'),
  (ValueError('RESOURCE_EXHAUSTED: Out of memory'), None),
  (FileNotFoundError('a file that should be there'), None),
  (KeyError('defect'), None),
])  # fmt: skip
def test_causes_that_the_user_can_fix_are_found(error, expected):
  assert files.fixable_error(error) == expected
  wrapped = RuntimeError('cannot save')
  wrapped.__cause__ = error
  if expected:
    assert expected.split(': ')[-1] in files.fixable_error(wrapped)


HOLD = """
import sys, time
from agegender_jax.runtime import lock
with lock.hold(sys.argv[1]):
  print('held', flush=True)
  time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_dead_one_replaced(tmp_path):
  holder = subprocess.Popen(
    [sys.executable, '-c', HOLD, str(tmp_path)], stdout=subprocess.PIPE
  )
  try:
    assert holder.stdout.readline() == b'held\n'
    words = f'host {platform.node()}, process {holder.pid}, since 2'
    with pytest.raises(errors.UserError, match=words), lock.hold(str(tmp_path)):
      pass
  finally:
    holder.kill()
    holder.wait()
    holder.stdout.close()
  with lock.hold(str(tmp_path)):
    assert f'process {os.getpid()}' in (tmp_path / '.lock').read_text()
  assert (tmp_path / '.lock').read_text() == ''


def test_another_hosts_lock_names_the_file_to_delete(tmp_path):
  path = tmp_path / '.lock'
  path.write_text('host elsewhere, process 1, since 2026-01-01\n')
  match = f'elsewhere.*delete {path}'
  with pytest.raises(errors.UserError, match=match), lock.hold(str(tmp_path)):
    pass
  path.unlink()
  with lock.hold(str(tmp_path)):
    pass


LISTEN = """
import time
from agegender_jax.runtime import stop
stop.STOP.listen()
{body}
"""
# A call that takes minutes outside of the interpreter, as a compilation does.
BUSY = """
import hashlib
print('ready', flush=True)
hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
"""
LOOP = """
with stop.STOP.deferred():
  print('ready', flush=True)
  while not stop.STOP.requested: time.sleep(0.01)
  {late}
  stop.STOP.leave(stop.STOP.requested, ' after a save')
"""


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('body, signals, done', [
  (BUSY, 1, ''),
  (LOOP.format(late=''), 1, ' after a save'),
  (LOOP.format(late='time.sleep(50)'), 2, ''),
])  # fmt: skip
def test_a_signal_ends_a_process_with_one_line(number, body, signals, done):
  process = python(LISTEN.format(body=body))
  assert process.stdout.readline() == 'ready\n'
  start = time.monotonic()
  for _ in range(signals):
    process.send_signal(number)
    time.sleep(0.3)
  try:
    _, stderr = process.communicate(timeout=20)
  finally:
    process.kill()
  assert time.monotonic() - start < 5
  assert process.returncode == 128 + number
  line = f'stopped by {number.name}{done}; run the same command again\n'
  assert stderr == line
