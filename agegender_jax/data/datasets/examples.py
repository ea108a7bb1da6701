"""Pictures with labels: reading, hashing, counting what is wrong."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Callable

import tqdm
from absl import logging

from agegender_jax import errors, schema
from agegender_jax.data import images, splits

# More unreadable pictures than this mean that something is wrong.
MAX_UNREADABLE = 0.01
OLDEST = 120  # Years; a label beyond is no age.
REASONS = {
  'pictures': 'pictures found',
  'examples': 'examples written',
  'unreadable': 'unreadable pictures, skipped',
  'label_rows': 'rows of labels read',
  'missing_picture': 'rows whose picture is absent, skipped',
  'short_row': 'rows cut short, skipped',
  'identical_groups': 'groups of byte-identical pictures, kept',
  'identical_pictures': 'pictures in those groups',
  'contradicting_groups': 'of those groups contradict in age or gender',
  'contradicting_pictures': 'pictures contradicted by an identical one',
  'repaired_name': 'malformed names, read all the same',
  'repaired_age': 'ages that a spreadsheet took for dates, read all the same',
  'missing_field': 'names without a field, which is unknown',
  'unusable_name': 'names without labels, skipped',
  'unknown_age': 'rows that give no age',
  'unknown_gender': 'rows that give no gender',
  'single_age': 'ages given as one year where groups are the rule',
  'odd_interval': 'ages given as another interval than the groups',
  'ungrouped_age': 'ages that fit no group, whose group is unknown',
  'bad_age': 'ages that are none, set to unknown',
  'bad_gender': 'genders that are none, set to unknown',
  'bad_race': 'races that are none, set to unknown',
  'no_face': 'rows without a detected face, skipped',
  'low_face_score': 'rows whose face is detected too weakly, skipped',
  'second_face': 'rows with a second face, skipped',
  'age_out_of_range': 'rows with an age outside 0-100, skipped',
  'seed003_mislabelled_age': "rows that seed 003's code ages as the row before",
  'seed003_mislabelled_gender': "rows that seed 003's code makes female",
  'no_label': 'examples with neither age nor gender',
}


@dataclasses.dataclass
class Example:
  """One picture with its labels, before it is written."""

  name: str
  read: Callable[[], bytes]
  age: float = schema.UNKNOWN
  gender: int = schema.UNKNOWN
  extras: dict = dataclasses.field(default_factory=dict)
  # First and last year of an age that is given as a group.
  interval: tuple[int, int] = (schema.UNKNOWN, schema.UNKNOWN)
  # Found by reading the picture.
  difference: bytes = b''  # See splits.difference_hash.
  digest: bytes = b''  # Of the file.
  size: int = 0
  error: str = ''
  # Whether an identical picture has contradicting labels.
  conflict: bool = False

  @property
  def years(self) -> tuple[float, float] | None:
    """Returns between which years the age is known to lie, or None."""
    if self.age != schema.UNKNOWN:
      return self.age, self.age
    return None if schema.UNKNOWN in self.interval else self.interval

  @property
  def part(self) -> str:
    """Says which part the published rule puts the picture in."""
    return splits.split_of(splits.percent(self.difference))


def progress_bar(total: int, title: str) -> tqdm.tqdm:
  """Creates a progress bar, which shows on a terminal only."""
  return tqdm.tqdm(total=total, desc=title, unit=' pictures', disable=None)


def read_pictures(examples: list[Example], bar: tqdm.tqdm) -> None:
  """Reads, decodes and hashes every picture, in threads.

  Args:
    examples: their difference, digest and size are set, or else error.
    bar: shows how far it is.
  """
  # Pillow decodes without holding Python's lock.
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for _ in pool.map(_read_picture, examples):
      bar.update()


def _read_picture(example):
  try:
    data = example.read()
    image = images.load(data)
  except (OSError, images.UnreadableError) as error:
    example.error = str(error)
    return
  example.size = len(data)
  example.digest = hashlib.sha256(data).digest()
  example.difference = splits.difference_hash(image)


def check_readable(examples: list[Example]) -> list[Example]:
  """Names the unreadable pictures in the log and returns the others.

  Raises:
    errors.UserError: none is readable, or too many are not.
  """
  bad = [example for example in examples if example.error]
  for example in bad:
    logging.warning('unreadable picture skipped: %s (%s)', example.name, example.error)
  if len(bad) == len(examples):
    first = f', such as "{bad[0].name}"' if bad else ''
    raise errors.UserError(
      f'none of the {len(examples)} pictures can be read{first}; '
      f'check config.data.source_dir'
    )
  if len(bad) > MAX_UNREADABLE * len(examples):
    names = ', '.join(f'"{example.name}"' for example in bad[:3])
    raise errors.UserError(
      f'{len(bad)} of {len(examples)} pictures cannot be read, more than '
      f'{MAX_UNREADABLE:.0%}: {names}{", ..." if len(bad) > 3 else ""}; '
      f'replace or remove them'
    )
  return [example for example in examples if not example.error]


def mark_conflicts(examples: list[Example]) -> dict[str, int]:
  """Marks pictures that an identical one contradicts, and counts them.

  Two genders contradict each other, and so do two ages that cannot both be
  right: different years, or groups without a year in common. What is unknown
  contradicts nothing.

  Args:
    examples: read; their conflict is set.
  """
  groups = collections.defaultdict(list)
  for example in examples:
    groups[example.digest].append(example)
  groups = [group for group in groups.values() if len(group) > 1]
  for group in groups:
    genders = {example.gender for example in group} - {schema.UNKNOWN}
    years = [example.years for example in group if example.years]
    latest = max((low for low, _ in years), default=0)
    earliest = min((high for _, high in years), default=0)
    for example in group:
      low, high = example.years or (earliest, latest)
      example.conflict = (
        (example.gender != schema.UNKNOWN and len(genders) > 1)
        or low > earliest
        or high < latest
      )
  return {
    'identical_groups': len(groups),
    'identical_pictures': sum(map(len, groups)),
    'contradicting_groups': sum(
      any(example.conflict for example in group) for group in groups
    ),
    'contradicting_pictures': sum(example.conflict for example in examples),
  }


def log_counts(name: str, counts: dict[str, int]) -> None:
  """Writes one line a reason, and a summary, to the log."""
  for reason, text in REASONS.items():
    if counts.get(reason):
      logging.info('%s: %d %s', name, counts[reason], text)
  logging.info(
    '%s: prepared %d of %d pictures',
    name,
    counts['examples'],
    counts['pictures'],
  )
