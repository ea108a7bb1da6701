"""Shows what a workdir's files say: figures, one page, a comparison, a model card.

May import `scoring`, `evaluation.artifacts` and what lies below them; never the model
and never jax. A new part of the page is one function that returns a section of
blocks, and one entry of `page.SECTIONS`.
"""

from agegender_jax.report import model_card, page


def write_report(workdir) -> str:
  """Writes model_card.md, figures/*.png and report.html; returns the page's path."""
  model_card.write_card(workdir)  # First: the page links to it.
  return page.write_report(workdir)


write_comparison = page.write_comparison
