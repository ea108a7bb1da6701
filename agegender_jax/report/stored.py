"""Reads files that may lack; a damaged one is the user's to mend."""

import json
import zipfile

import numpy as np

from agegender_jax import errors


def damaged(path, why) -> errors.UserError:
  """Returns the error that names a damaged file."""
  return errors.UserError(
    f'{path} is damaged ({why}): delete it and run the same command again'
  )


def read_json(path, kind=dict):
  """Reads a JSON file.

  Args:
    path: of the file.
    kind: what it holds, dict or list.

  Returns:
    Its content; empty where it is absent.

  Raises:
    errors.UserError: it is no JSON, or holds something else.
  """
  if not path.is_file():
    return kind()
  try:
    value = json.loads(path.read_text('utf-8'))
  except ValueError as error:
    raise damaged(path, error) from None
  if not isinstance(value, kind):
    raise damaged(path, f'not a JSON {"object" if kind is dict else "list"}')
  return value


def read_json_lines(path) -> list:
  """Returns one dict a step; a resumed run's second row of a step wins."""
  rows = {}
  if not path.is_file():
    return []
  for line in path.read_text('utf-8').splitlines():
    try:
      row = json.loads(line)
    except ValueError:
      continue  # A killed run leaves half a line behind.
    if isinstance(row, dict) and 'step' in row:
      rows.setdefault(row['step'], {}).update(row)
  return [rows[step] for step in sorted(rows)]


def read_arrays(path) -> dict:
  """Reads an .npz; {} where it is absent.

  Raises:
    errors.UserError: it cannot be read.
  """
  if not path.is_file():
    return {}
  try:
    with np.load(path) as arrays:
      return {name: arrays[name] for name in arrays.files}
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise damaged(path, error) from None
