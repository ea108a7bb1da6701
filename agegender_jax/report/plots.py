"""Draws figures with matplotlib, which is imported with the first one."""

import functools
import io
import re
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence

import numpy as np

# Okabe & Ito's colour-blind-safe palette, darkest first.
BLUE, VERMILLION, GREEN = '#0072b2', '#d55e00', '#009e73'
PINK, ORANGE, SKY = '#cc79a7', '#e69f00', '#56b4e9'
PALETTE = (BLUE, VERMILLION, GREEN, PINK, ORANGE, SKY)
INK, MUTED, LINE = '#1b2027', '#5d6671', '#d9dde2'
# Beside the colours, for readers who cannot distinguish them.
MARKERS = ('o', 's', '^', 'D', 'v', 'P')
SOFTWARE = 'agegender_jax'  # What a PNG names, so that a later report may delete it.
PANEL = (4.0, 2.9)  # Inches; the text stays readable on a phone.
_DASHED = {'linestyle': (0, (4, 2)), 'linewidth': 1.2}
_STYLE: dict = {
  'font.size': 9, 'axes.titlesize': 10, 'axes.titlelocation': 'left',
  'axes.titleweight': 'bold', 'axes.spines.top': False,
  'axes.spines.right': False, 'axes.grid': True, 'axes.axisbelow': True,
  'grid.color': LINE, 'grid.linewidth': 0.7, 'axes.edgecolor': MUTED,
  'axes.labelcolor': MUTED, 'axes.titlecolor': INK, 'text.color': INK,
  'xtick.color': MUTED, 'ytick.color': MUTED, 'xtick.major.size': 0,
  'ytick.major.size': 0, 'legend.frameon': False, 'legend.fontsize': 8,
  'lines.linewidth': 1.6, 'lines.markersize': 4.5, 'text.parse_math': False,
}  # fmt: skip


class Figure(typing.NamedTuple):
  """A figure: its title, also the alternative text, and a function of an axes."""

  title: str
  draw: Callable

  @property
  def file_name(self) -> str:
    return re.sub(r'\W+', '_', self.title.lower()).strip('_') + '.png'

  def png(self) -> bytes:
    """Draws the figure."""
    stream = io.BytesIO()
    save_png(stream, [self.titled])
    return stream.getvalue()

  def titled(self, axes):
    self.draw(axes)
    axes.set_title(textwrap.fill(short(self.title, 90), 40))


def figure(draw: Callable) -> Callable:
  """Makes a function that draws on an axes return a Figure, given its title first."""

  @functools.wraps(draw)
  def create(title, *args, **kwargs):
    return Figure(title, lambda axes: draw(axes, *args, **kwargs))

  return create


