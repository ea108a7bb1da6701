"""Draws each figure on an axes: the same for PNG files and for the page.

matplotlib is imported inside the functions that need a class of it.
"""

import dataclasses
import functools

import numpy as np

from agegender_jax.report import canvas


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
    axes.scatter(
      true, predicted, s=12, color=canvas.BLUE, alpha=0.5, linewidth=0
    )
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
      alpha=0.75 * share[row, column],
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


def draw_error_by_age(axes, rows, key, label, scale=1.0):
  """Draws an error a bin with its interval, the count behind as bars.

  Args:
    axes: where to.
    rows: stats.errors_by_age.
    key: which estimate of a row.
    label: of the y axis, with its unit.
    scale: factor from the estimate to that unit.
  """
  places = np.arange(len(rows))
  value, low, high = (
    np.array([row[key][part] * scale for row in rows])
    for part in ('value', 'low', 'high')
  )
  behind = axes.twinx()
  behind.bar(
    places, [row['count'] for row in rows], color=canvas.LINE, width=0.82
  )
  behind.grid(False)
  behind.spines['left'].set_visible(False)
  behind.set_ylabel('pictures (bars)')
  # The later axes lie on top by default; the bars belong behind.
  axes.set_zorder(behind.get_zorder() + 1)
  axes.patch.set_visible(False)
  axes.errorbar(
    places, value, np.maximum([value - low, high - value], 0), fmt='o',
    color=canvas.VERMILLION, elinewidth=1.6, markersize=5,
  )  # fmt: skip
  names = [row['name'] for row in rows]
  axes.set_xticks(places, names, fontsize=7 if len(rows) > 6 else 9)
  axes.set(title=label.partition(' (')[0], xlabel='actual age (years)',
           ylabel=label, xlim=(-0.6, len(rows) - 0.4))  # fmt: skip
  # NaN: a bin in which nothing of this kind is known.
  axes.set_ylim(0, 1.06 * max(float(np.nanmax(high)), 0.1))


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


def face_panels(faces, captions) -> list:
  """Returns a panel a face, with its caption above.

  Args:
    faces: uint8 [S, S, 3] pictures.
    captions: a text a face.
  """

  def draw(axes, face, caption):
    axes.imshow(face)
    axes.axis('off')
    axes.set_title(caption, loc='center', fontsize=11, fontweight='normal')

  return [
    functools.partial(draw, face=face, caption=caption)
    for face, caption in zip(faces, captions, strict=True)
  ]
