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
  'identical_images': 'images in those groups',
  'straddling_groups': 'of those groups lie in different parts',
  'contradicting_groups': 'of those groups contradict in age or gender',
  'contradicting_groups_in_age': 'of those groups contradict in age',
  'contradicting_groups_in_gender': 'of those groups contradict in gender',
  'contradicting_images': 'images that an identical one contradicts',
  'near_pairs': 'pairs of near-duplicates, hashes at most {bits} bits apart',
  'near_contradicting_pairs': 'of those pairs contradict in gender or by more '
                              'than {years} years',
  'straddling_pairs': 'of those pairs lie in different parts',
}  # fmt: skip


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
  counts = audit_lib.numbers(audit)['counts']
  is_drawn = audit.builder.name == 'synthetic'
  default = 'drawn' if is_drawn else "TFDS's own folder"
  return page.render(
    title=f'Audit of {audit.builder.name}',
    lead=[
      ('Images read', f'{len(audit.examples):,}'),
      ('Raw data', source or default),
      ('Fingerprint', audit.builder.builder_config.name),
      ('Terms', audit.builder.LICENCE),
    ],
    found=[
      _summary(audit, counts, bits),
      _labels(audit),
      _contradicting(audit),
      _near_contradicting(audit),
      _straddling(audit, counts, bits),
      _odd(audit),
      blocks.section('again', 'Audit it again', blocks.code(command)),
    ],
  )


def _summary(audit, counts, bits):
  texts = {
    key: text for key, text in audit.builder.REASONS.items()
    if key not in _FOUND and key in counts
  }  # fmt: skip
  return blocks.section(
    'found',
    'What was found',
    blocks.table(
      'audit.csv names the images',
      ['What', 'Number'],
      [
        [
          blocks.cell(text.format(bits=bits, years=audit_lib.FAR_YEARS)),
          blocks.cell(f'{counts[key]:,}', counts[key]),
        ]
        for key, text in (texts | _FOUND).items()
      ],
    ),
  )


def _labels(audit):
  found = audit_lib.count_labels(audit)
  tables = []
  for key in ('gender', *audit_lib.short_columns(audit)):
    values = sorted({value for part in found.values() for value in part[key]})
    tables.append(
      blocks.table(
        f'Images by {key}',
        ['Part', 'Images', *values],
        [
          [
            blocks.cell(part),
            blocks.cell(f'{counts["images"]:,}', counts['images']),
            *(
              blocks.cell(f'{number:,}', number)
              for number in (counts[key].get(value, 0) for value in values)
            ),
          ]
          for part, counts in found.items()
        ],
      )
    )
  return blocks.section(
    'labels',
    'Labels',
    blocks.figures(_label_figures(audit, found)),
    _heaping(audit),
    *tables,
  )


def _heaping(audit):
  years = _years_of(audit.examples)
  years = years[years >= 10]
  if not len(years):
    return None
  share = np.mean(years % 5 == 0)
  return blocks.note(
    f'{100 * share:.0f} % of the ages from ten on end in 0 or 5; where '
    'ages are not rounded it is 20 %.'
  )


def _odd(audit):
  rows = [
    (name, audit.builder.reason_text(reason)) for name, reason in audit.odd_rows
  ] + [(e.name, f'unreadable: {e.error}') for e in audit.unreadable]
  if not rows:
    return {}
  return blocks.section(
    'rows',
    'Repaired, skipped and unreadable',
    blocks.table(
      _caption(len(rows)),
      ['Name', 'What'],
      [[blocks.cell(text) for text in row] for row in rows[:_MOST_ROWS]],
    ),
  )


_PIXELS = 112  # Height and width of an image on a sheet.
_MOST_SHOWN = 40  # Groups or pairs on a sheet.
_MOST_ROWS = 500  # Of a table; audit.csv has them all.


def _contradicting(audit):
  """Returns identical images with labels that cannot all be right."""
  found = audit.contradicting
  if not found:
    return blocks.section(
      'contradicting',
      'Identical images, other labels',
      blocks.note('No two byte-identical images contradict each other.'),
    )
  sheet = _sheet(audit, found, images=1)
  return blocks.section(
    'contradicting',
    'Identical images, other labels',
    blocks.note(
      'Each image is there more than once, byte by byte, with labels that '
      'cannot all be right. '
      + _shown(sheet, found, 'other genders first, then the most years')
    ),
    sheet,
    _table(audit, found),
  )


def _near_contradicting(audit):
  """Returns near-duplicates whose labels are too far apart."""
  found = audit.near_contradicting
  if not found:
    return {}
  sheet = _sheet(audit, found, images=2)
  return blocks.section(
    'near',
    'Near-duplicates, other labels',
    blocks.note(
      'The same image in other bytes, with another gender or more than '
      f'{audit_lib.FAR_YEARS} years apart. '
      + _shown(sheet, found, 'other genders first, then the most years')
    ),
    sheet,
    _table(audit, found),
  )


