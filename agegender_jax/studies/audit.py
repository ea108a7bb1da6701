"""Audits raw data: what is unknown, unreadable, duplicate or contradictory.

Works on what a data set collects, before anything is prepared, so that the
rows show what preparing skips or repairs.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import os
import typing

import numpy as np

from agegender_jax import errors, schema
from agegender_jax.data import duplicates, images, splits
from agegender_jax.data.datasets import base
from agegender_jax.scoring import subgroups

# Correlation of thumbnails from which two images with near hashes are taken
# for the same one. Set by eye on the 31 pairs of UTKFace and FairFace between
# 0.93 and 0.98: the first of other people is at 0.953, below they are mixed.
SAME_IMAGE = 0.955
# Years between the labels of nearly identical images that are too many: a
# year or two may truly lie between two images.
FAR_YEARS = 5


@dataclasses.dataclass(frozen=True)
class Duplicates:
  """Images that show the same: identical ones, or a near pair."""

  rows: tuple[int, ...]  # Of Audit.examples, ascending.
  bits: int  # Between their difference hashes.
  likeness: float  # Of their thumbnails, see duplicates.likeness.
  years: float  # Between the oldest and the youngest age that is known.
  genders_differ: bool
  parts: tuple[str, ...]  # Of the data set in which they lie, sorted.

  @property
  def is_same(self) -> bool:
    """True if the pixels agree, not only the hashes."""
    return self.likeness >= SAME_IMAGE

  @property
  def contradicts(self) -> bool:
    """True if the labels of one image cannot all be right."""
    return self.genders_differ or self.years > 0

  @property
  def straddles(self) -> bool:
    """True if they lie in different parts."""
    return len(self.parts) > 1


@dataclasses.dataclass
class Audit:
  """What was found in a data set."""

  builder: base.FaceBuilder
  examples: list[base.Example]  # Readable, also those without a usable name.
  parts: list[str]  # In which each example lies; '' where it is skipped.
  unreadable: list[base.Example]
  odd_rows: list[tuple[str, str]]  # (name, reason): skipped or read in part.
  counts: collections.Counter  # Reason -> number, as preparing counts them.
  labels: dict[str, dict]  # How each value was read, see labels.Tally.
  identical: list[Duplicates]  # Groups of the same bytes.
  near: list[Duplicates]  # Pairs with near hashes and other bytes.

  @property
  def contradicting(self) -> list[Duplicates]:
    """Identical images with labels that cannot all be right, worst first."""
    return sorted((t for t in self.identical if t.contradicts), key=_badness)

  @property
  def near_duplicates(self) -> list[Duplicates]:
    """Pairs that show the same by their hashes and by their pixels."""
    return [pair for pair in self.near if pair.is_same]

  @property
  def near_contradicting(self) -> list[Duplicates]:
    """Near-duplicates whose labels are too far apart, worst first."""
    found = [t for t in self.near_duplicates if t.genders_differ or t.years > FAR_YEARS]
    return sorted(found, key=_badness)

  @property
  def straddling(self) -> list[Duplicates]:
    """Identical and near ones in different parts, the most alike first.

    Where the owners say what is test, even identical ones can be.
    """
    found = [t for t in self.identical + self.near_duplicates if t.straddles]
    return sorted(found, key=lambda t: (-t.likeness, t.rows))


def audit(builder: base.FaceBuilder, bits: int = 3) -> Audit:
  """Reads all images of a data set and looks for what is wrong.

  Args:
    builder: of the data set; nothing is prepared.
    bits: the most that the hashes of near-duplicates differ in.

  Raises:
    errors.UserError: the raw data are absent, or not one image is readable.
  """
  collected = builder.collect()
  everything = collected.examples + collected.skipped
  base.read_images(
    everything, f'{builder.name}: reading', builder.builder_config.max_megapixels
  )
  kept = [example for example in collected.examples if not example.error]
  if not kept:
    base.check_readable(everything)
    raise errors.UserError('no readable image has a label')
  part_of = _parts(builder, kept)
  examples = kept + [example for example in collected.skipped if not example.error]
  parts = [part_of.get(id(example), '') for example in examples]
  return Audit(
    builder=builder,
    examples=examples,
    parts=parts,
    unreadable=[example for example in everything if example.error],
    odd_rows=[(e.name, reason) for e in everything for reason in e.problems],
    counts=collected.counts + base.count_read(everything, kept),
    labels=collected.labels.summary(),
    identical=identical(examples, parts),
    near=_near(bits, examples, parts),
  )


def identical(examples: list[base.Example], parts: list[str]) -> list[Duplicates]:
  """Groups byte-identical images.

  Args:
    examples: N, with their digests.
    parts: N parts of the data set in which they lie.

  Returns:
    The groups of two and more, in the order of their first rows.
  """
  return [
    _duplicates(rows, 0, 1.0, examples, parts)
    for rows in _copies(examples)
    if len(rows) > 1
  ]


def _copies(examples) -> list[list[int]]:
  """Returns the rows of each content, in the order of the first ones."""
  rows = range(len(examples))
  return list(base.group_by(rows, lambda row: examples[row].digest).values())


def _near(bits, examples, parts) -> list[Duplicates]:
  """Returns all pairs of images with other bytes but near hashes."""
  # One image of each group is compared; its copies have the same pixels.
  copies = _copies(examples)
  firsts = [examples[rows[0]] for rows in copies]
  hashes = [int.from_bytes(example.difference, 'big') for example in firsts]
  pairs, distances = duplicates.near_pairs(np.array(hashes, np.uint64), bits)
  if not len(pairs):
    return []
  used, places = np.unique(pairs, return_inverse=True)
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    small = list(pool.map(_thumbnail, (firsts[group] for group in used)))
  alike = duplicates.likeness(np.stack(small), places.reshape(pairs.shape))
  return [
    _duplicates(rows, int(distance), float(similar), examples, parts)
    for (first, second), distance, similar in zip(pairs, distances, alike, strict=True)
    for rows in itertools.product(copies[first], copies[second])
  ]


def _thumbnail(example):
  return duplicates.thumbnail(images.decode(example.read()))


def _duplicates(rows, bits, likeness, examples, parts):
  rows = sorted(rows)
  years = [examples[row].years for row in rows if examples[row].years]
  genders = {examples[row].gender for row in rows} - {schema.UNKNOWN}
  # Of groups: from the end of one to the beginning of the other.
  first_end = min((high for _, high in years), default=0)
  gap = max((low for low, _ in years), default=0) - first_end
  found = tuple(sorted({parts[row] for row in rows} - {''}))
  return Duplicates(
    tuple(rows), bits, likeness, max(float(gap), 0.0), len(genders) > 1, found
  )


def _badness(found):
  return not found.genders_differ, -found.years, found.rows


def _parts(builder, examples) -> dict[int, str]:
  """Maps the id of each example to the part in which it lies.

  That is train, validation or test where the data set has them, else the
  public split of the fewest pieces, such as a fold.
  """
  unions = {name: union.split('+') for name, union in builder.SPLITS.items()}
  names = [name for name in splits.PARTS if name in unions]
  names = names or sorted(unions, key=lambda name: len(unions[name]))
  return {
    id(example): next((name for name in names if atom in unions[name]), atom)
    for atom, group in builder.split_examples(examples).items()
    for example in group
  }


class Finding(typing.NamedTuple):
  """One row of audit.csv: an image, and what is wrong about it."""

  # unreadable, odd_row, unknown (a label), identical, near_duplicate, or
  # similar_hash (near hashes in different parts, but other pixels).
  kind: str
  group: int | str  # Number within its kind; '' where the image is alone.
  name: str
  age: str = ''  # Years or a group.
  gender: str = ''
  split: str = ''
  distance: int | str = ''  # Bits between the difference hashes.
  likeness: float | str = ''  # Of the thumbnails, 1 for the same image.
  problem: str = ''


def age_text(example: base.Example) -> str:
  """Returns years such as `31` or `31.5`, a group such as `25-32`, or ''."""
  if example.years is None:
    return ''
  low, high = example.years
  return f'{low:g}' if low == high else f'{low:g}-{high:g}'


def gender_text(example: base.Example) -> str:
  """Returns male, female or ''."""
  known = example.gender != schema.UNKNOWN
  return schema.GENDERS[example.gender] if known else ''


def _problem(found: Duplicates) -> str:
  """Describes what is wrong about images that are there twice."""
  parts = [f'in {" and ".join(found.parts)}'] if found.straddles else []
  parts += [f'ages {found.years:g} years apart'] if found.years > 0 else []
  parts += ['genders differ'] if found.genders_differ else []
  return '; '.join(parts)


def table(audit: Audit) -> list[Finding]:
  """Lists everything that was found, the images of a group below each other."""
  labels = [
    (example.name, age_text(example), gender_text(example), part)
    for example, part in zip(audit.examples, audit.parts, strict=True)
  ]
  by_name = {row[0]: row for row in labels}
  rows = [Finding('unreadable', '', e.name, problem=e.error) for e in audit.unreadable]
  for name, reason in audit.odd_rows:
    problem = audit.builder.reason_text(reason)
    rows.append(Finding('odd_row', '', *by_name.get(name, (name,)), problem=problem))
  # Labels that others of the data set have.
  kept = [row for row in labels if row[3]]
  for column, what in ((1, 'age'), (2, 'gender')):
    missing = [row for row in kept if not row[column]]
    if len(missing) < len(kept):
      rows += [Finding('unknown', '', *row, problem=f'no {what}') for row in missing]
  # Those of the same kind that look alike in one part only are no leak and
  # are other people: thousands of them would hide the rest.
  by_hash = [t for t in audit.near if t.straddles and not t.is_same]
  for kind, groups in (
    ('identical', audit.identical),
    ('near_duplicate', audit.near_duplicates),
    ('similar_hash', by_hash),
  ):
    for number, found in enumerate(groups, 1):
      rest = found.bits, round(found.likeness, 3), _problem(found)
      rows += [Finding(kind, number, *labels[row], *rest) for row in found.rows]
  return rows


def numbers(audit: Audit) -> dict:
  """Returns the counts of an audit, flat, and the labels of each part.

  Args:
    audit: of a data set.

  Returns:
    `counts`, reason -> number; `straddling`, `test and train` -> number of
    identical groups and near pairs; `labels`, see labels.Tally; `parts`, see
    count_labels.
  """
  kept = [e for e, part in zip(audit.examples, audit.parts, strict=True) if part]
  found, near = audit.contradicting, audit.near_duplicates
  counts = {key: value for key, value in audit.counts.items() if value} | {
    # Those worth a line though there is none.
    'unreadable': audit.counts['unreadable'],
    'no_label': audit.counts['no_label'],
    'contradicting_images': audit.counts['contradicting_images'],
    'examples_without_age': sum(not age_text(e) for e in kept),
    'examples_without_gender': sum(not gender_text(e) for e in kept),
    'identical_groups': len(audit.identical),
    'identical_images': sum(len(t.rows) for t in audit.identical),
    'contradicting_groups': len(found),
    'contradicting_groups_in_age': sum(t.years > 0 for t in found),
    'contradicting_groups_in_gender': sum(t.genders_differ for t in found),
    'near_pairs_by_hash': len(audit.near),
    'near_pairs': len(near),
    'near_contradicting_pairs': len(audit.near_contradicting),
    'straddling_pairs_by_hash': sum(t.straddles for t in audit.near),
    'straddling_pairs': sum(t.straddles for t in near),
    'straddling_groups': sum(t.straddles for t in audit.identical),
  }
  straddling = collections.Counter(' and '.join(t.parts) for t in audit.straddling)
  return {
    'data': audit.builder.name,
    'fingerprint': audit.builder.builder_config.name,
    'counts': counts,
    'straddling': dict(sorted(straddling.items())),
    'labels': audit.labels,
    'parts': count_labels(audit),
  }


def count_labels(audit: Audit) -> dict[str, dict]:
  """Counts the labels of each part.

  Returns:
    Part -> `images` and, for gender, age and each of the data's own short
    columns, value -> number of images.
  """

  def text(key, example):
    if key in ('gender', 'age'):
      return gender_text(example) if key == 'gender' else age_text(example)
    value = example.extras[key]
    names = audit.builder.VALUE_NAMES.get(key, {})
    return '' if value == schema.UNKNOWN else str(names.get(value, value))

  groups: dict[str, list] = collections.defaultdict(list)
  for example, part in zip(audit.examples, audit.parts, strict=True):
    groups[part].append(example)
  return {
    part: {'images': len(groups[part])}
    | {
      key: dict(collections.Counter(text(key, e) or 'unknown' for e in groups[part]))
      for key in ('gender', 'age', *short_columns(audit))
    }
    for part in sorted(filter(None, groups), key=_place)
  }


def _place(part):
  order = splits.PARTS
  return order.index(part) if part in order else len(order), part


def short_columns(audit: Audit) -> list[str]:
  """Names the data's own columns that have between 2 and 12 values."""
  values, most = collections.defaultdict(set), subgroups.MAX_VALUES
  for example in audit.examples:
    for key, value in example.extras.items():
      values[key].add(value)
  return [key for key, found in values.items() if 1 < len(found) <= most]