def save_png(target, panels: Sequence[Callable], size=PANEL, columns: int = 0):
  """Writes panels beside each other as one PNG.

  Args:
    target: path or binary file.
    panels: functions of an axes.
    size: inches of one panel.
    columns: panels per row; 0 = all.
  """
  import matplotlib
  from matplotlib import figure

  columns = columns or len(panels)
  rows = -(-len(panels) // columns)
  inches = size[0] * columns, size[1] * rows
  with matplotlib.rc_context(_STYLE):
    # Figure without pyplot: no window, no global state.
    sheet = figure.Figure(inches, dpi=180, layout='constrained')
    for index, panel in enumerate(panels):
      panel(sheet.add_subplot(rows, columns, index + 1))
    sheet.savefig(target, format='png', metadata={'Software': SOFTWARE})


@figure
def curves(axes, lines: Mapping[str, tuple], unit: str, marked=None):
  """Draws curves against the epoch.

  Args:
    axes: where to draw.
    lines: name -> (epochs, values), float [N] each.
    unit: label of the y axis.
    marked: epoch of the scored checkpoint, or None.
  """
  for index, (name, (x, y)) in enumerate(lines.items()):
    style: dict = {'linestyle': ('-', '--', ':')[index // len(PALETTE) % 3]}
    style['marker'] = 'o' if len(x) < 3 else None
    axes.plot(x, y, color=PALETTE[index % len(PALETTE)], label=short(name), **style)
  if marked is not None:
    axes.axvline(marked, color=MUTED, linewidth=1, linestyle=':', label='scored')
  axes.set(xlabel='epoch', ylabel=unit)
  axes.locator_params(axis='x', nbins=6)
  axes.legend()


@figure
def true_and_predicted(axes, true: np.ndarray, predicted: np.ndarray):
  """Draws predicted against actual ages, float [N], years."""
  axes.figure.set_size_inches(4.2, 3.9)
  end = float(np.ceil(max(true.max(), predicted.max(), 10) / 10) * 10)
  ends = [float(min(0, predicted.min())), end]
  if len(true) <= 300:
    axes.scatter(true, predicted, s=12, color=BLUE, alpha=0.5, linewidth=0)
  else:
    style = {'bins': 'log', 'cmap': 'Blues', 'linewidths': 0, 'mincnt': 1}
    axes.hexbin(true, predicted, gridsize=36, extent=(*ends, *ends), **style)
  axes.plot(ends, ends, color=VERMILLION, label='predicted = actual', **_DASHED)
  axes.set(xlabel='actual age (years)', ylabel='predicted age (years)')
  axes.set(xlim=ends, ylim=ends, aspect='equal')
  axes.legend(loc='upper left')


@figure
def confusion(axes, counts: np.ndarray, names: Sequence[str]):
  """Draws int [K, K] counts, rows actual; the shade is the share of the row."""
  axes.figure.set_size_inches(4.2, 3.9)
  share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  # Half of the scale: black digits stay readable on the darkest cell.
  axes.imshow(share, cmap='Blues', vmin=0, vmax=2)
  style = {'ha': 'center', 'va': 'center', 'fontsize': 9 if len(names) < 7 else 7.5}
  for row, column in np.ndindex(counts.shape):
    axes.text(column, row, f'{counts[row, column]}', **style)
  axes.grid(False)
  axes.set_xticks(range(len(names)), names)
  axes.set_yticks(range(len(names)), names)
  axes.set(xlabel='predicted', ylabel='actual')


@figure
def ages(axes, found: Mapping[str, tuple]):
  """Draws histograms of ages in bins of five years.

  Args:
    axes: where to draw.
    found: name -> (years float [N], number of images [N]).
  """
  edges = np.arange(0, max(years.max() for years, _ in found.values()) + 6, 5)
  for color, (name, (years, numbers)) in zip(PALETTE, found.items(), strict=False):
    counts, _ = np.histogram(years, edges, weights=numbers)
    axes.stairs(counts, edges, color=color, linewidth=1.6, label=short(name))
    axes.stairs(counts, edges, color=color, alpha=0.16, fill=True)
  axes.set(xlabel='age (years)', ylabel='images in 5 years')
  axes.legend()


@figure
def shares(axes, counts: Mapping[str, Sequence], names: Sequence[str]):
  """Draws one stacked bar per split, labelled with its K counts.

  Args:
    axes: where to draw.
    counts: split -> K numbers of images.
    names: K names, at most three.
  """
  places, style = np.arange(len(counts)), {'ha': 'center', 'va': 'center'}
  table = np.array(list(counts.values()), np.float64)
  share = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
  start = np.zeros(len(counts))
  for color, name, part, number in zip(
    (SKY, ORANGE, LINE), names, share.T, table.T, strict=False
  ):
    if part.any():
      axes.barh(places, part, left=start, color=color, height=0.62, label=name)
    for place in places[part > 12]:
      middle = start[place] + part[place] / 2
      axes.text(middle, place, f'{number[place]:,.0f}', **style)
    start = start + part
  axes.set_yticks(places, [short(name) for name in counts])
  axes.grid(False)
  axes.set(xlabel='share (%)', xlim=(0, 100), ylim=(len(counts) - 0.4, -1.1))
  axes.legend(loc='upper left', ncols=3)


@figure
def by_age(axes, series: Mapping[str, Sequence[dict]], label: str, scale=1.0):
  """Draws estimates per age bin; of one series with its counts as bars behind.

  Args:
    axes: where to draw.
    series: name -> dicts of `name` (such as `20-29`), `value`, `low`, `high`
      and `count`.
    label: of the y axis, with its unit.
    scale: factor from the estimates to that unit.
  """
  names = list(dict.fromkeys(row['name'] for rows in series.values() for row in rows))
  names.sort(key=lambda name: [int(year) for year in re.findall(r'\d+', name)])
  step, top = min(0.3, 0.7 / len(series)), 0.1
  for index, (name, rows) in enumerate(series.items()):
    places = np.array([names.index(row['name']) for row in rows], np.float64)
    if len(series) == 1:
      counts = [row['count'] for row in rows]
      _bars_behind(axes).bar(places, counts, color=LINE, width=0.82)
    value, spread = _whiskers(rows, scale)
    top = max(top, float(np.nanmax(value + spread[1])))
    places += (index - (len(series) - 1) / 2) * step
    _dots(axes, places, value, index, yerr=spread, label=short(name))
  axes.set_xticks(range(len(names)), names, fontsize=7 if len(names) > 6 else 9)
  # The legend lies above what is drawn.
  room = 1.06 if len(series) == 1 else 1.1 + 0.14 * -(-len(series) // 3)
  axes.set(xlabel='actual age (years)', ylabel=label, ylim=(0, room * top))
  axes.set_xlim(-0.6, len(names) - 0.4)
  if scale == 100:
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 100])
  if len(series) > 1:
    axes.legend(loc='upper left', ncols=3, columnspacing=1, handletextpad=0.3)


@figure
def groups(axes, rows: Sequence[dict], label: str, scale=1.0, line=None):
  """Draws one estimate per group below each other, with space between columns.

  Args:
    axes: where to draw.
    rows: dicts of `column`, `name`, `value`, `low` and `high`.
    label: of the x axis, with its unit.
    scale: factor from the estimates to that unit.
    line: pair (text, value) to compare with, in that unit, or None.
  """
  axes.figure.set_size_inches(PANEL[0], 1.25 + 0.27 * max(len(rows), 2))
  columns = list(dict.fromkeys(row['column'] for row in rows))
  places = [i + 0.6 * columns.index(row['column']) for i, row in enumerate(rows)]
  value, spread = _whiskers(rows, scale)
  _dots(axes, value, places, xerr=spread)
  axes.set_yticks(places, [short(row['name']) for row in rows])
  axes.set(xlabel=label, ylim=(places[-1] + 0.6, -0.6 - 0.7 * bool(line)))
  axes.margins(x=0.12)
  if line:
    drawn = axes.axvline(line[1], color=VERMILLION, **_DASHED)
    axes.legend([drawn], [line[0]], loc='upper right', borderaxespad=0)


@figure
def reliability(axes, found: Mapping[str, Sequence[dict]]):
  """Draws the share of women against P(female), with counts as bars behind.

  Args:
    axes: where to draw.
    found: name -> bins, dicts of `low`, `high`, `count`, `mean_prob`, `share`.
  """
  axes.figure.set_size_inches(4.8, 3.3)
  behind, width = _bars_behind(axes), 9.0 / len(found)
  axes.plot([0, 100], [0, 100], color=MUTED, label='calibrated', **_DASHED)
  for index, (name, bins) in enumerate(found.items()):
    low, high, count, mean, share = np.array(
      [
        [row[key] for row in bins]
        for key in ('low', 'high', 'count', 'mean_prob', 'share')
      ]
    )
    place = 50 * (low + high) + (index - (len(found) - 1) / 2) * width
    behind.bar(place, count, width, color=PALETTE[index], alpha=0.22)
    style = {'label': name, 'linestyle': '-', 'yerr': 100 * _wilson(share, count)}
    _dots(axes, 100 * mean, 100 * share, index, **style)
  axes.set(xlabel='predicted P(female) (%)', ylabel='share of women (%)')
  axes.set(xlim=(-2, 102), ylim=(-3, 103))
  axes.legend(loc='upper left', borderaxespad=0.2)


@figure
def coverage(axes, rows: Sequence[dict]):
  """Draws the measured against the nominal coverage of age intervals.

  Args:
    axes: where to draw.
    rows: dicts of `level`, `value`, `low`, `high` (fractions), `width` (years).
  """
  levels = np.array([100 * row['level'] for row in rows])
  value, spread = _whiskers(rows, 100)
  ends = [levels.min() - 6, min(levels.max() + 6, 101)]
  axes.plot(ends, ends, color=MUTED, label='nominal', **_DASHED)
  _dots(axes, levels, value, yerr=spread, label='measured')
  style = {'textcoords': 'offset points', 'ha': 'right', 'fontsize': 8}
  for row, x, y in zip(rows, levels, value, strict=True):
    axes.annotate(f'{row["width"]:.0f} years wide', (x, y), (-7, 5), **style)
  axes.set(xlabel='nominal coverage (%)', ylabel='ages inside (%)', xticks=levels)
  axes.set_xlim(levels.min() - 22, 101)
  axes.legend(loc='lower right')


def short(text: str, width=30) -> str:
  """Returns a name in characters that matplotlib's font has, not too long."""
  text = text.encode('ascii', 'replace').decode()
  return text if len(text) <= width else f'{text[: width - 3]}...'


def _dots(axes, x, y, index=0, **style):
  style = {'linestyle': 'none', 'marker': MARKERS[index % len(MARKERS)]} | style
  axes.errorbar(x, y, color=PALETTE[index % len(PALETTE)], elinewidth=1.5, **style)


def _whiskers(rows, scale):
  """Returns values [N] and their distances [2, N] to the interval's ends."""
  keys = ('value', 'low', 'high')
  value, low, high = np.array([[row[key] for row in rows] for key in keys], float)
  spread = np.nan_to_num([value - low, high - value])
  return scale * value, scale * np.maximum(spread, 0)


def _wilson(share, count):
  """Returns distances [2, N] to the 95 % Wilson interval of shares [N]."""
  square = 1.96**2 / count
  middle = (share + square / 2) / (1 + square)
  half = np.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
  return np.maximum([share - middle + half, middle + half - share], 0)


def _bars_behind(axes):
  """Returns axes for bars of counts behind these axes."""
  behind = axes.twinx()
  behind.grid(False)
  behind.spines['left'].set_visible(False)
  behind.set_ylabel('images (bars)')
  # The later axes lie on top by default.
  axes.set_zorder(behind.get_zorder() + 1)
  axes.patch.set_visible(False)
  return behind
