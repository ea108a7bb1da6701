"""What every builder shares: splitting and writing."""

import collections
import dataclasses
import itertools
import re
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from agegender_jax import errors, schema
from agegender_jax.data.datasets import examples as examples_lib

# TFDS spills a split over 1 GB to disk through TensorFlow, which is absent.
MAX_SPLIT_BYTES = 500 << 20
PARTS = {name: name for name in ('train', 'validation', 'test')} | {
  'all': 'train+validation+test'
}


@dataclasses.dataclass
class SourceConfig(tfds.core.BuilderConfig):
  """A configuration named after what the source holds."""

  source: object = None


class FaceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set of faces: disjoint splits on disk, named unions of them."""

  VERSION = tfds.core.Version('1.1.0')
  # Public split name -> the disjoint splits that make it up.
  SPLITS = PARTS
  # Column beyond the common ones -> code there -> what it means.
  VALUE_NAMES = {}
  # Whether ages are given as groups: the columns age_low and age_high.
  HAS_INTERVALS = False
  LICENCE = ''
  HOMEPAGE = ''
  DESCRIPTION = ''

  def collect(self) -> tuple[list[examples_lib.Example], collections.Counter]:
    """Lists the examples with their labels, and what was wrong with them."""
    raise NotImplementedError

  def split_examples(self, examples: list[examples_lib.Example]) -> dict:
    """Groups read examples into the disjoint splits."""
    groups = collections.defaultdict(list)
    for example in examples:
      groups[example.part].append(example)
    return groups

  def extra_features(self) -> dict:
    """Returns the features of the columns beyond the common ones."""
    return {}

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
      'conflict': np.int64,  # 1: see examples.mark_conflicts.
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
    examples, counts = self.collect()
    with examples_lib.progress_bar(len(examples), f'{self.name}: reading') as bar:
      examples_lib.read_pictures(examples, bar)
    kept = examples_lib.check_readable(examples)
    counts += collections.Counter(
      unreadable=len(examples) - len(kept),
      examples=len(kept),
      no_label=sum(e.years is None and e.gender == schema.UNKNOWN for e in kept),
      **examples_lib.mark_conflicts(kept),
    )
    examples_lib.log_counts(self.name, counts)
    self.info.metadata.update(counts)
    bar = examples_lib.progress_bar(len(kept), f'{self.name}: writing')
    return {
      name: self._generate_examples(rows, bar)
      for atom, group in self.split_examples(kept).items()
      for name, rows in _parts(atom, group)
    }

  def _generate_examples(self, examples, bar) -> Iterator[tuple[int, dict]]:
    for row, example in enumerate(examples):
      record = {
        'image': example.read(),
        'name': _printable(example.name),
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


def atoms_of(name: str, union: str, written) -> list[str]:
  """Lists the splits on disk that make up a public split.

  Args:
    name: the public split, for the message.
    union: the disjoint splits that make it up, joined by `+`.
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
      f'give more pictures or another split'
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


def _printable(name):
  return name.encode('utf-8', 'backslashreplace').decode()
