"""One workdir, one process: a lock that the system drops with its holder."""

import contextlib
import datetime
import errno
import fcntl
import os
import pathlib
import platform
from collections.abc import Iterator

from agegender_jax import errors

NAME = '.lock'
# File systems without flock, such as some of the network's.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def hold(workdir: str) -> Iterator[None]:
  """Holds the lock of a workdir, which is created.

  The text of the file names the holder. The lock of a process that died on this
  host is taken over; flock does not reach every host of a network file system,
  so the text of another host counts until the file is deleted.

  Raises:
    errors.UserError: another process trains there.
  """
  path = pathlib.Path(workdir) / NAME
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('a+b', buffering=0) as stream:
    try:
      fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise errors.UserError(
        f'another process trains in "{workdir}" ({_read(stream) or "starting"}): '
        'wait for it, or choose another --workdir'
      ) from None
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise
      print(f'warning: {path}: the file system has no locks; start one process only')
    holder = _read(stream)
    if holder and f'host {platform.node()},' not in f'{holder},':
      raise errors.UserError(
        f'a process of another host trains in "{workdir}" ({holder}): wait for it, '
        f'or delete {path} if it is dead'
      )
    now = datetime.datetime.now().astimezone().isoformat(timespec='seconds')
    _write(stream, f'host {platform.node()}, process {os.getpid()}, since {now}\n')
    try:
      yield
    finally:
      _write(stream, '')


def _read(stream):
  return os.pread(stream.fileno(), 1000, 0).decode('utf-8', 'replace').strip()


def _write(stream, text):
  """Replaces the text; a full disk does not take the lock away."""
  with contextlib.suppress(OSError):
    stream.truncate(0)
    stream.write(text.encode())
