"""Draws estimates with their intervals: dots with whiskers."""

import re

import numpy as np

from agegender_jax.report import canvas

# Beside the colours, for those who cannot tell them apart.
MARKERS = ('o', 's', '^', 'D', 'v', 'P')


def draw_error_by_age(axes, rows, key, label, scale=1.0):
  """Draws an error a bin with its interval, the count behind as bars.

  Args:
    axes: where to.
    rows: groups of details.Details.
    key: which estimate of a group.
    label: of the y axis, with its unit.
    scale: factor from the estimate to that unit.
  """
  places = np.arange(len(rows))
  value, spread = _whiskers([row[key] for row in rows], scale)
  behind = axes.twinx()
  behind.bar(places, [row['count'] for row in rows], color=canvas.LINE, width=0.82)
  _put_behind(axes, behind)
  axes.errorbar(
    places, value, spread, fmt='o',
    color=canvas.VERMILLION, elinewidth=1.6, markersize=5,
  )  # fmt: skip
  names = [row['name'] for row in rows]
  axes.set_xticks(places, names, fontsize=7 if len(rows) > 6 else 9)
  axes.set(title=label.partition(' (')[0], xlabel='actual age (years)',
           ylabel=label, xlim=(-0.6, len(rows) - 0.4))  # fmt: skip
  # NaN: a bin in which nothing of this kind is known.
  axes.set_ylim(0, 1.06 * max(float(np.nanmax(value + spread[1])), 0.1))


def draw_groups(axes, rows, key, label, scale=1.0, line=None):
  """Draws an estimate a group, one below the other, a gap between columns.

  Args:
    axes: where to.
    rows: dicts of `column`, `name` and estimates.
    key: which estimate of a row.
    label: of the x axis, with its unit.
    scale: factor from the estimate to that unit.
    line: pair (text, value) to compare with, in that unit, or None.
  """
  rows = [row for row in rows if np.isfinite(row[key]['value'])]
  columns = list(dict.fromkeys(row['column'] for row in rows))
  places = np.array([
    index + 0.6 * columns.index(row['column']) for index, row in enumerate(rows)
  ])  # fmt: skip
  value, spread = _whiskers([row[key] for row in rows], scale)
  if line:
    text, place = line
    axes.axvline(place, color=canvas.VERMILLION, linewidth=1.2,
                 linestyle=(0, (4, 2)), label=text)  # fmt: skip
  axes.errorbar(value, places, xerr=spread, fmt='o', color=canvas.BLUE,
                elinewidth=1.8, markersize=5.5)  # fmt: skip
  axes.set_yticks(places, [ascii_name(row['name']) for row in rows])
  axes.set(title=label.partition(' (')[0], xlabel=label,
           ylim=(places[-1] + 0.6, -0.6 - 0.7 * bool(line)))  # fmt: skip
  axes.margins(x=0.12)
  if line:
    axes.legend(loc='upper right', borderaxespad=0)


