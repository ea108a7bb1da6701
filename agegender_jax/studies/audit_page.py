"""Shows an audit of raw data on one page: counts, labels, contact sheets."""

import numpy as np

from agegender_jax.report import blocks, page
from agegender_jax.studies import audit as audit_lib
from agegender_jax.studies import audit_duplicates, audit_figures

# What the page counts itself, and its texts; {} = bits and years.
_FOUND = {
  'examples_without_age': 'of the examples without an age',
  'examples_without_gender': 'of the examples without a gender',
  'identical_groups': 'groups of byte-identical pictures',
  'identical_images': 'pictures in those groups',
  'straddling_groups': 'of those groups lie in different parts',
  'contradicting_groups': 'of those groups contradict in age or gender',
  'contradicting_groups_in_age': 'of those groups contradict in age',
  'contradicting_groups_in_gender': 'of those groups contradict in gender',
  'contradicting_images': 'pictures that an identical one contradicts',
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
      ('Pictures read', f'{len(audit.examples):,}'),
      ('Raw data', source or default),
      ('Fingerprint', audit.builder.builder_config.name),
      ('Terms', audit.builder.LICENCE),
    ],
    found=[
      _summary(audit, counts, bits),
      _labels(audit),
      audit_duplicates.contradicting(audit),
      audit_duplicates.near_contradicting(audit),
      audit_duplicates.straddling(audit, counts, bits),
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
      'audit.csv names the pictures',
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
        f'Pictures by {key}',
        ['Part', 'Pictures', *values],
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
    blocks.figures(audit_figures.labels(audit, found)),
    _heaping(audit),
    *tables,
  )


def _heaping(audit):
  years = audit_figures.years_of(audit.examples)
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
      audit_duplicates.caption(len(rows)),
      ['Name', 'What'],
      [
        [blocks.cell(text) for text in row]
        for row in rows[: audit_duplicates.MOST_ROWS]
      ],
    ),
  )
