"""Raw data as their owners distribute them: folders, archives, tables.

Whatever a file or a row is called, it is either read or counted.
"""

import collections
import concurrent.futures
import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import tarfile
import time
import unicodedata
import zlib
from collections.abc import Iterable

from agegender_jax import errors, files, schema

# What a folder is searched for, by the data sets and by predict.
IMAGE_SUFFIXES = (
  '.jpg', '.jpeg', '.jfif', '.jpe', '.jp2', '.png', '.bmp', '.gif', '.webp',
  '.tif', '.tiff', '.pgm', '.ppm', '.avif', '.heic', '.heif',
)  # fmt: skip
ARCHIVE_SUFFIXES = ('.tar.gz', '.tgz', '.tar')
MAX_MEMBER_BYTES = 100 << 20  # Of one file in an archive.
# A folder that holds other images in a data set's layout has this file, whose
# first line is the licence of what it holds.
STAND_IN_FILE = 'STAND_IN.txt'


@dataclasses.dataclass
class RawFile:
  """An image: a file of a folder (by its path) or of an archive (by its bytes)."""

  name: str
  path: str = ''
  data: bytes | None = None

  def read(self) -> bytes:
    """Returns the file's bytes.

    Raises:
      OSError: it cannot be read or is not a regular file.
    """
    return files.read(self.path) if self.data is None else self.data


@dataclasses.dataclass(frozen=True)
class Source:
  """Raw images: a folder with its files listed, an archive, or a table.

  Attributes:
    path: of the folder, the archive or the table.
    files: the images of a folder or table.
    labels: files that hold the labels.
    passed_over: reason -> number of files that are not searched.
  """

  path: pathlib.Path
  # TFDS formats its configuration for its log: not 20,000 files each time.
  files: tuple[RawFile, ...] = dataclasses.field(default=(), repr=False)
  labels: tuple[pathlib.Path, ...] = ()
  passed_over: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )

  @property
  def licence(self) -> str:
    """Returns the licence that a stand-in states, else ''."""
    path = self.path / STAND_IN_FILE
    if not path.is_file():
      return ''
    first_line = path.read_text('utf-8', 'replace').partition('\n')[0]
    return first_line.strip() or schema.STAND_IN

  def images(self) -> tuple[list[RawFile], collections.Counter]:
    """Returns the images, sorted by name, and the files passed over, by reason.

    Raises:
      errors.UserError: the archive is damaged.
    """
    if self.path.is_file() and not self.files:
      return read_archive(self.path)
    return list(self.files), collections.Counter(self.passed_over)

  def by_path(self) -> dict[str, RawFile]:
    """Returns the images by the `lookup_key` of their path in the folder."""
    return {
      lookup_key(os.path.relpath(file.path, self.path)): file for file in self.files
    }

  def fingerprint(self, data_dir: pathlib.Path) -> str:
    """Returns twelve hex digits that name what the source holds.

    The names and contents of the images count and the contents of label files.

    Args:
      data_dir: keeps digests between starts, see `digest_files`.
    """
    named = {file.name: file.path for file in self.files}
    named |= {path.name: str(path) for path in self.labels}
    if self.path.is_file() and not self.labels:
      named = {'': str(self.path)}
    place = hashlib.sha256(os.path.realpath(self.path).encode(errors='replace'))
    cache = data_dir / 'fingerprints' / f'{place.hexdigest()[:16]}.json'
    return digest_rows(digest_files(named, cache).items())


def find(source_dir: str, wanted: str) -> Source:
  """Finds the images that a user means.

  Args:
    source_dir: a folder of images, a folder with one archive, an archive.
    wanted: what to say to someone who lacks the data.

  Raises:
    errors.UserError: not given, not there, or without images.
  """
  if not source_dir:
    raise errors.UserError(
      'config.data.source_dir is not set, and neither $AGEGENDER_DATA nor data/ has '
      f'this data set; {wanted}'
    )
  path = pathlib.Path(source_dir).expanduser()
  here = f'config.data.source_dir "{source_dir}"'
  if not path.exists():
    raise errors.UserError(f'{here} does not exist; {wanted}')
  if path.is_file():
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
      return Source(path)
    raise errors.UserError(f'{here} is neither a folder nor a .tar.gz; {wanted}')
  try:
    found, passed_over = list_folder(path)
    archives = [
      entry
      for entry in (() if found else path.iterdir())
      if entry.name.lower().endswith(ARCHIVE_SUFFIXES) and entry.is_file()
    ]
  except OSError as error:
    raise errors.UserError(f'cannot read {here} ({error.strerror})') from error
  if len(archives) == 1:
    return Source(archives[0])
  if not found:
    text = describe_passed_over(passed_over)
    text = f' ({text})' if text else ''
    raise errors.UserError(f'{here} holds no image{text}; {wanted}')
  return Source(path, tuple(found), passed_over=passed_over)


