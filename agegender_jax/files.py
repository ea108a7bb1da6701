"""Files that are whole or absent, whenever a run is killed."""

import os
import pathlib


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
  """Writes a file beside its place, then moves it there; text as UTF-8."""
  path = pathlib.Path(path)
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  if isinstance(content, str):
    content = content.encode('utf-8')
  temporary.write_bytes(content)
  os.replace(temporary, path)
