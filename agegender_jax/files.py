"""Files that are whole or absent, whenever a process ends or a disk is full."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import platform
import secrets
import stat
from collections.abc import Iterator
from typing import Any

from agegender_jax import errors

# What the user can fix: a full or read-only disk, a quota, a name, a right.
FIXABLE = frozenset({
  errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG,
  errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT,
  errno.ELOOP, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE,
})  # fmt: skip
FORMULA = ('=', '+', '-', '@', '\t', '\r')  # Beginnings, to a spreadsheet.
# Those that libraries hide in the text of another exception.
_TEXTS = {
  code: os.strerror(code)
  for code in sorted(FIXABLE - {errno.ENOENT, errno.EEXIST, errno.ENOTDIR})
}


def check_regular(path: str | os.PathLike) -> None:
  """Raises OSError unless a path is a regular file: of a pipe no read ends."""
  try:
    if not stat.S_ISREG(os.stat(path).st_mode):
      raise OSError(errno.EACCES, 'not a regular file', os.fspath(path))
  except ValueError as error:  # A NUL in the name.
    raise OSError(errno.ENOENT, str(error), repr(os.fspath(path))) from error


def read(path: str | os.PathLike) -> bytes:
  """Reads a regular file; raises OSError if it cannot be read or is none."""
  check_regular(path)
  return pathlib.Path(path).read_bytes()


def sha256(path: str | os.PathLike) -> str:
  """Returns the SHA-256 of a regular file, hexadecimal; raises OSError as `read`."""
  check_regular(path)
  with open(path, 'rb') as stream:
    return hashlib.file_digest(stream, 'sha256').hexdigest()


def read_json(path: str | os.PathLike, default: Any = None) -> Any:
  """Reads a JSON file that a run wrote.

  Args:
    path: of the file.
    default: where it is absent, and of its type; None wants a dict that is there.

  Raises:
    errors.UserError: it is absent or damaged.
  """
  kind = dict if default is None else type(default)
  try:
    found = json.loads(read(path))
    if not isinstance(found, kind):
      raise ValueError(f'not a {kind.__name__}')
  except FileNotFoundError:
    if default is not None:
      return default
    raise errors.UserError(f'{path} is absent: bring it back') from None
  except (ValueError, RecursionError) as error:
    raise errors.UserError(
      f'{path} is damaged ({error}): bring it back, or delete it and run the same '
      'command again'
    ) from None
  return found


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
  """Writes a file whole or not at all; text as UTF-8."""
  if isinstance(content, str):
    content = content.encode('utf-8', 'surrogateescape')
  with whole(path) as temporary:
    temporary.write_bytes(content)


def write_json(path: str | os.PathLike, content: Any) -> None:
  """Writes a JSON file whole or not at all."""
  write_whole(path, json.dumps(content, indent=2) + '\n')


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a path to write to, and moves it to `path` once it is on the disk.

  Files that dead processes left half written in the folder are removed.

  Raises:
    OSError: the file cannot be written; `path` is as it was.
  """
  path = pathlib.Path(path)
  _remove_leftovers(path.parent)
  name = f'.{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}.unfinished'
  temporary = path.with_name(name)
  try:
    yield temporary
    sync(temporary)
    os.replace(temporary, path)
  except OSError as error:
    # One without a number has a text only, which a name would hide.
    if error.errno and error.filename in (None, str(temporary)):
      error.filename, error.filename2 = str(path), None
    raise
  finally:
    with contextlib.suppress(OSError):  # Gone, or the disk is read-only.
      temporary.unlink()
  sync(path.parent)


def quote_cell(text: str) -> str:
  """Returns a CSV cell that a spreadsheet takes as text, never as a formula.

  A text that begins with one of FORMULA gets an apostrophe; `unquote_cell` takes it
  off.
  """
  return f"'{text}" if text.lstrip("'").startswith(FORMULA) else text


def unquote_cell(text: str) -> str:
  """Returns the text that `quote_cell` was given."""
  is_quoted = text.startswith("'") and text.lstrip("'").startswith(FORMULA)
  return text[1:] if is_quoted else text


def sync(path: str | os.PathLike) -> None:
  """Waits until a file, or the entries of a folder, are on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:
    if error.errno not in (errno.EINVAL, errno.EBADF):  # No fsync of folders.
      raise
  finally:
    os.close(descriptor)


def _remove_leftovers(folder):
  """Removes the unfinished files of dead processes of this host."""
  for path in folder.glob(f'.{platform.node()}-*.unfinished'):
    process = path.name.removeprefix(f'.{platform.node()}-').split('-')[0]
    if process.isdecimal() and not is_alive(int(process)):
      path.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
  """Returns True if a process of this number runs on this host."""
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    return True
  return True


def fixable_error(error: BaseException | None) -> str | None:
  """Returns one line if the disk, a right or a name caused an exception.

  Libraries hide such causes: Orbax and TensorStore in the text of a ValueError,
  others behind `raise ... from`.

  Returns:
    The file and what is wrong with it; None for any other cause.
  """
  if isinstance(error, OSError) and error.errno in FIXABLE and error.filename:
    return f'{os.fsdecode(error.filename)}: {error.strerror}'
  seen = set()
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    text = str(error)
    for code, reason in _TEXTS.items():
      is_code = isinstance(error, OSError) and error.errno == code
      if is_code or reason.lower() in text.lower():
        return _shorten(text, reason)
    error = error.__cause__ or error.__context__
  return None


def _shorten(text, reason):
  """Returns `FILE: reason`, with the first quoted path of a long message."""
  for quote in ('"', "'"):
    for part in text.split(quote)[1::2]:
      if part.startswith('/'):
        return f'{part}: {reason}'
  return reason
