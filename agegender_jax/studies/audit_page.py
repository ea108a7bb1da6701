"""Shows an audit of raw data on one page: counts, labels, contact sheets."""

import collections

import numpy as np

from agegender_jax import schema
from agegender_jax.data import images
from agegender_jax.report import blocks, page, plots
from agegender_jax.studies import audit as audit_lib

_FOUND = {
  'examples_without_age': 'of the examples without an age',
  'examples_without_gender': 'of the examples without a gender',
  'identical_groups': 'groups of byte-identical images',
  'straddling_groups': 'of those groups lie in different parts',
  'contradicting_groups_in_age': 'of those groups contradict in age',
  'contradicting_groups_in_gender': 'of those groups contradict in gender',
  'near_pairs': 'pairs of near-duplicates, hashes at most {bits} bits apart',
  'near_contradicting_pairs': 'of those pairs contradict in gender or by more '
                              'than {years} years',
  'straddling_pairs': 'of those pairs lie in different parts',
}  # fmt: skip
_PIXELS = 112  # Height and width of an image on a sheet.
_MOST_SHOWN = 40  # Groups or pairs on a sheet.
_MOST_ROWS = 500  # Of a table; audit.csv has them all.
_MOST_VALUES = 12  # Of a label, the commonest.


def render(audit: audit_lib.Audit, source: str, command: str, bits: int) -> str:
  """Renders the page.

  Args:
    audit: of a data set.
    source: where the raw data lie, as the user named it.
    command: that writes the page again.
    bits: the most that the hashes of near-duplicates differ in.

  Returns:
    HTML that holds all it needs.
  """
  default = 'drawn' if audit.builder.name == 'synthetic' else "TFDS's own folder"
  worst = 'other genders first, then the most years'
  numbers = audit_lib.numbers(audit)
  return page.render(
    title=f'Audit of {audit.builder.name}',
    lead=[
      ('Images read', f'{len(audit.examples):,}'),
      ('Raw data', source or default),
      ('Fingerprint', audit.builder.builder_config.name),
      ('Terms', audit.builder.LICENCE),
    ],
    found=[
      _summary(audit, numbers['counts'], bits),
      _labels(audit, numbers['parts']),
      blocks.section(
        'contradicting',
        'Identical images, other labels',
        'Images that are there more than once, byte by byte, with labels that cannot '
        f'all be right: {len(audit.contradicting):,}.',
        *_duplicates(audit, audit.contradicting, worst, shown_each=1),
      ),
      blocks.section(
        'near',
        'Near-duplicates, other labels',
        'The same image in other bytes, with another gender or more than '
        f'{audit_lib.FAR_YEARS} years apart: {len(audit.near_contradicting):,}.',
        *_duplicates(audit, audit.near_contradicting, worst),
      ),
      _straddling(audit, numbers, bits),
      _odd(audit),
      blocks.section('again', 'Audit it again', blocks.code(command)),
    ],
  )


def _summary(audit, counts, bits):
  reasons = audit.builder.REASONS.items()
  texts = {key: text for key, text in reasons if key in counts} | _FOUND
  rows = [
    [text.format(bits=bits, years=audit_lib.FAR_YEARS), counts[key]]
    for key, text in texts.items()
  ]
  table = blocks.table('audit.csv names the images', ['What', 'Number'], rows)
  return blocks.section('found', 'What was found', table)


def _labels(audit, found):
  """Shows how many images of each label every part has, see count_labels."""
  tables = []
  for key in ('gender', 'age', *audit_lib.short_columns(audit)):
    total = collections.Counter()
    for counts in found.values():
      total.update(counts[key])
    if key == 'age':  # Years are in the figures.
      total = collections.Counter({k: n for k, n in total.items() if '-' in k})
    values = sorted(value for value, _ in total.most_common(_MOST_VALUES))
    rows = [
      [part, counts['images'], *(counts[key].get(value, 0) for value in values)]
      for part, counts in found.items()
    ]
    if values:
      header = ['Part', 'Images', *values]
      tables.append(blocks.table(f'Images by {key}', header, rows))
  names = (*schema.GENDERS, 'unknown')
  shares = {k: [n['gender'].get(name, 0) for name in names] for k, n in found.items()}
  rows = list(zip(audit.examples, audit.parts, strict=True))
  by_part = {part: [e for e, at in rows if at == part] for part in found}
  by_gender = {
    name: [
      e for e, at in rows if at and (audit_lib.gender_text(e) or names[-1]) == name
    ]
    for name in names
  }
  figures = [
    plots.ages(title, ages)
    for title, groups in (
      ('Ages in each part', by_part),
      ('Ages of each gender', by_gender),
    )
    if (ages := _ages(groups))
  ]
  years = _years(audit.examples)
  old = years[years >= 10]
  rounding = len(old) and (
    f'{100 * np.mean(old % 5 == 0):.0f} % of the ages from ten on end in 0 or 5; where '
    'ages are not rounded it is 20 %.'
  )
  figures.append(plots.shares('Genders in each part', shares, names))
  return blocks.section('labels', 'Labels', figures, rounding, *tables)


