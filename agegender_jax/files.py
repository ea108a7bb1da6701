"""Files that are whole or absent, whenever a run is killed."""

import os
import pathlib


def write_whole(path: str | os.PathLike, text: str) -> None:
  """Writes a text file beside its place, then moves it there."""
  path = pathlib.Path(path)
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  temporary.write_text(text, 'utf-8')
  os.replace(temporary, path)
