"""Chooses what to draw of a data set's labels."""

import collections

import numpy as np

from agegender_jax import schema
from agegender_jax.report import plots
from agegender_jax.studies import audit as audit_lib


def years_of(examples) -> np.ndarray:
  """Returns the ages that are given in years, float64 [N]."""
  return np.array(
    [
      example.years[0]
      for example in examples
      if example.years and example.years[0] == example.years[1]
    ]
  )


def labels(audit, counts: dict) -> list:
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
  years = years_of(audit.examples)
  if len(years):
    result.append(_year_bars('Images of each year of age', years))
  names = (*schema.GENDERS, 'unknown')
  shares = {
    part: [counts[part]['gender'].get(name, 0) for name in names] for part in counts
  }
  return [*result, plots.shares('Genders in each part', shares, names)]


def _ages(title, groups):
  ages = {name: years_of(examples) for name, examples in groups.items()}
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
  """Draws how many pictures each group has, a line a name.

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
