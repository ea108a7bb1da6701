"""What the user can fix: one line that says what is wrong and what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """Something that the user can fix: one line that says what and how.

  `main` prints it without a traceback and exits with status 2.
  """


class EmptySplitError(UserError):
  """A known split of a data set that holds no example."""


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