def _years(examples):
  """Returns the ages that are given in years, float64 [N]."""
  return np.array(
    [e.years[0] for e in examples if e.years and e.years[0] == e.years[1]]
  )


def _ages(groups):
  """Returns name -> (years, a weight of 1 for each), of the names that have any."""
  years = {name: _years(examples) for name, examples in groups.items()}
  return {
    name: (found, np.ones(len(found))) for name, found in years.items() if len(found)
  }


def _straddling(audit, numbers, bits):
  """Shows identical and near images in different parts of the data set."""
  by_hash = numbers['counts']['straddling_pairs_by_hash']
  if not by_hash and not audit.straddling:
    return {}
  return blocks.section(
    'straddling',
    'In different parts of the data',
    blocks.facts([(name, f'{n:,}') for name, n in numbers['straddling'].items()]),
    f'{by_hash:,} pairs of images in any two different parts have hashes at '
    f'most {bits} bits apart. The hash is coarse: of aligned faces many pairs '
    'are other people. Counted here are those whose thumbnails also correlate '
    f'by at least {audit_lib.SAME_IMAGE:g}. '
    'Evaluation leaves out all that the hash finds between train and the '
    'scored part; audit.csv lists the others as similar_hash.',
    *_duplicates(audit, audit.straddling, 'the most alike first'),
  )


def _odd(audit):
  rows = [(name, audit.builder.reason_text(why)) for name, why in audit.odd_rows]
  rows += [(e.name, f'unreadable: {e.error}') for e in audit.unreadable]
  table = _table(['Name', 'What'], rows)
  return blocks.section('rows', 'Repaired, skipped and unreadable', table)


def _duplicates(audit, found, order, shown_each=2):
  """Returns a contact sheet of groups or pairs, and a table of their images."""
  if not found:
    return ()
  # Copies make several pairs of two images: one of them is enough to see.
  items, body = {}, []
  for number, group in enumerate(found, 1):
    shown = [audit.examples[row] for row in group.rows]
    digests = frozenset(example.digest for example in shown)
    if digests not in items and len(items) < _MOST_SHOWN:
      near = (
        f', {group.bits} bit{"s" * (group.bits != 1)} apart' if shown_each > 1 else ''
      )
      items[digests] = {
        'images': [_image(example) for example in shown[:shown_each]],
        'title': ' / '.join(dict.fromkeys(map(_label, shown))),
        'note': ' and '.join(group.parts) + near,
      }
    for row, example in zip(group.rows, shown, strict=True):
      likeness = blocks.cell(f'{group.likeness:.3f}', group.likeness)
      labels = audit_lib.age_text(example), audit_lib.gender_text(example)
      body.append(
        [number, example.name, *labels, audit.parts[row], group.bits, likeness]
      )
  sheet = {'kind': 'sheet', 'items': list(items.values()), 'single': shown_each == 1}
  header = ['No.', 'Name', 'Age', 'Gender', 'Part', 'Bits', 'Likeness']
  return (
    f'{len(items)} of {len(found):,} are shown, {order}.',
    sheet,
    blocks.fold('All of them, by name', _table(header, body)),
  )


def _image(example):
  return blocks.image_uri(images.prepare(images.decode(example.read()), _PIXELS))


def _label(example):
  gender = audit_lib.gender_text(example)[:1].upper()
  return f'{audit_lib.age_text(example)} {gender}'.strip() or '?'


def _table(header, rows):
  """Returns a table of the first rows."""
  cut = f'The first {_MOST_ROWS} of {len(rows):,} rows; audit.csv has them all'
  caption = cut if len(rows) > _MOST_ROWS else ''
  return blocks.table(caption, header, rows[:_MOST_ROWS])
