"""What the user can fix: one line that says what is wrong and what to do."""

import difflib
import importlib
from collections.abc import Iterable


class UserError(Exception):
  """Something that the user can fix: one line that says what and how.

  `main` prints it without a traceback and exits with status 2.
  """


class EmptySplitError(UserError):
  """A known split of a data set that holds no example."""


def printable(text: str) -> str:
  r"""Escapes what a terminal may obey or cannot show, such as `\x1b`; one line."""

  def escape(char):
    code = ord(char)
    # A byte that is not UTF-8, as Python keeps it in a file's name.
    return f'\\x{code - 0xDC00:02x}' if 0xDC80 <= code < 0xDD00 else ascii(char)[1:-1]

  return ''.join(char if char.isprintable() else escape(char) for char in text)


def nearest(key: str, known: Iterable[str]) -> str:
  """Returns ', did you mean "..."?' for a near miss, else ''."""
  found = difflib.get_close_matches(key, list(known), n=1)
  return f', did you mean "{found[0]}"?' if found else ''


def unknown(what: str, key: str, known: Iterable[str]) -> UserError:
  """Returns the error for a name that is not a known one.

  Args:
    what: what the name is of, such as `model.backbone`.
    key: the name.
    known: the names that exist.
  """
  known = list(known)
  return UserError(
    f'unknown {what} "{key}"{nearest(key, known)}; known: {", ".join(known) or "none"}'
  )


def import_extra(package: str, extra: str, user: str, otherwise: str = ''):
  """Imports a package that one of the extras installs.

  Args:
    package: its name.
    extra: the name of the extra.
    user: what needs it, such as `the demo`.
    otherwise: what else can be done.

  Raises:
    UserError: the package is absent.
  """
  try:
    return importlib.import_module(package)
  except ImportError:
    text = f"{user} needs {package}: pip install 'agegender_jax[{extra}]'"
    raise UserError(text + otherwise) from None


def one_line(error: BaseException, most: int = 200) -> str:
  """Returns an exception's type and text in one line of at most so many characters."""
  return ' '.join(f'{type(error).__name__}: {error}'.split())[:most]
