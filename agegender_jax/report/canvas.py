"""Renders panels, functions that draw on an axes, as PNG or SVG.

The page's SVG takes its colours from the page, so that it follows light and
dark. matplotlib is imported on the first rendering only.
"""

import io
import re

# Okabe & Ito's colour-blind-safe palette, darkest first.
BLUE, VERMILLION, GREEN = '#0072b2', '#d55e00', '#009e73'
PINK, ORANGE, SKY = '#cc79a7', '#e69f00', '#56b4e9'
PALETTE = (BLUE, VERMILLION, GREEN, PINK, ORANGE, SKY)
INK, MUTED, LINE = '#1b2027', '#5d6671', '#d9dde2'
# Each colour's name in the page's style sheet.
_VARIABLES = {
  BLUE: 'blue', VERMILLION: 'vermillion', GREEN: 'green', PINK: 'pink',
  ORANGE: 'orange', SKY: 'sky', INK: 'ink', MUTED: 'muted', LINE: 'line',
}  # fmt: skip
_DPI = 150
PANEL = (3.9, 2.9)  # Inches; 281 points: text stays readable on a phone.


def rows_size(count) -> tuple:
  """Returns the inches of a panel with a row for each of `count` names."""
  return PANEL[0], 1.25 + 0.27 * max(count, 2)


def save_png(path, panels, size=PANEL, columns=0):
  """Writes panels beside each other as one PNG.

  Args:
    path: file to write.
    panels: functions of an axes.
    size: inches of one panel.
    columns: panels a row; 0 = all.
  """
  _render(path, panels, size, columns or len(panels), 'png')


def to_svg(panel, size=PANEL) -> str:
  """Renders one panel as an SVG element in the page's colours.

  Args:
    panel: function of an axes.
    size: inches.

  Returns:
    The element; every text in it is escaped.
  """
  stream = io.StringIO()
  _render(stream, [panel], size, 1, 'svg')
  svg = stream.getvalue()
  svg = svg[svg.index('<svg') :]
  svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
  # The page sets the size; ids of groups would clash between figures.
  svg = re.sub(r'^<svg ([^>]*?)width="[^"]*"', r'<svg \1', svg, count=1)
  svg = re.sub(r'^<svg ([^>]*?)height="[^"]*"', r'<svg \1', svg, count=1)
  svg = re.sub(r'<g id="[^"]*"', '<g', svg)
  for color, name in _VARIABLES.items():
    svg = svg.replace(color, f'var(--{name})')
  return svg


def _render(target, panels, size, columns, file_format):
  import matplotlib
  from matplotlib import figure
  from matplotlib.backends import backend_agg, backend_svg

  style = {
    'font.size': 9, 'axes.titlesize': 10, 'axes.titlelocation': 'left',
    'axes.titleweight': 'bold', 'axes.spines.top': False,
    'axes.spines.right': False, 'axes.grid': True, 'axes.axisbelow': True,
    'grid.color': LINE, 'grid.linewidth': 0.7, 'axes.edgecolor': MUTED,
    'axes.labelcolor': MUTED, 'axes.titlecolor': INK, 'text.color': INK,
    'xtick.color': MUTED, 'ytick.color': MUTED, 'xtick.major.size': 0,
    'ytick.major.size': 0, 'legend.frameon': False, 'legend.fontsize': 8,
    'lines.linewidth': 1.8, 'svg.fonttype': 'none', 'text.parse_math': False,
  }  # fmt: skip
  if file_format == 'svg':
    style |= {'figure.facecolor': 'none', 'axes.facecolor': 'none'}
  rows = -(-len(panels) // columns)
  with matplotlib.rc_context(style):
    # Figure without pyplot: no window, no global state.
    canvas = figure.Figure((size[0] * columns, size[1] * rows), dpi=_DPI,
                           layout='constrained')  # fmt: skip
    for index, panel in enumerate(panels):
      panel(canvas.add_subplot(rows, columns, index + 1))
    # Unlike `savefig`, these draw once; it draws twice to lay out.
    if file_format == 'svg':
      backend_svg.FigureCanvasSVG(canvas).print_svg(target, metadata={'Date': None})
    else:
      backend_agg.FigureCanvasAgg(canvas).print_png(target)
