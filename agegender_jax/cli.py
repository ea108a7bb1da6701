"""What command lines share: one line for what the user can fix, folders."""

import argparse
import os
import pathlib
import re
import sys

from agegender_jax import errors


class Parser(argparse.ArgumentParser):
  """A parser that names what is wrong in one line, without the usage."""

  def __init__(self, description: str, **options):
    """Creates a parser without flags; the description keeps its lines."""
    super().__init__(
      description=description,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
      **options,
    )

  def error(self, message):
    raise errors.UserError(f'{message}; see --help')


def create_folder(flag: str, folder: str | os.PathLike) -> pathlib.Path:
  """Creates the folder that a flag names, `~` expanded, unless it is there.

  Raises:
    errors.UserError: it cannot be created or written.
  """
  folder = pathlib.Path(folder).expanduser()
  try:
    folder.mkdir(parents=True, exist_ok=True)
    why = '' if os.access(folder, os.W_OK) else 'no permission'
  except OSError as error:
    why = error.strerror
  if why:
    raise errors.UserError(
      f'{flag}={folder} cannot be written ({why}): name another folder'
    )
  return folder


def fail(error) -> None:
  """Ends with status 2 and one line on stderr."""
  if isinstance(error, OSError) and error.filename:
    error = f'{error.filename}: {error.strerror}'
  text = ' '.join(str(error).split())
  print(f'error: {errors.printable(text)}', file=sys.stderr)
  sys.exit(2)


def run(main) -> None:
  """Calls a script's `main` and ends with what it returns, 2 for an error.

  Args:
    main: takes the arguments and returns the status, None for 0.
  """
  try:
    sys.exit(main(sys.argv[1:]))
  except (errors.UserError, OSError) as error:
    fail(error)


def split_workdirs(mode: str, values) -> list[str]:
  """Returns the folders that --workdir names, `~` expanded.

  For a report one flag may name several, apart by commas, unless it is a folder
  as it stands.
  """
  folders = [os.path.expanduser(value) for value in values]
  if mode != 'report':
    if len(folders) > 1:
      raise errors.UserError(f'--mode={mode} takes one --workdir')
    return folders
  if len(folders) == 1 and not os.path.isdir(folders[0]):
    folders = [os.path.expanduser(part) for part in values[0].split(',') if part]
  return folders


def default_workdir(recipe: str) -> str:
  """Returns where a recipe trains: `runs/<recipe>[-<arguments>]`."""
  path, _, arg = recipe.partition(':')
  name = '-'.join([pathlib.Path(path).stem, *filter(None, arg.split(','))])
  return os.path.join('runs', re.sub(r'[^\w.-]', '_', name))
