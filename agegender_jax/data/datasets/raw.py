"""Raw pictures as their owners distribute them: a folder or an archive."""

import dataclasses
import hashlib
import os
import pathlib
import tarfile
import zlib

from agegender_jax import errors

# What a folder is searched for, by the builders and by predict.
PICTURE_SUFFIXES = (
  '.jpg', '.jpeg', '.png', '.bmp', '.gif', '.webp', '.tif', '.tiff', '.avif',
  '.heic', '.heif',
)  # fmt: skip
ARCHIVE_SUFFIXES = ('.tar.gz', '.tgz', '.tar')


@dataclasses.dataclass
class RawFile:
  """A file of a folder (by its path) or of an archive (by its bytes)."""

  name: str
  path: str = ''
  size: int = 0
  data: bytes | None = None

  def read(self) -> bytes:
    """Returns the file's bytes."""
    if self.data is not None:
      return self.data
    return pathlib.Path(self.path).read_bytes()


@dataclasses.dataclass(frozen=True)
class Source:
  """Raw pictures: a folder with its files listed, or an archive.

  Attributes:
    path: of the folder or of the archive.
    files: the pictures of a folder.
    labels: files beside the pictures that say what they show.
  """

  path: pathlib.Path
  # TFDS formats its configuration for its log: not 20,000 files each time.
  files: tuple[RawFile, ...] = dataclasses.field(default=(), repr=False)
  labels: tuple[pathlib.Path, ...] = ()

  def pictures(self) -> list[RawFile]:
    """Returns the pictures, sorted by name; reads an archive for it.

    Raises:
      errors.UserError: the archive is damaged.
    """
    return read_archive(self.path) if self.path.is_file() else list(self.files)

  def by_path(self) -> dict[str, RawFile]:
    """Maps the path of each picture, relative to the folder, to the picture."""
    return {os.path.relpath(file.path, self.path): file for file in self.files}

  def fingerprint(self) -> str:
    """Names the source by what it holds, in twelve hex digits.

    Of a folder the pictures' names and sizes count and what label files say;
    of an archive its name, size and last eight bytes, which in gzip are a
    checksum.
    """
    if not self.path.is_file():
      rows = [(file.name, file.size) for file in self.files]
      rows += [(path.name, _digest_file(path)) for path in self.labels]
      return digest_rows(rows)
    with self.path.open('rb') as stream:
      size = stream.seek(0, os.SEEK_END)
      stream.seek(max(0, size - 8))
      return digest_rows([(self.path.name, size, stream.read().hex())])


def find(source_dir: str, wanted: str) -> Source:
  """Finds the pictures that a user means.

  Args:
    source_dir: a folder of pictures, a folder with one archive, an archive.
    wanted: what to say to someone who lacks the data.

  Returns:
    The folder or the archive.

  Raises:
    errors.UserError: not given, not there, or without pictures.
  """
  if not source_dir:
    raise errors.UserError(f'config.data.source_dir is not set; {wanted}')
  path = pathlib.Path(source_dir).expanduser()
  here = f'config.data.source_dir "{source_dir}"'
  if not path.exists():
    raise errors.UserError(f'{here} does not exist; {wanted}')
  if path.is_file():
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
      return Source(path)
    raise errors.UserError(f'{here} is neither a folder nor a .tar.gz; {wanted}')
  try:
    files = list_folder(path)
    archives = [
      entry
      for entry in (() if files else path.iterdir())
      if entry.name.lower().endswith(ARCHIVE_SUFFIXES)
    ]
  except OSError as error:
    raise errors.UserError(f'cannot read {here} ({error.strerror})') from error
  if len(archives) == 1:
    return Source(archives[0])
  if not files:
    raise errors.UserError(f'{here} holds no picture; {wanted}')
  return Source(path, tuple(files))


def find_labelled(
  source_dir: str, names: tuple[str, ...], wanted: str, at_least: int = 0
) -> Source:
  """Finds a folder of pictures and its label files.

  Args:
    source_dir: the folder.
    names: of the label files, which lie in it or one folder below.
    wanted: what to say to someone who lacks the data.
    at_least: how many of them are needed; 0 = all.

  Raises:
    errors.UserError: not given, not there, a file is missing, or no picture.
  """
  source = find(source_dir, wanted)
  here = f'config.data.source_dir "{source_dir}"'
  if source.path.is_file():
    raise errors.UserError(f'{here} is or holds an archive: unpack it; {wanted}')
  found, missing = [], []
  for name in names:
    places = [source.path / name, *sorted(source.path.glob(f'*/{name}'))]
    paths = [path for path in places if path.is_file()]
    found += paths[:1]
    missing += [] if paths else [name]
  if len(found) < (at_least or len(names)):
    raise errors.UserError(f'{here} holds no {", no ".join(missing)}; {wanted}')
  return dataclasses.replace(source, labels=tuple(found))


def list_folder(folder: pathlib.Path) -> list[RawFile]:
  """Lists a folder's pictures at any depth, sorted by name.

  Args:
    folder: where to look; hidden files and folders are passed over.

  Returns:
    The pictures, named relative to the deepest folder that holds them all.
  """
  found = []
  for parent, folders, names in os.walk(folder):
    folders[:] = [name for name in folders if not name.startswith('.')]
    for name in filter(_is_picture, names):
      path = os.path.join(parent, name)
      try:
        size = os.stat(path).st_size
      except OSError:  # A dangling link; reading it will fail and be counted.
        size = -1
      found.append(RawFile(path, path, size))
  return _with_short_names(found)


def read_archive(archive: pathlib.Path) -> list[RawFile]:
  """Reads an archive's pictures into memory, sorted by name.

  Args:
    archive: a tar file, compressed or not.

  Returns:
    The pictures, named relative to the deepest folder that holds them all.

  Raises:
    errors.UserError: the archive is damaged.
  """
  found = []
  try:
    with tarfile.open(archive) as tar:
      for member in tar:
        if member.isfile() and _is_picture(os.path.basename(member.name)):
          data = tar.extractfile(member).read()
          found.append(RawFile(member.name, size=len(data), data=data))
  except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
    raise errors.UserError(
      f'cannot read the archive "{archive}" ({error}); fetch it again'
    ) from error
  return _with_short_names(found)


def digest_rows(rows) -> str:
  """Returns the first twelve hex digits of the rows' SHA-256."""
  text = ''.join('\t'.join(map(str, row)) + '\n' for row in sorted(rows))
  data = text.encode('utf-8', 'surrogateescape')
  return hashlib.sha256(data).hexdigest()[:12]


def _digest_file(path):
  with path.open('rb') as stream:
    return hashlib.file_digest(stream, 'sha256').hexdigest()


def _is_picture(name):
  return name[0] != '.' and name.lower().endswith(PICTURE_SUFFIXES)


def _with_short_names(files):
  if not files:
    return []
  folders = {file.name.rpartition('/')[0] for file in files}
  top = os.path.commonpath(folders).rstrip('/') + '/' if all(folders) else ''
  for file in files:
    file.name = file.name.removeprefix(top)
  return sorted(files, key=lambda file: file.name)
