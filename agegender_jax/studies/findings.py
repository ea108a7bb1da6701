"""Writes an audit as rows of a table and as numbers."""

import collections
import dataclasses

from agegender_jax import schema
from agegender_jax.data.datasets import examples as examples_lib
from agegender_jax.studies import audit as audit_lib


@dataclasses.dataclass(frozen=True)
class Finding:
  """One row of audit.csv: a picture, and what is wrong about it.

  Attributes:
    kind: unreadable, odd_row, unknown (a label), identical, near_duplicate, or
      similar_hash (near hashes in different parts, but other pixels).
    group: number of the group or pair within its kind; '' where it is alone.
    name: of the picture.
    age: years or a group; '' where unknown.
    gender: male, female or ''.
    split: the part in which it lies.
    distance: bits between the difference hashes of the pair.
    likeness: of the pair's thumbnails, 1 for the same picture.
    problem: in words.
  """

  kind: str
  group: int | str
  name: str
  age: str = ''
  gender: str = ''
  split: str = ''
  distance: int | str = ''
  likeness: float | str = ''
  problem: str = ''


COLUMNS = tuple(field.name for field in dataclasses.fields(Finding))


def age_text(example: examples_lib.Example) -> str:
  """Returns years such as `31` or `31.5`, a group such as `25-32`, or ''."""
  if example.years is None:
    return ''
  low, high = example.years
  return f'{low:g}' if low == high else f'{low:g}-{high:g}'


def gender_text(example: examples_lib.Example) -> str:
  """Returns male, female or ''."""
  known = example.gender != schema.UNKNOWN
  return schema.GENDERS[example.gender] if known else ''


def problem_text(found: audit_lib.Twins) -> str:
  """Says what is wrong about pictures that are there twice."""
  parts = [f'in {" and ".join(found.parts)}'] if found.straddles else []
  if found.years > 0:
    parts.append(f'ages {found.years:g} years apart')
  if found.genders_differ:
    parts.append('genders differ')
  return '; '.join(parts)


def table(audit: audit_lib.Audit) -> list[Finding]:
  """Lists everything that was found, the pictures of a group below each other.

  Args:
    audit: of a data set.
  """
  rows = [
    Finding('unreadable', '', example.name, problem=example.error)
    for example in audit.unreadable
  ]
  places = {example.name: row for row, example in enumerate(audit.examples)}
  for name, reason in audit.odd_rows:
    labels_of = _labelled(audit, places[name]) if name in places else {}
    problem = examples_lib.REASONS[reason]
    rows.append(Finding('odd_row', '', name, problem=problem, **labels_of))
  rows += _unknown(audit)
  # Those of the same kind that look alike in one part only are no leak and
  # are other people: thousands of them would hide the rest.
  by_hash = [t for t in audit.near if t.straddles and not t.is_same]
  for kind, groups in (
    ('identical', audit.identical),
    ('near_duplicate', audit.near_duplicates),
    ('similar_hash', by_hash),
  ):
    for number, found in enumerate(groups, 1):
      rows += [_of_group(kind, number, found, audit, row) for row in found.rows]
  return rows


def _of_group(kind, number, found, audit, row):
  return Finding(
    kind,
    number,
    audit.examples[row].name,
    **_labelled(audit, row),
    distance=found.bits,
    likeness=round(found.likeness, 3),
    problem=problem_text(found),
  )


def _labelled(audit, row):
  example = audit.examples[row]
  return {
    'age': age_text(example),
    'gender': gender_text(example),
    'split': audit.parts[row],
  }


def _unknown(audit):
  """Lists pictures without a label that others of the data set have."""
  found = []
  for what, text in (('age', age_text), ('gender', gender_text)):
    missing = [
      row
      for row, example in enumerate(audit.examples)
      if audit.parts[row] and not text(example)
    ]
    if len(missing) < sum(map(bool, audit.parts)):
      found += [
        Finding(
          'unknown',
          '',
          audit.examples[row].name,
          **_labelled(audit, row),
          problem=f'no {what}',
        )
        for row in missing
      ]
  return found


def numbers(audit: audit_lib.Audit) -> dict:
  """Returns the counts of an audit, flat, and the labels of each part.

  Args:
    audit: of a data set.

  Returns:
    `counts`, reason -> number; `straddling`, `test and train` -> number of
    identical groups and near pairs; `parts`, name -> pictures, and how many
    have each gender, each age as labelled, and each value of the data's own
    short columns.
  """
  counts = {key: value for key, value in audit.counts.items() if value}
  # Those worth a line though there is none.
  counts |= {key: audit.counts[key] for key in ('unreadable', 'no_label')}
  kept = [e for e, part in zip(audit.examples, audit.parts, strict=True) if part]
  found = audit.contradicting
  near = audit.near_duplicates
  counts |= {
    'examples_without_age': sum(not age_text(e) for e in kept),
    'examples_without_gender': sum(not gender_text(e) for e in kept),
    'contradicting_pictures': audit.counts['contradicting_pictures'],
    'identical_groups': len(audit.identical),
    'identical_pictures': sum(len(t.rows) for t in audit.identical),
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
  straddling = collections.Counter(
    ' and '.join(found.parts) for found in audit.straddling
  )
  return {
    'data': audit.builder.name,
    'fingerprint': audit.builder.builder_config.name,
    'counts': counts,
    'straddling': dict(sorted(straddling.items())),
    'parts': labels(audit),
  }


def labels(audit: audit_lib.Audit) -> dict:
  """Counts the labels of each part; see numbers."""
  groups = collections.defaultdict(list)
  for example, part in zip(audit.examples, audit.parts, strict=True):
    if part:
      groups[part].append(example)
  columns = {'gender': gender_text, 'age': age_text} | {
    key: lambda example, key=key: _value_text(audit.builder, example, key)
    for key in short_columns(audit)
  }
  return {
    part: {'pictures': len(groups[part])}
    | {
      key: dict(
        collections.Counter(text(example) or 'unknown' for example in groups[part])
      )
      for key, text in columns.items()
    }
    for part in sorted(groups, key=_place)
  }


def _value_text(builder, example, key):
  value = example.extras[key]
  if value == schema.UNKNOWN:
    return ''
  return str(builder.VALUE_NAMES.get(key, {}).get(value, value))


def short_columns(audit: audit_lib.Audit, most: int = 12) -> list[str]:
  """Names the data's own columns that have between 2 and 12 values."""
  values = collections.defaultdict(set)
  for example in audit.examples:
    for key, value in example.extras.items():
      values[key].add(value)
  return [key for key, found in values.items() if 1 < len(found) <= most]


def _place(part):
  order = ('train', 'validation', 'test')
  return order.index(part) if part in order else len(order), part
