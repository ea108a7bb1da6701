"""Audits raw data: what is unknown, unreadable, twofold or contradictory.

Works on what a builder collects, before anything is prepared, so that the
rows show which preparing skips or repairs.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import os

import numpy as np

from agegender_jax import errors, schema
from agegender_jax.data import duplicates, images
from agegender_jax.data.datasets import common
from agegender_jax.data.datasets import examples as examples_lib
from agegender_jax.studies import odd_rows

# Correlation of thumbnails from which two pictures with near hashes are taken
# for the same one. Set by eye on the 31 pairs of UTKFace and FairFace between
# 0.93 and 0.98: the first of other people is at 0.953, below they are mixed.
SAME_PICTURE = 0.955
# Years between the labels of nearly identical pictures that are too many: a
# year or two may truly lie between two pictures.
FAR_YEARS = 5
_MAIN_PARTS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Twins:
  """Pictures that show the same: identical ones, or a near pair.

  Attributes:
    rows: of Audit.examples, ascending.
    bits: between their difference hashes.
    likeness: of their thumbnails, see duplicates.likeness.
    years: between the oldest and the youngest age that is known.
    genders_differ: whether two genders are known of them.
    parts: of the data set in which they lie, sorted.
  """

  rows: tuple[int, ...]
  bits: int
  likeness: float
  years: float
  genders_differ: bool
  parts: tuple[str, ...]

  @property
  def is_same(self) -> bool:
    """Whether the pixels agree, not only the hashes."""
    return self.likeness >= SAME_PICTURE

  @property
  def contradicts(self) -> bool:
    """Whether the labels of one picture cannot all be right."""
    return self.genders_differ or self.years > 0

  @property
  def straddles(self) -> bool:
    """Whether they lie in different parts."""
    return len(self.parts) > 1


@dataclasses.dataclass
class Audit:
  """What was found in a data set.

  Attributes:
    builder: of the data set.
    examples: readable pictures, also those without a usable name.
    parts: of the data set in which each lies; '' where it is skipped.
    unreadable: pictures that cannot be decoded.
    odd_rows: (name, reason) of what is skipped or read only in part.
    counts: reason -> number, as preparing counts them.
    identical: groups of byte-identical pictures.
    near: pairs with near hashes and other bytes.
  """

  builder: common.FaceBuilder
  examples: list[examples_lib.Example]
  parts: list[str]
  unreadable: list[examples_lib.Example]
  odd_rows: list[tuple[str, str]]
  counts: collections.Counter
  identical: list[Twins]
  near: list[Twins]

  @property
  def contradicting(self) -> list[Twins]:
    """Identical pictures with labels that cannot all be right, worst first."""
    return sorted((t for t in self.identical if t.contradicts), key=_badness)

  @property
  def near_duplicates(self) -> list[Twins]:
    """Pairs that show the same by their hashes and by their pixels."""
    return [pair for pair in self.near if pair.is_same]

  @property
  def near_contradicting(self) -> list[Twins]:
    """Near-duplicates whose labels are too far apart, worst first."""
    found = [t for t in self.near_duplicates if t.genders_differ or t.years > FAR_YEARS]
    return sorted(found, key=_badness)

  @property
  def straddling(self) -> list[Twins]:
    """Identical and near ones in different parts, the most alike first.

    Where the owners say what is test, even identical ones can be.
    """
    found = [t for t in self.identical + self.near_duplicates if t.straddles]
    return sorted(found, key=lambda t: (-t.likeness, t.rows))


def audit(builder: common.FaceBuilder, bits: int = 3) -> Audit:
  """Reads all pictures of a data set and looks for what is wrong.

  Args:
    builder: of the data set; nothing is prepared.
    bits: the most that the hashes of near-duplicates differ in.

  Raises:
    errors.UserError: the raw data are absent, or not one picture is readable.
  """
  listed, counts = builder.collect()
  skipped = odd_rows.skipped_pictures(builder, listed)
  everything = listed + skipped
  title = f'{builder.name}: reading'
  with examples_lib.progress_bar(len(everything), title) as bar:
    examples_lib.read_pictures(everything, bar)
  unreadable = [example for example in everything if example.error]
  kept = [example for example in listed if not example.error]
  if not kept:
    raise errors.UserError(
      f'none of the {len(listed)} pictures can be read, such as '
      f'"{listed[0].name}"; check config.data.source_dir'
    )
  part_of = _parts(builder, kept)
  examples = kept + [example for example in skipped if not example.error]
  parts = [part_of.get(id(example), '') for example in examples]
  counts += collections.Counter(
    examples=len(kept),
    unreadable=len(unreadable),
    no_label=sum(e.years is None and e.gender == schema.UNKNOWN for e in kept),
    **examples_lib.mark_conflicts(kept),
  )
  return Audit(
    builder=builder,
    examples=examples,
    parts=parts,
    unreadable=unreadable,
    odd_rows=odd_rows.find(builder, listed, skipped),
    counts=counts,
    identical=identical(examples, parts),
    near=_near(bits, examples, parts),
  )


def identical(examples: list[examples_lib.Example], parts: list[str]) -> list[Twins]:
  """Groups byte-identical pictures.

  Args:
    examples: N, with their digests.
    parts: N parts of the data set in which they lie.

  Returns:
    The groups of two and more, in the order of their first rows.
  """
  copies = duplicates.identical_groups([example.digest for example in examples])
  return [_twins(rows, 0, 1.0, examples, parts) for rows in copies if len(rows) > 1]


def _near(bits, examples, parts) -> list[Twins]:
  """Returns all pairs of pictures with other bytes but near hashes."""
  # One picture of each group is compared; its copies have the same pixels.
  copies = duplicates.identical_groups([example.digest for example in examples])
  firsts = [examples[rows[0]] for rows in copies]
  hashes = [int.from_bytes(example.difference, 'big') for example in firsts]
  pairs, distances = duplicates.near_pairs(np.array(hashes, np.uint64), bits)
  used, places = np.unique(pairs, return_inverse=True)
  places = places.reshape(pairs.shape)
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    small = list(pool.map(_thumbnail, (firsts[group] for group in used)))
  if not small:
    return []
  alike = duplicates.likeness(np.stack(small), places)
  return [
    _twins(rows, int(distance), float(similar), examples, parts)
    for (first, second), distance, similar in zip(pairs, distances, alike, strict=True)
    for rows in itertools.product(copies[first], copies[second])
  ]


def _thumbnail(example):
  return duplicates.thumbnail(images.decode(example.read()))


def _twins(rows, bits, likeness, examples, parts):
  rows = sorted(rows)
  years = [examples[row].years for row in rows if examples[row].years]
  genders = {examples[row].gender for row in rows} - {schema.UNKNOWN}
  gap = 0.0
  if years:
    # Of groups: from the end of one to the beginning of the other.
    gap = max(low for low, _ in years) - min(high for _, high in years)
  return Twins(
    rows=tuple(rows),
    bits=bits,
    likeness=likeness,
    years=max(float(gap), 0.0),
    genders_differ=len(genders) > 1,
    parts=tuple(sorted({parts[row] for row in rows} - {''})),
  )


def _badness(found):
  return not found.genders_differ, -found.years, found.rows


def _parts(builder, examples) -> dict[int, str]:
  """Maps the id of each example to the part in which it lies.

  That is train, validation or test where the data set has them, else the
  public split of the fewest pieces, such as a fold.
  """
  unions = {
    name: union.split('+')
    for name, union in builder.SPLITS.items()
    if name in _MAIN_PARTS
  }
  unions = unions or {
    name: union.split('+')
    for name, union in sorted(
      builder.SPLITS.items(), key=lambda item: item[1].count('+')
    )
  }
  return {
    id(example): next((n for n, atoms in unions.items() if atom in atoms), atom)
    for atom, group in builder.split_examples(examples).items()
    for example in group
  }
