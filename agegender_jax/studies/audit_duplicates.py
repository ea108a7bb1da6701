"""Shows pictures that are there twice: contact sheets and their names."""

from agegender_jax.data import images
from agegender_jax.report import blocks
from agegender_jax.studies import audit as audit_lib

_PIXELS = 112  # Height and width of a picture on a sheet.
_MOST_SHOWN = 40  # Groups or pairs on a sheet.
MOST_ROWS = 500  # Of a table; audit.csv has them all.


def contradicting(audit):
  """Returns identical pictures with labels that cannot all be right."""
  found = audit.contradicting
  if not found:
    return blocks.section(
      'contradicting',
      'Identical pictures, other labels',
      blocks.note('No two byte-identical pictures contradict each other.'),
    )
  sheet = _sheet(audit, found, pictures=1)
  return blocks.section(
    'contradicting',
    'Identical pictures, other labels',
    blocks.note(
      'Each picture is there more than once, byte by byte, with labels that '
      'cannot all be right. '
      + _shown(sheet, found, 'other genders first, then the most years')
    ),
    sheet,
    _table(audit, found),
  )


def near_contradicting(audit):
  """Returns near-duplicates whose labels are too far apart."""
  found = audit.near_contradicting
  if not found:
    return {}
  sheet = _sheet(audit, found, pictures=2)
  return blocks.section(
    'near',
    'Near-duplicates, other labels',
    blocks.note(
      'The same picture in other bytes, with another gender or more than '
      f'{audit_lib.FAR_YEARS} years apart. '
      + _shown(sheet, found, 'other genders first, then the most years')
    ),
    sheet,
    _table(audit, found),
  )


def straddling(audit, counts, bits):
  """Returns identical and near pictures in different parts of the data set."""
  title = 'In different parts of the data'
  by_hash = counts['straddling_pairs_by_hash']
  note = blocks.note(
    f'{by_hash:,} pairs of pictures in any two different parts have hashes at '
    f'most {bits} bits apart. The hash is coarse: of aligned faces many pairs '
    'are other people. Counted here are those whose thumbnails also correlate '
    f'by at least {audit_lib.SAME_IMAGE:g}. '
    'Evaluation leaves out all that the hash finds between train and the '
    'scored part; audit.csv lists the others as similar_hash.'
  )
  found = audit.straddling
  if not found:
    return blocks.section('straddling', title, note) if by_hash else {}
  parts = audit_lib.numbers(audit)['straddling']
  sheet = _sheet(audit, found, pictures=2)
  return blocks.section(
    'straddling',
    title,
    blocks.facts([(name, f'{number:,}') for name, number in parts.items()]),
    note,
    blocks.note(_shown(sheet, found, 'the most alike first')),
    sheet,
    _table(audit, found),
  )


def _shown(sheet, found, order):
  return f'{len(sheet["items"])} of {len(found):,} are shown, {order}.'


def _sheet(audit, found, pictures):
  # Copies make several pairs of two pictures: one of them is enough to see.
  items, seen = [], set()
  for twins in found:
    shown = [audit.examples[row] for row in twins.rows]
    digests = frozenset(example.digest for example in shown)
    if digests in seen or len(items) == _MOST_SHOWN:
      continue
    seen.add(digests)
    texts = dict.fromkeys(_label(example) for example in shown)
    note = ' and '.join(twins.parts)
    if pictures > 1:
      note += f', {twins.bits} bit{"s" * (twins.bits != 1)} apart'
    items.append({
      'images': [_picture(example) for example in shown[:pictures]],
      'title': ' / '.join(texts),
      'note': note,
    })  # fmt: skip
  return {'kind': 'sheet', 'items': items, 'single': pictures == 1}


def _picture(example):
  image = images.decode(example.read())
  return blocks.image_uri(images.prepare(image, _PIXELS))


def _label(example):
  gender = audit_lib.gender_text(example)[:1].upper()
  return f'{audit_lib.age_text(example)} {gender}'.strip() or '?'


def _table(audit, found):
  body = []
  for number, twins in enumerate(found, 1):
    for row in twins.rows:
      example = audit.examples[row]
      body.append([
        blocks.cell(f'{number}', number),
        blocks.cell(example.name),
        blocks.cell(audit_lib.age_text(example)),
        blocks.cell(audit_lib.gender_text(example)),
        blocks.cell(audit.parts[row]),
        blocks.cell(f'{twins.bits}', twins.bits),
        blocks.cell(f'{twins.likeness:.3f}', twins.likeness),
      ])  # fmt: skip
  header = ['No.', 'Name', 'Age', 'Gender', 'Part', 'Bits', 'Likeness']
  return blocks.fold(
    'All of them, by name',
    blocks.table(caption(len(body)), header, body[:MOST_ROWS]),
  )


def caption(count):
  """Returns a caption for a table that is cut short."""
  if count <= MOST_ROWS:
    return ''
  return f'The first {MOST_ROWS} of {count:,} rows; audit.csv has them all'