def find_labelled(
  source_dir: str, names: tuple[str, ...], wanted: str, at_least: int = 0
) -> Source:
  """Finds a folder of images and its label files.

  Args:
    source_dir: the folder.
    names: of the label files, which lie in it or one folder below.
    wanted: what to say to someone who lacks the data.
    at_least: how many of them are needed; 0 = all.

  Raises:
    errors.UserError: not given, not there, a file is missing, or no image.
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
  for path in found:
    source.passed_over[path.suffix.lower()] -= 1
  return dataclasses.replace(
    source, labels=tuple(found), passed_over=+source.passed_over
  )


def list_folder(folder: str | os.PathLike):
  """Lists a folder's images at any depth, sorted by name.

  Links to folders are followed, each folder once: its own place comes before
  a link to it.

  Args:
    folder: where to look.

  Returns:
    The images, named relative to the deepest folder that holds them all, and
    a Counter of the files and links that were passed over, by reason.
  """
  found, passed_over, seen = [], collections.Counter(), set()
  waiting = [os.fspath(folder)]  # Folders, then links to folders.
  links: list[str] = []
  while waiting or links:
    here = waiting.pop() if waiting else links.pop(0)
    status = os.stat(here)
    if (status.st_dev, status.st_ino) in seen:
      passed_over['links to folders that are searched already'] += 1
      continue
    seen.add((status.st_dev, status.st_ino))
    try:
      entries = sorted(os.scandir(here), key=lambda entry: entry.name)
    except OSError:
      if here == os.fspath(folder):
        raise
      passed_over['folders that cannot be read'] += 1
      continue
    for entry in entries:
      if entry.name.startswith('.'):
        passed_over['hidden'] += 1
      elif entry.is_dir():
        (links if entry.is_symlink() else waiting).append(entry.path)
      elif not entry.name.lower().endswith(IMAGE_SUFFIXES):
        suffix = os.path.splitext(entry.name)[1].lower() or 'without a suffix'
        passed_over[suffix] += 1
      elif entry.is_file() or entry.is_symlink():
        # A dangling link: reading it will fail and be counted.
        found.append(RawFile(entry.path, entry.path))
      else:
        passed_over['not regular files'] += 1
  return _with_short_names(found), passed_over


def describe_passed_over(passed_over: collections.Counter) -> str:
  """Returns such as `5 files passed over: 3 .txt, 2 hidden`, '' for none."""
  parts = [f'{count} {reason}' for reason, count in passed_over.most_common(8)]
  total = sum(passed_over.values())
  return f'{total} files passed over: {", ".join(parts)}' if total else ''


def read_archive(archive: pathlib.Path):
  """Reads an archive's images into memory, sorted by name.

  Nothing is unpacked. Links, and members whose name leaves the archive, are
  passed over.

  Args:
    archive: a tar file, compressed or not.

  Returns:
    As `list_folder`.

  Raises:
    errors.UserError: the archive is damaged.
  """
  found, passed_over = [], collections.Counter()
  try:
    with tarfile.open(archive) as tar:
      for member in tar:
        base = os.path.basename(member.name)
        if member.isdir():
          continue
        if leaves_folder(member.name):
          passed_over['with a path that leaves the archive'] += 1
        elif not member.isfile():
          passed_over['links and devices'] += 1
        elif base.startswith('.'):
          passed_over['hidden'] += 1
        elif not base.lower().endswith(IMAGE_SUFFIXES):
          passed_over[os.path.splitext(base)[1].lower() or 'without a suffix'] += 1
        elif member.size > MAX_MEMBER_BYTES:
          passed_over[f'of more than {MAX_MEMBER_BYTES >> 20} MiB'] += 1
        else:
          data = tar.extractfile(member).read()
          found.append(RawFile(os.path.normpath(member.name), data=data))
  except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
    raise errors.UserError(
      f'cannot read the archive "{archive}" ({error}); fetch it again'
    ) from error
  return _with_short_names(found), passed_over


def leaves_folder(name: str) -> bool:
  """Returns True if a name in a table or archive points out of its folder."""
  name = name.replace('\\', '/')
  drive = len(name) > 1 and name[1] == ':'
  return name.startswith('/') or drive or '..' in name.split('/')


def lookup_key(name: str) -> str:
  """Returns one form of names that are equal to the eye.

  Accents may be one character or two, separators of either kind.
  """
  name = unicodedata.normalize('NFC', name).replace('\\', '/')
  return os.path.normpath(name) if name else ''


def read_table(
  path: pathlib.Path, needed: tuple[str, ...], wanted: str, delimiter: str = ','
) -> tuple[list[str], list[dict[str, str]], collections.Counter]:
  """Reads a CSV file with a header, whose names are lowered and stripped.

  Args:
    path: of the file.
    needed: columns that it must have.
    wanted: what to say where it is not such a file.
    delimiter: between the cells of a row.

  Returns:
    The columns, a dict per row, and a Counter of rows that are none.

  Raises:
    errors.UserError: not text, a column is missing or there twice, or no row.
  """
  try:
    text = path.read_bytes().decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise errors.UserError(f'"{path}" is not UTF-8 ({error}); {wanted}') from error
  lines, counts = _read_lines(text, delimiter)
  columns = [name.strip().lower() for name in (lines or [[]])[0]]
  missing = [name for name in needed if name not in columns]
  if missing:
    raise errors.UserError(f'"{path}" has no column {", ".join(missing)}; {wanted}')
  twice = [name for name, n in collections.Counter(columns).items() if n > 1 and name]
  if twice:
    raise errors.UserError(
      f'"{path}" has several columns {", ".join(twice)}: rename or remove all but one'
    )
  blank = [''] * len(columns)
  rows = [
    dict(zip(columns, line + blank[len(line) :], strict=False)) for line in lines[1:]
  ]
  if not rows:
    broken = counts['broken_row']
    why = f' that can be read, {broken} are broken' if broken else ''
    raise errors.UserError(f'"{path}" has no row{why}; {wanted}')
  return columns, rows, counts


def _read_lines(text, delimiter):
  """Returns the cells of each row, and a Counter of those that are none."""
  reader = functools.partial(csv.reader, delimiter=delimiter, strict=True)
  try:
    lines = list(reader(io.StringIO(text, newline='')))
    broken = 0
  except csv.Error:
    # Such as an unclosed quote, which would swallow the rows below it.
    lines, broken = [], 0
    for line in text.splitlines():
      try:
        lines += reader([line])
      except csv.Error:
        broken += 1
  kept = [line for line in lines if any(cell.strip() for cell in line)]
  counts = collections.Counter(blank_row=len(lines) - len(kept), broken_row=broken)
  return kept, counts


def digest_files(named: dict[str, str], cache: pathlib.Path) -> dict[str, str]:
  """Returns the SHA-256 of files by name, '' of one that cannot be read.

  A file whose size and times are those of the last start is not read again.

  Args:
    named: name -> path.
    cache: JSON file that keeps the digests; without it, all are read.
  """
  try:
    kept = json.loads(cache.read_text())
  except (OSError, ValueError):
    kept = {}
  found = stamp_and_digest(named, kept)
  # What changed just now may change again within one tick of the clock.
  recent = time.time_ns() - 2_000_000_000
  settled = {k: v for k, v in found.items() if v[3] and max(v[1:3]) < recent}
  if settled != kept:
    with contextlib.suppress(OSError):  # The next start reads the files again.
      cache.parent.mkdir(parents=True, exist_ok=True)
      files.write_whole(cache, json.dumps(settled))
  return {name: value[3] for name, value in found.items()}


def stamp_and_digest(named: dict, kept: dict) -> dict[str, list]:
  """Reads the files that have changed since they were last read.

  Args:
    named: name -> path.
    kept: what the last call returned.

  Returns:
    Name -> size, times of the last changes (ns), SHA-256, '' of a file that
    cannot be read.
  """
  found = {}
  for name, path in named.items():
    try:
      found[name] = [*stamp_of(path), '']
    except (OSError, ValueError):
      found[name] = [0, 0, 0, '']
    if kept.get(name, [])[:3] == found[name][:3]:
      found[name] = kept[name]
  changed = [name for name, value in found.items() if value[0] and not value[3]]

  def digest(name):
    with contextlib.suppress(OSError):
      found[name][3] = files.sha256(named[name])

  if changed:
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      list(pool.map(digest, changed))
  return found


def stamp_of(path: str | os.PathLike) -> list[int]:
  """Returns a file's size and the times of its last changes, ns."""
  status = os.stat(path)
  return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def digest_rows(rows: Iterable) -> str:
  """Returns the first twelve hex digits of the rows' SHA-256."""
  text = ''.join('\t'.join(map(str, row)) + '\n' for row in sorted(rows))
  data = text.encode('utf-8', 'surrogateescape')
  return hashlib.sha256(data).hexdigest()[:12]


def _with_short_names(found):
  if not found:
    return []
  folders = {file.name.rpartition('/')[0] for file in found}
  top = os.path.commonpath(folders).rstrip('/') + '/' if all(folders) else ''
  for file in found:
    file.name = file.name.removeprefix(top)
  return sorted(found, key=lambda file: file.name)