def _straddling(audit, counts, bits):
  """Returns identical and near images in different parts of the data set."""
  title = 'In different parts of the data'
  by_hash = counts['straddling_pairs_by_hash']
  note = blocks.note(
    f'{by_hash:,} pairs of images in any two different parts have hashes at '
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
  sheet = _sheet(audit, found, images=2)
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


def _sheet(audit, found, images):
  # Copies make several pairs of two images: one of them is enough to see.
  items, seen = [], set()
  for group in found:
    shown = [audit.examples[row] for row in group.rows]
    digests = frozenset(example.digest for example in shown)
    if digests in seen or len(items) == _MOST_SHOWN:
      continue
    seen.add(digests)
    texts = dict.fromkeys(_label(example) for example in shown)
    note = ' and '.join(group.parts)
    if images > 1:
      note += f', {group.bits} bit{"s" * (group.bits != 1)} apart'
    items.append({
      'images': [_image(example) for example in shown[:images]],
      'title': ' / '.join(texts),
      'note': note,
    })  # fmt: skip
  return {'kind': 'sheet', 'items': items, 'single': images == 1}


def _image(example):
  image = images.decode(example.read())
  return blocks.image_uri(images.prepare(image, _PIXELS))


def _label(example):
  gender = audit_lib.gender_text(example)[:1].upper()
  return f'{audit_lib.age_text(example)} {gender}'.strip() or '?'


def _table(audit, found):
  body = []
  for number, group in enumerate(found, 1):
    for row in group.rows:
      example = audit.examples[row]
      body.append([
        blocks.cell(f'{number}', number),
        blocks.cell(example.name),
        blocks.cell(audit_lib.age_text(example)),
        blocks.cell(audit_lib.gender_text(example)),
        blocks.cell(audit.parts[row]),
        blocks.cell(f'{group.bits}', group.bits),
        blocks.cell(f'{group.likeness:.3f}', group.likeness),
      ])  # fmt: skip
  header = ['No.', 'Name', 'Age', 'Gender', 'Part', 'Bits', 'Likeness']
  return blocks.fold(
    'All of them, by name',
    blocks.table(_caption(len(body)), header, body[:_MOST_ROWS]),
  )


def _caption(count):
  """Returns a caption for a table that is cut short."""
  if count <= _MOST_ROWS:
    return ''
  return f'The first {_MOST_ROWS} of {count:,} rows; audit.csv has them all'


def _years_of(examples) -> np.ndarray:
  """Returns the ages that are given in years, float64 [N]."""
  return np.array(
    [
      example.years[0]
      for example in examples
      if example.years and example.years[0] == example.years[1]
    ]
  )


def _label_figures(audit, counts: dict) -> list:
  """Returns ages a part, ages a gender, each year, groups, genders a part.

  Args:
    audit: of a data set.
    counts: of audit.count_labels.
  """
  by_part = collections.defaultdict(list)
  by_gender = collections.defaultdict(list)
  for example, part in zip(audit.examples, audit.parts, strict=True):
    if part:
      by_part[part].append(example)
      by_gender[audit_lib.gender_text(example) or 'unknown'].append(example)
  parts = {part: by_part[part] for part in counts}
  genders = {
    name: by_gender[name] for name in (*schema.GENDERS, 'unknown')
    if name in by_gender
  }  # fmt: skip
  result = []
  for title, groups in (
    ('Ages in each part', parts),
    ('Ages of each gender', genders),
  ):
    result += _ages(title, groups) + _groups(title, groups)
  years = _years_of(audit.examples)
  if len(years):
    result.append(_year_bars('Images of each year of age', years))
  names = (*schema.GENDERS, 'unknown')
  shares = {
    part: [counts[part]['gender'].get(name, 0) for name in names] for part in counts
  }
  return [*result, plots.shares('Genders in each part', shares, names)]


def _ages(title, groups):
  ages = {name: _years_of(examples) for name, examples in groups.items()}
  ages = {k: (years, np.ones(len(years))) for k, years in ages.items()
          if len(years)}  # fmt: skip
  if not ages:
    return []
  return [plots.ages(title, ages)]


def _groups(title, groups):
  """Returns a panel of the ages that are given as groups."""
  counts = {
    name: collections.Counter(
      example.years
      for example in examples
      if example.years and example.years[0] < example.years[1]
    )
    for name, examples in groups.items()
  }
  # The commonest: the owners' files also hold odd ones, a few of each.
  known = sum(counts.values(), collections.Counter()).most_common(10)
  if not known:
    return []
  found_of = {name: found for name, found in counts.items() if found}
  groups = sorted(group for group, _ in known)
  return [_group_steps(f'{title}, groups', found_of, groups)]


@plots.figure
def _year_bars(axes, years):
  """Draws a bar a year of age; those that end in 0 or 5 stand out."""
  values, counts = np.unique(np.floor(years), return_counts=True)
  rounded = values % 5 == 0
  for chosen, color, label in (
    (~rounded, plots.BLUE, 'other'),
    (rounded, plots.ORANGE, 'ends in 0 or 5'),
  ):
    axes.bar(values[chosen], counts[chosen], width=1, color=color, alpha=0.8,
             linewidth=0, label=label)  # fmt: skip
  axes.set(xlabel='age (years)',
           ylabel='images')  # fmt: skip
  axes.legend()


@plots.figure
def _group_steps(axes, counts, groups):
  """Draws how many images each group has, a line per name.

  Args:
    axes: where to.
    counts: name -> Counter of (first, last year).
    groups: the (first, last year) to draw.
  """
  edges = np.arange(len(groups) + 1) - 0.5
  for color, (name, found) in zip(plots.PALETTE, counts.items(), strict=False):
    heights = [found[group] for group in groups]
    axes.stairs(heights, edges, color=color, linewidth=1.6, label=name)
    axes.stairs(heights, edges, color=color, alpha=0.16, fill=True)
  names = [f'{low:g}-{high:g}' for low, high in groups]
  axes.set_xticks(range(len(names)), names, fontsize=7)
  axes.set(xlabel='age group (years)', ylabel='images')
  axes.legend()
