"""Reads a workdir's files and shows them: figures, one page, a comparison.

Never the model and never jax: `evaluate` writes what the page needs. A new
part of the page is one function in `sections` (or `compare`), which returns
blocks of the kinds that `page.html.j2` knows.

  run < stats, figures < sections, compare < page
"""

from agegender_jax.report import page

write_report = page.write_report
write_comparison = page.write_comparison
