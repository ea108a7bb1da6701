"""Draws each figure on an axes: the same for PNG files and for the page.

matplotlib is imported inside the functions that need a class of it.
"""

import dataclasses

import numpy as np

from agegender_jax.report import canvas

# Inches of a picture's place on a sheet, and of the picture in it.
FACE, _SIDE = (1.7, 1.95), 1.6


@dataclasses.dataclass(frozen=True)
class Line:
  """A curve: float [N] against float [N], years or percent as the axis says."""

  label: str
  x: np.ndarray
  y: np.ndarray
  color: str = canvas.BLUE
  dashed: bool = False
  width: float = 1.8


def draw_curves(axes, lines, title, unit, marked=None):
  """Draws curves against the epoch.

  Args:
    axes: where to.
    lines: the Lines.
    title: what is drawn.
    unit: of the y axis.
    marked: epoch of the scored checkpoint, or None.
  """
  for line in lines:
    axes.plot(
      line.x, line.y, color=line.color, label=line.label, linewidth=line.width,
      linestyle=(0, (4, 1.5)) if line.dashed else '-',
      marker='o' if len(line.x) < 3 else None, markersize=4,
    )  # fmt: skip
  if marked is not None:
    axes.axvline(marked, color=canvas.MUTED, linewidth=1, linestyle=':',
                 label='scored')  # fmt: skip
  axes.set(title=title, xlabel='epoch', ylabel=unit)
  axes.legend()


def draw_true_and_predicted(axes, true, predicted):
  """Draws predicted against actual years with the diagonal.

  Args:
    axes: where to.
    true: float [N], years.
    predicted: float [N], years.
  """
  from matplotlib import colors

  end = float(np.ceil(max(true.max(), predicted.max(), 10) / 10) * 10)
  start = float(min(0, predicted.min()))
  if len(true) <= 300:
    axes.scatter(true, predicted, s=12, color=canvas.BLUE, alpha=0.5, linewidth=0)
  else:
    # Opacity instead of shades: it works on light and dark pages alike.
    shades = colors.ListedColormap(
      [colors.to_rgba(canvas.BLUE, alpha) for alpha in np.linspace(0.12, 1, 64)]
    )
    axes.hexbin(true, predicted, gridsize=36, extent=(start, end, start, end),
                mincnt=1, bins='log', cmap=shades, linewidths=0)  # fmt: skip
  axes.plot([start, end], [start, end], color=canvas.VERMILLION, linewidth=1.2,
            linestyle=(0, (4, 2)), label='predicted = actual')  # fmt: skip
  axes.set(title='Predicted against actual age', xlabel='actual age (years)',
           ylabel='predicted age (years)', xlim=(start, end),
           ylim=(start, end))  # fmt: skip
  axes.set_aspect('equal')
  axes.legend(loc='upper left')


def draw_confusion(axes, counts, names, title):
  """Draws a confusion matrix; shade = share of the actual class.

  Args:
    axes: where to.
    counts: int [K, K], rows actual, columns predicted.
    names: K names.
    title: what is drawn, with its unit.
  """
  from matplotlib import patches

  share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  for row, column in np.ndindex(counts.shape):
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(patches.Rectangle(
      corner, 1, 1, facecolor=canvas.BLUE, linewidth=0,
      alpha=0.6 * share[row, column],
    ))  # fmt: skip
    axes.text(
      column, row, f'{counts[row, column]}', ha='center', va='center',
      fontsize=9 if len(names) < 7 else 7.5,
    )  # fmt: skip
  axes.grid(False)
  axes.set_xticks(range(len(names)), names)
  axes.set_yticks(range(len(names)), names)
  axes.set(title=title, xlabel='predicted', ylabel='actual',
           xlim=(-0.5, len(names) - 0.5),
           ylim=(len(names) - 0.5, -0.5))  # fmt: skip


def draw_ages(axes, ages, title):
  """Draws histograms of ages in steps of five years over one another.

  Args:
    axes: where to.
    ages: name -> (years float [N], number of pictures [N]).
    title: what is drawn.
  """
  end = max(years.max() for years, _ in ages.values())
  edges = np.arange(0, end + 6, 5)
  for color, (name, (years, numbers)) in zip(
    canvas.PALETTE, ages.items(), strict=False
  ):
    counts, _ = np.histogram(years, edges, weights=numbers)
    axes.stairs(counts, edges, color=color, linewidth=1.6, label=name)
    axes.stairs(counts, edges, color=color, alpha=0.16, fill=True)
  axes.set(title=title, xlabel='age (years)', ylabel='pictures in 5 years')
  axes.legend()


def draw_shares(axes, counts, names, title):
  """Draws a stacked bar a split with the numbers written in.

  Args:
    axes: where to.
    counts: split -> K numbers of pictures.
    names: K names.
    title: what is drawn.
  """
  places = np.arange(len(counts))
  table = np.array(list(counts.values()), np.float64)
  share = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
  start = np.zeros(len(counts))
  for column, (name, color) in enumerate(
    zip(names, (canvas.BLUE, canvas.ORANGE, canvas.LINE), strict=False)
  ):
    if not table[:, column].any():
      continue
    axes.barh(places, share[:, column], left=start, color=color, alpha=0.8,
              height=0.62, label=name)  # fmt: skip
    for place in places:
      if share[place, column] > 12:
        axes.text(start[place] + share[place, column] / 2, place,
                  f'{table[place, column]:,.0f}', ha='center',
                  va='center')  # fmt: skip
    start = start + share[:, column]
  axes.set_yticks(places, list(counts))
  axes.grid(False)
  axes.set(title=title, xlabel='share (%)', xlim=(0, 100),
           ylim=(len(counts) - 0.4, -1.1))  # fmt: skip
  axes.legend(loc='upper left', ncols=3)


def draw_faces(axes, faces, captions, columns):
  """Draws a sheet of pictures, each with its caption above.

  One axes for all: one a picture takes seconds to lay out.

  Args:
    axes: where to.
    faces: uint8 [S, S, 3] pictures.
    captions: a text a face.
    columns: pictures a row.
  """
  for index, (face, caption) in enumerate(zip(faces, captions, strict=True)):
    left, top = index % columns * FACE[0], index // columns * FACE[1]
    bottom = top + FACE[1]
    axes.imshow(face, extent=(left, left + _SIDE, bottom, bottom - _SIDE))
    axes.text(left + _SIDE / 2, bottom - _SIDE - 0.05, caption, ha='center',
              va='bottom', fontsize=11)  # fmt: skip
  rows = -(-len(faces) // columns)
  axes.set(xlim=(0, columns * FACE[0]), ylim=(rows * FACE[1], 0))
  axes.axis('off')
