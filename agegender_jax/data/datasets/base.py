"""What all data sets share: examples, splits, preparation by TFDS."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from agegender_jax import errors, schema
from agegender_jax.data import decoded_cache, images, raw, splits
from agegender_jax.data import labels as labels_lib

# TFDS spills a split over 1 GB to disk through TensorFlow, which is absent.
MAX_SPLIT_BYTES = 500 << 20
MAX_UNREADABLE = 0.01  # A larger share of unreadable images is an error.
PARTS = {name: name for name in splits.PARTS} | {'all': '+'.join(splits.PARTS)}


@dataclasses.dataclass
class Example:
  """One image with its labels, before it is written."""

  name: str
  read: Callable[[], bytes]
  age: float = schema.UNKNOWN
  gender: int = schema.UNKNOWN
  extras: dict = dataclasses.field(default_factory=dict)
  # First and last year of an age that is given as a group.
  interval: tuple[int, int] = (schema.UNKNOWN, schema.UNKNOWN)
  # Keys of REASONS: what is odd about its name or row.
  problems: tuple[str, ...] = ()
  # Where the owners say so; '' = the published rule.
  owners_part: str = ''
  # Found by reading the image.
  difference: bytes = b''  # See splits.difference_hash.
  digest: bytes = b''  # Of the file.
  size: int = 0
  error: str = ''
  conflict: bool = False  # An identical image has contradicting labels.

  @property
  def years(self) -> tuple[float, float] | None:
    """The years between which the age is known to lie, or None."""
    if self.age != schema.UNKNOWN:
      return self.age, self.age
    return None if schema.UNKNOWN in self.interval else self.interval

  @property
  def part(self) -> str:
    """train, validation or test."""
    return self.owners_part or splits.split_of(splits.percent(self.difference))


@dataclasses.dataclass
class Collected:
  """What a data set lists before an image is opened.

  Attributes:
    examples: in the order of their names.
    counts: reason -> number.
    labels: how each value of the labels was read.
    skipped: images that are there without a usable label.
  """

  examples: list[Example] = dataclasses.field(default_factory=list)
  counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  labels: labels_lib.Tally = dataclasses.field(default_factory=labels_lib.Tally)
  skipped: list[Example] = dataclasses.field(default_factory=list)

  def add_age(self, text: object, age: float | None) -> float:
    """Counts how years were read, see `add_gender`."""
    self.labels.add('age', text, age)
    self.counts['bad_age'] += age is None
    self.counts['unknown_age'] += age == schema.UNKNOWN
    return float(schema.UNKNOWN) if age is None else age

  def add_interval(self, text: object, interval: tuple[int, int], problem: str) -> None:
    """Counts how a group of ages was read, and what was odd about it, if anything."""
    self.labels.add('age', text, None if problem == 'bad_age' else interval[0])
    if problem:
      self.counts[problem] += 1

  def add_gender(self, text: object, gender: int | None) -> int:
    """Counts how a gender was read.

    Args:
      text: as written.
      gender: what it became, None where it could not be read.

    Returns:
      The gender, UNKNOWN of None.
    """
    self.labels.add('gender', text, gender)
    self.counts['bad_gender'] += gender is None
    self.counts['unknown_gender'] += gender == schema.UNKNOWN
    return schema.UNKNOWN if gender is None else gender

  def add_image(
    self, images: dict[str, raw.RawFile], name: str, **labels
  ) -> Example | None:
    """Adds the image that a row of labels names, or counts why there is none.

    Args:
      images: of raw.Source.by_path.
      name: as the row has it.
      **labels: fields of its Example.
    """
    if raw.leaves_folder(name):
      self.counts['outside_path'] += 1
      return None
    file = images.get(raw.lookup_key(name))
    if file is None:
      self.counts['missing_image'] += 1
      return None
    self.counts['images'] += 1
    self.examples.append(Example(name, file.read, **labels))
    return self.examples[-1]


@dataclasses.dataclass
class SourceConfig(tfds.core.BuilderConfig):
  """A configuration of TFDS, named by the fingerprint of the source."""

  source: object = None
  allow_unread_labels: bool = False
  max_megapixels: float = images.MAX_MEGAPIXELS


class FaceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set of faces: disjoint splits on disk, named unions of them.

  A data set sets the fields, finds its raw data and collects examples.
  """

  VERSION = tfds.core.Version('1.2.0')
  LICENCE = ''
  HOMEPAGE = ''
  DESCRIPTION = ''
  WANTED = ''  # What to say to someone who lacks the data.
  LABEL_FILES: tuple[str, ...] = ()
  NEEDED_LABEL_FILES = 0  # 0 = all.
  # Public split name -> the disjoint splits that it consists of.
  SPLITS = PARTS
  # Column beyond the common ones -> code there -> what it means.
  VALUE_NAMES: dict[str, dict] = {}
  KNOWN = labels_lib.KNOWN  # Column of labels -> what can be read.
  HAS_INTERVALS = False  # Ages are groups: the columns age_low and age_high.
  # What is counted -> text. A data set adds its own.
  REASONS = {
    'images': 'images found',
    'passed_over': 'files passed over',
    'examples': 'examples written',
    'unreadable': 'unreadable images, skipped',
    'label_rows': 'rows of labels read',
    'blank_row': 'blank rows',
    'broken_row': 'rows with an unclosed quote or the like, skipped',
    'missing_image': 'rows whose image is absent, skipped',
    'outside_path': 'rows whose path leaves the folder, refused',
    'identical_groups': 'groups of byte-identical images, kept',
    'identical_images': 'images in those groups',
    'contradicting_groups': 'of those groups contradict in age or gender',
    'contradicting_images': 'images contradicted by an identical one',
    'unknown_age': 'rows that give no age',
    'unknown_gender': 'rows that give no gender',
    'bad_age': 'ages that cannot be read, set to unknown',
    'bad_gender': 'genders that cannot be read, set to unknown',
    'no_label': 'examples with neither age nor gender',
  }

  @classmethod
  def create(cls, data, source_dir: str) -> 'FaceBuilder':
    """Creates the builder of raw data; nothing is prepared.

    Args:
      data: the block `config.data`.
      source_dir: the raw data as their owners distribute them.

    Raises:
      errors.UserError: the raw data are absent or are others.
    """
    folder = pathlib.Path(
      data.data_dir or os.environ.get('TFDS_DATA_DIR') or tfds.core.constants.DATA_DIR
    ).expanduser()
    source, name = cls.find_source(data, source_dir, folder)
    if data.max_megapixels != images.MAX_MEGAPIXELS:
      name += f'_{data.max_megapixels:g}mp'  # Other images are unreadable.
    config = SourceConfig(
      name=name,
      source=source,
      allow_unread_labels=data.allow_unread_labels,
      max_megapixels=data.max_megapixels,
    )
    options = {'data_dir': folder, 'config': config, 'file_format': 'array_record'}
    try:
      return cls(**options)
    except errors.UserError:
      raise
    except Exception:  # TFDS and protobuf read what was prepared before.
      path = folder / cls.name / name / str(cls.VERSION)
      if not path.exists():
        raise
    with decoded_cache.exclusive(path):
      if not decoded_cache.is_whole(path):
        shutil.rmtree(path)
    return cls(**options)

  @classmethod
  def find_source(cls, data, source_dir: str, data_dir: pathlib.Path) -> tuple:
    """Finds the raw data.

    Args:
      data: the block `config.data`, but for what follows.
      source_dir: as it was given.
      data_dir: of prepared data.

    Returns:
      What `collect` reads, and its fingerprint.
    """
    del data
    if cls.LABEL_FILES:
      source = raw.find_labelled(
        source_dir, cls.LABEL_FILES, cls.WANTED, cls.NEEDED_LABEL_FILES
      )
    else:
      source = raw.find(source_dir, cls.WANTED)
    return source, source.fingerprint(data_dir)

  def collect(self) -> Collected:
    """Lists the examples with their labels, and what was wrong with them."""
    found = Collected()
    found.counts['passed_over'] = self.source.passed_over.total()
    self.label_images(self.source.by_path(), found)
    if not found.examples:
      raise errors.UserError(
        f'"{self.source.path}" holds none of the {found.counts["label_rows"]} '
        f'images of its label files; {self.WANTED}'
      )
    found.examples.sort(key=lambda example: example.name)
    return found

  def label_images(self, images: dict[str, raw.RawFile], found: Collected) -> None:
    """Labels the images that label files name.

    Args:
      images: of raw.Source.by_path.
      found: gets the examples and the counts.
    """
    raise NotImplementedError

  def split_examples(self, examples: list[Example]) -> dict[str, list[Example]]:
    """Groups read examples into the disjoint splits."""
    return group_by(examples, lambda example: example.part)

  def extra_features(self) -> dict:
    """Returns the features of the columns beyond the common ones."""
    return {}

  @property
  def source(self):
    """The raw data."""
    return self.builder_config.source

  @property
  def licence(self) -> str:
    """The terms of the data; of a stand-in its own."""
    return getattr(self.source, 'licence', '') or self.LICENCE

  def reason_text(self, reason: str) -> str:
    """Returns what is counted, in words."""
    return self.REASONS.get(reason, reason.replace('_', ' '))

  def check_labels(self, summary: dict[str, dict]) -> None:
    """Checks the labels before anything is prepared or trained, see labels."""
    labels_lib.check(
      self.name, summary, self.KNOWN, self.builder_config.allow_unread_labels
    )

  def _create_builder_config(self, builder_config, version):
    # TFDS would warn that the configuration is not one of a fixed list.
    return builder_config

  def _info(self):
    features = {
      'image': tfds.features.Image(),
      'name': tfds.features.Text(),
      'age': np.float32,
      'gender': np.int64,
      'hash': tfds.features.Text(),  # See splits.difference_hash.
      'conflict': np.int64,  # 1: see mark_conflicts.
      **self.extra_features(),
    }
    if self.HAS_INTERVALS:  # Years, UNKNOWN where not known.
      features |= {'age_low': np.int64, 'age_high': np.int64}
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.DESCRIPTION,
      features=tfds.features.FeaturesDict(features),
      homepage=self.HOMEPAGE,
      license=self.LICENCE,
      disable_shuffling=True,  # Rows stay in the order of the names.
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    collected = self.collect()
    examples, counts = collected.examples, collected.counts
    summary = collected.labels.summary()
    self.check_labels(summary)
    read_images(examples, f'{self.name}: reading', self.builder_config.max_megapixels)
    kept = check_readable(examples)
    counts += count_read(examples, kept)
    for reason, count in counts.items():
      if count:
        logging.info('%s: %d %s', self.name, count, self.reason_text(reason))
    self.info.metadata.update({k: v for k, v in counts.items() if v})
    self.info.metadata['labels'] = summary
    bar = decoded_cache.progress_bar(len(kept), f'{self.name}: writing')
    return {
      name: self._generate_examples(rows, bar)
      for atom, group in self.split_examples(kept).items()
      for name, rows in _parts(atom, group)
    }

  def _generate_examples(self, examples, bar) -> Iterator[tuple[int, dict]]:
    for row, example in enumerate(examples):
      record = {
        'image': example.read(),
        'name': example.name.encode('utf-8', 'backslashreplace').decode(),
        'age': example.age,
        'gender': example.gender,
        'hash': example.difference.hex(),
        'conflict': int(example.conflict),
        **example.extras,
      }
      if self.HAS_INTERVALS:
        record |= zip(('age_low', 'age_high'), example.interval, strict=True)
      yield row, record
      bar.update()
      if bar.n == bar.total:
        bar.close()


