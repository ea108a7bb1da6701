"""Shows what a workdir's files say: figures, one page, a comparison, a model card.

May import `scoring`, `evaluation.artifacts` and what lies below them; never the model
and never jax. A new part of the page is one function that returns a section of
blocks, and one entry of `page.SECTIONS`.
"""

from agegender_jax.report import page

write_report = page.write_report
write_comparison = page.write_comparison
