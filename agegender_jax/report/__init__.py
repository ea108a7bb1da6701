"""Reads a workdir's files and shows them: figures, one page, a comparison.

Never the model and never jax: `evaluate` writes what the page needs. A new
part of the page is one function in `sections` (or `compare`), which returns
blocks of the kinds that `page.html.j2` knows.

  stored < predictions, details < run
  canvas < figures, dots < panels;  measures < blocks
  both < groups, uncertainty, gallery, network, evaluations, record
  < sections, compare < page;  card_facts < card
"""

from agegender_jax.report import card, page


def write_report(workdir) -> str:
  """Writes model_card.md and what `page.write_report` writes, its result."""
  card.write_card(workdir)  # First: the page links to it.
  return page.write_report(workdir)


write_comparison = page.write_comparison