def group_by(examples, key) -> dict:
  """Groups examples, or their rows, by what `key` returns of each."""
  groups = collections.defaultdict(list)
  for example in examples:
    groups[key(example)].append(example)
  return groups


def atoms_of(name: str, union: str, written) -> list[str]:
  """Lists the splits on disk that a public split consists of.

  Args:
    name: the public split, for the message.
    union: its disjoint splits, joined by `+`.
    written: the names of all splits on disk.

  Raises:
    errors.EmptySplitError: it holds no example.
  """
  atoms = [
    atom
    for base in union.split('+')
    for atom in sorted(written, key=_part_number)
    if re.sub(r'__\d+$', '', atom) == base
  ]
  if not atoms:
    raise errors.EmptySplitError(
      f'the split "{name}" of this data set holds no example; '
      f'give more images or another split'
    )
  return atoms


def _parts(atom, examples):
  sizes = itertools.accumulate(example.size for example in examples)
  parts = collections.defaultdict(list)
  for example, end in zip(examples, sizes, strict=True):
    parts[end // MAX_SPLIT_BYTES].append(example)
  for number, rows in enumerate(parts.values()):
    yield (f'{atom}__{number}' if number else atom), rows


def _part_number(name):
  return int((re.findall(r'__(\d+)$', name) or ['0'])[0])


def read_images(
  examples: list[Example], title: str, max_megapixels: float = images.MAX_MEGAPIXELS
) -> None:
  """Reads, decodes and hashes every image, in threads.

  Args:
    examples: their difference, digest and size are set, or else error.
    title: of the progress bar.
    max_megapixels: a larger image is an error.
  """

  def read(example):
    try:
      data = example.read()
      image = images.load(data, max_megapixels=max_megapixels)
    except (OSError, images.UnreadableError) as error:
      example.error = str(error)
      return
    example.size = len(data)
    example.digest = hashlib.sha256(data).digest()
    example.difference = splits.difference_hash(image)

  # Pillow decodes without holding Python's lock.
  with (
    decoded_cache.progress_bar(len(examples), title) as bar,
    concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
  ):
    for _ in pool.map(read, examples):
      bar.update()


def check_readable(examples: list[Example]) -> list[Example]:
  """Logs the unreadable images and returns the others.

  Raises:
    errors.UserError: none is readable, or too many are not.
  """
  bad = [example for example in examples if example.error]
  for example in bad:
    logging.warning('unreadable image skipped: %s (%s)', example.name, example.error)
  names = ', '.join(f'"{example.name}"' for example in bad[:3])
  if len(bad) == len(examples):
    raise errors.UserError(
      f'none of the {len(examples)} images can be read'
      + (f', such as {names} ({bad[0].error})' if bad else '')
      + '; check config.data.source_dir'
    )
  if len(bad) > MAX_UNREADABLE * len(examples):
    raise errors.UserError(
      f'{len(bad)} of {len(examples)} images cannot be read, more than '
      f'{MAX_UNREADABLE:.0%}: {names}{", ..." if len(bad) > 3 else ""}; '
      f'replace or remove them'
    )
  return [example for example in examples if not example.error]


def count_read(examples: list[Example], kept: list[Example]) -> collections.Counter:
  """Counts what reading has shown; sets `conflict`, see `mark_conflicts`."""
  return collections.Counter(
    unreadable=sum(bool(example.error) for example in examples),
    examples=len(kept),
    no_label=sum(e.years is None and e.gender == schema.UNKNOWN for e in kept),
    **mark_conflicts(kept),
  )


def mark_conflicts(examples: list[Example]) -> dict[str, int]:
  """Marks images that an identical one contradicts, and counts them.

  Two genders contradict each other, and so do two ages that cannot both be
  right: different years, or groups without a year in common. What is unknown
  contradicts nothing.

  Args:
    examples: read; their conflict is set.
  """
  groups = [g for g in group_by(examples, lambda e: e.digest).values() if len(g) > 1]
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
    'identical_images': sum(map(len, groups)),
    'contradicting_groups': sum(any(e.conflict for e in group) for group in groups),
    'contradicting_images': sum(example.conflict for example in examples),
  }