def draw_side_by_side(axes, series, key, label, title, scale=1.0):
  """Draws an estimate a bin for several series.

  Args:
    axes: where to.
    series: list of (name, rows: dicts of `name` and estimates).
    key: which estimate of a row.
    label: of the y axis, with its unit.
    title: what is drawn.
    scale: factor from the estimate to that unit.
  """
  names = list(dict.fromkeys(row['name'] for _, rows in series for row in rows))
  names.sort(key=lambda name: [int(year) for year in re.findall(r'\d+', name)])
  step = min(0.3, 0.7 / len(series))
  for index, (name, rows) in enumerate(series):
    rows = [row for row in rows if np.isfinite(row[key]['value'])]
    rows.sort(key=lambda row: names.index(row['name']))
    places = np.array([names.index(row['name']) for row in rows], np.float64)
    places += (index - (len(series) - 1) / 2) * step
    value, spread = _whiskers([row[key] for row in rows], scale)
    color = canvas.PALETTE[index % len(canvas.PALETTE)]
    axes.errorbar(
      places, value, spread, fmt=MARKERS[index % len(MARKERS)], color=color,
      elinewidth=1.4, markersize=4.5, label=ascii_name(name), linewidth=0,
    )  # fmt: skip
  axes.set_xticks(range(len(names)), names,
                  fontsize=7 if len(names) > 6 else 9)  # fmt: skip
  axes.set(title=title, xlabel='actual age (years)',
           ylabel=label, xlim=(-0.6, len(names) - 0.4))  # fmt: skip
  low, high = axes.get_ylim()
  # The legend's row lies above what is drawn.
  axes.set_ylim(low, high + 0.16 * (high - low) * -(-len(series) // 3))
  if scale == 100:
    axes.set_yticks([tick for tick in axes.get_yticks() if low < tick <= 100])
  axes.legend(loc='upper left', ncols=3, columnspacing=1, handletextpad=0.3,
              fontsize=7.5)  # fmt: skip


def draw_reliability(axes, curves):
  """Draws the share of women against P(female), the counts behind as bars.

  Args:
    axes: where to.
    curves: name -> bins, see details.Details.reliability.
  """
  behind = axes.twinx()
  width = 9.0 / len(curves)
  axes.plot([0, 100], [0, 100], color=canvas.MUTED, linewidth=1.2,
            linestyle=(0, (4, 2)), label='as sure as right')  # fmt: skip
  colors = (canvas.VERMILLION, canvas.BLUE)[-len(curves) :]
  for index, ((name, bins), color) in enumerate(
    zip(curves.items(), colors, strict=True)
  ):
    middle = np.array([50 * (row['low'] + row['high']) for row in bins])
    count = np.array([row['count'] for row in bins])
    behind.bar(
      middle + (index - (len(curves) - 1) / 2) * width, count, width,
      color=color, alpha=0.22,
    )  # fmt: skip
    share = np.array([row['share'] for row in bins])
    axes.errorbar(
      [100 * row['mean_prob'] for row in bins], 100 * share,
      100 * _wilson(share, count), fmt=f'{MARKERS[index]}-', color=color,
      elinewidth=1.2, linewidth=1.4, markersize=4.5, label=name,
    )  # fmt: skip
  _put_behind(axes, behind)
  axes.set(title='Reliability of gender', xlabel='predicted P(female) (%)',
           ylabel='share of women (%)', xlim=(-2, 102),
           ylim=(-3, 103))  # fmt: skip
  axes.legend(loc='upper left', fontsize=7.5, borderaxespad=0.2)


def draw_coverage(axes, rows):
  """Draws what share of the ages lies inside against what should.

  Args:
    axes: where to.
    rows: the intervals of all pictures, see details.Details.intervals.
  """
  levels = np.array([100 * row['level'] for row in rows])
  value, spread = _whiskers([row['coverage'] for row in rows], 100)
  ends = [levels.min() - 6, min(levels.max() + 6, 101)]
  axes.plot(ends, ends, color=canvas.MUTED, linewidth=1.2,
            linestyle=(0, (4, 2)), label='as promised')  # fmt: skip
  axes.errorbar(levels, value, spread, fmt='o', color=canvas.BLUE,
                elinewidth=1.8, label='measured')  # fmt: skip
  for row, x, y in zip(rows, levels, value, strict=True):
    if np.isfinite(row['width']):
      axes.annotate(f'{row["width"]:.0f} years wide', (x, y), (-7, 5),
                    textcoords='offset points', ha='right',
                    fontsize=8)  # fmt: skip
  axes.set(title='Coverage of age intervals', xlabel='promised (%)',
           ylabel='ages inside (%)', xticks=levels)  # fmt: skip
  axes.set_xlim(levels.min() - 22, 101)
  axes.legend(loc='lower right')


def ascii_name(text) -> str:
  """Returns a name that the fonts of PNG and SVG know, not too long."""
  text = str(text).encode('ascii', 'replace').decode()
  return text if len(text) <= 30 else f'{text[:27]}...'


def _whiskers(estimates, scale):
  """Returns values [N] and their distances [2, N] to the interval's ends."""
  value, low, high = (
    np.array([row[part] for row in estimates], np.float64) * scale
    for part in ('value', 'low', 'high')
  )
  spread = np.nan_to_num(np.array([value - low, high - value]))
  return value, np.maximum(spread, 0)


def _wilson(share, count):
  """Returns distances [2, N] to the 95 % Wilson interval of shares [N]."""
  square = 1.96**2 / count
  middle = (share + square / 2) / (1 + square)
  half = np.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
  return np.maximum([share - middle + half, middle + half - share], 0)


def _put_behind(axes, behind):
  """Puts the axes of the bars, twin of the other, behind it."""
  behind.grid(False)
  behind.spines['left'].set_visible(False)
  behind.set_ylabel('pictures (bars)')
  # The later axes lie on top by default.
  axes.set_zorder(behind.get_zorder() + 1)
  axes.patch.set_visible(False)
