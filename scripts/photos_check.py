r"""What is lost between a face crop and the same face in a photo.

python scripts/photos_check.py --workdir=RUN --data=utkface --folder=UTKFACE \
  [--split=test] [--count=1000] [--table] [--figure=FILE.png]

Pastes crops into cluttered scenes, twelve to a scene, upright and turned by up to 30
degrees, at sides of 64 to 400 pixels, and predicts them the whole way: detected,
aligned, cut out. Prints the paired difference to the answers for the crops
themselves, with its 95 % interval. `--table` instead changes size, blur, JPEG quality,
rotation and darkness one at a time, and `--figure` draws it; choose on
`--split=validation`. A face that is not found counts as missed and has no error.
"""

import csv
import io
import itertools
import pathlib
import warnings

import numpy as np
from matplotlib import figure
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

import agegender_jax
from agegender_jax import cli, schema
from agegender_jax.data import raw, splits

SCENE = (1000, 800)  # Pixels, at least.
GRID, CELL = (4, 3), 1.5  # Crops of a scene, across and down; their distance in sides.
SIDES = (64, 100, 150, 250, 400)
PERCENT = {'test': range(0, 20), 'validation': range(20, 30), 'train': range(30, 100)}
TABLE = {
  'side of the crop, pixels': (32, 48, 64, 100, 200, 400),
  'blur, pixels of a face of 200': (1, 2, 4, 6),
  'JPEG quality': (50, 20, 10, 5),
  'rotation, degrees': (15, 30, 45, 60),
  'brightness': (0.5, 0.25, 0.1),
}


def read_faces(data: str, folder: str, split: str, count: int) -> list[dict]:
  """Returns faces: `path`, `age` (years), `group` (row), `gender`; -1 unknown."""
  if data == 'utkface':
    faces = []
    for file in raw.list_folder(folder)[0]:
      age, gender, *_ = pathlib.Path(file.path).name.split('_')
      faces.append({'path': file.path, 'age': int(age), 'group': -1,
                    'gender': int(gender) if gender in '01' else -1})  # fmt: skip
  else:
    name = 'val' if split == 'test' else 'train'
    root = pathlib.Path(folder)
    groups = schema.age_group_names('fairface')
    with (root / f'fairface_label_{name}.csv').open() as file:
      faces = [
        {'path': str(root / row['file']), 'age': -1,
         'group': group_of(row['age'], groups),
         'gender': schema.GENDERS.index(row['gender'].lower())}
        for row in csv.DictReader(file)
        if (root / row['file']).is_file()
      ]  # fmt: skip
  if data == 'fairface' and split == 'test':
    return faces[:count]  # Its owners' own val.
  np.random.default_rng(0).shuffle(faces)
  of_split = (face for face in faces if percent_of(face['path']) in PERCENT[split])
  return list(itertools.islice(of_split, count))


def group_of(text: str, groups: list[str]) -> int:
  """Returns the row of an age group, whatever a spreadsheet made of it."""
  text = {
    '03-Sep': '3-9',
    '3-Sep': '3-9',
    'Oct-19': '10-19',
    'more than 70': '70+',
  }.get(text, text)
  return groups.index(text)


def percent_of(path: str) -> int:
  """Returns the split rule's number of an image."""
  with Image.open(path) as image:
    return splits.percent(splits.difference_hash(image))


def create_scene(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
  """Draws a scene without a face: a smooth background with rectangles on it."""
  small = random.integers(40, 216, (5, 6, 3), np.uint8)
  scene = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
  drawn = ImageDraw.Draw(scene)
  for _ in range(12):
    x, y = random.integers(0, size[0]), random.integers(0, size[1])
    width, height = random.integers(10, 200, 2)
    color = tuple(map(int, random.integers(0, 256, 3)))
    drawn.rectangle((x, y, x + width, y + height), color)
  return scene


def paste(
  random: np.random.Generator, crops: list[Image.Image], side: int, angles: list[float]
) -> tuple[Image.Image, list[tuple[float, float]]]:
  """Returns a scene of a GRID of crops, turned by degrees, and their middles."""
  cell = int(CELL * side)
  whole = [max(n * cell, m) for n, m in zip(GRID, SCENE, strict=True)]
  scene, middles = create_scene(random, (whole[0], whole[1])), []
  for place, (crop, angle) in enumerate(zip(crops, angles, strict=True)):
    crop = crop.resize((side, side), Image.Resampling.LANCZOS)
    mask = Image.new('L', crop.size, 255).rotate(angle, expand=True)
    crop = crop.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    x, y = (cell * (n + 0.5) for n in (place % GRID[0], place // GRID[0]))
    scene.paste(crop, (int(x - crop.width / 2), int(y - crop.height / 2)), mask)
    middles.append((x, y))
  return scene, middles


def change(
  crop: Image.Image, what: str, value: float
) -> tuple[Image.Image, int, float]:
  """Returns a changed crop, its side and its angle in the scene."""
  if what.startswith('side'):
    return crop, int(value), 0
  if what.startswith('rotation'):
    return crop, 200, value
  crop = crop.resize((200, 200), Image.Resampling.LANCZOS)
  if what.startswith('blur'):
    return crop.filter(ImageFilter.GaussianBlur(value)), 200, 0
  if what.startswith('JPEG'):
    stream = io.BytesIO()
    crop.save(stream, 'JPEG', quality=int(value))
    return Image.open(stream).convert('RGB'), 200, 0
  return ImageEnhance.Brightness(crop).enhance(value), 200, 0


def face_at(faces, middle: tuple[float, float], reach: float):
  """Returns the face whose box is centred nearest to a point, None beyond reach."""

  def distance(face):
    return np.abs((np.array(face.box[:2]) + face.box[2:]) / 2 - middle).max()

  found = [face for face in faces if distance(face) < reach]
  return min(found, key=distance, default=None)


def errors_of(face, label, groups) -> np.ndarray:
  """Returns error in years, wrong group, wrong gender; nan where not known."""
  result = np.full(3, np.nan)
  if label['age'] >= 0 and face.age is not None:
    result[0] = abs(face.age - label['age'])
  if label['group'] >= 0 and face.age_group is not None:
    result[1] = groups.index(face.age_group) != label['group']
  if label['gender'] >= 0 and face.gender is not None:
    result[2] = schema.GENDERS.index(face.gender) != label['gender']
  return result


def draw(means: dict, path: str) -> None:
  """Draws what `--table` prints: a panel per change, a curve per column."""
  drawn = figure.Figure(figsize=(12, 3.2), layout='constrained')
  axes = drawn.subplots(1, len(TABLE), sharey=True)
  titles = ('age error, years', 'wrong group, %', 'wrong gender, %', 'not found, %')
  styles = zip(('#0072b2', '#e69f00', '#d55e00', 'black'), 'os^x', titles, strict=True)
  for column, (color, marker, title) in enumerate(styles):
    for panel, (name, values) in zip(axes, TABLE.items(), strict=True):
      curve = [means[name, value][column] for value in values]
      if np.isfinite(curve).any():
        places = range(len(values))
        panel.plot(places, curve, color=color, marker=marker, label=title)
        panel.set_xticks(places, [f'{value:g}' for value in values])
      panel.set_xlabel(name)
      panel.grid(alpha=0.3)
  axes[0].set_ylim(0)
  axes[-1].legend(fontsize='small')
  drawn.savefig(path, dpi=110)


def look(network, whole, random, kind, labels, groups) -> list[list[float]]:
  """Returns a row per face of a scene: errors, differences, 1 if it was missed."""
  changed, side, angles, alone = [], 0, [], []
  for label in labels:
    with Image.open(label['path']) as image:
      crop = image.convert('RGB')
    alone.append(crop)
    if isinstance(kind[0], str):
      crop, side, angle = change(crop, *kind)
    else:
      side, angle = kind[0], random.uniform(-30, 30) if kind[1] else 0
    changed.append(crop)
    angles.append(angle)
  scene, middles = paste(random, changed, side, angles)
  faces, rows = [face for face in network(scene) if not face.error], []
  for label, (itself,), middle in zip(labels, whole(alone), middles, strict=True):
    base, face = errors_of(itself, label, groups), face_at(faces, middle, side / 2)
    found = np.full(3, np.nan) if face is None else errors_of(face, label, groups)
    rows.append([*found, *(found - base), face is None])
  return rows


def interval(values: np.ndarray) -> str:
  """Returns mean and 95 % interval of paired differences."""
  values = values[np.isfinite(values)]
  if not len(values):
    return '-'
  half = 1.96 * values.std() / np.sqrt(len(values))
  return (
    f'{values.mean():+.2f} [{values.mean() - half:+.2f}, {values.mean() + half:+.2f}]'
  )


def main(arguments) -> None:
  """Runs the command."""
  parser = cli.Parser(__doc__)
  parser.add_argument('--workdir', required=True, help='of a run, or a folder')
  parser.add_argument('--data', choices=('utkface', 'fairface'), required=True)
  parser.add_argument('--folder', required=True, help='of the data')
  parser.add_argument('--split', choices=PERCENT, default='test')
  parser.add_argument('--count', type=int, default=1000, help='crops')
  parser.add_argument('--table', action='store_true', help='one change at a time')
  parser.add_argument('--figure', default='', help='file for a drawing of the table')
  args = parser.parse_args(arguments)
  network = agegender_jax.load(args.workdir, faces='detect')
  whole = agegender_jax.load(args.workdir, faces='crop')
  groups = schema.age_group_names(network.info['age_groups'])
  labels = read_faces(args.data, args.folder, args.split, args.count)
  random = np.random.default_rng(0)
  turns = [(side, turned) for side in SIDES for turned in (False, True)]
  cases = [(name, value) for name, values in TABLE.items() for value in values]
  kinds = cases if args.table else turns
  rows: dict = {kind: [] for kind in kinds}
  for number, kind in enumerate(kinds):
    # Without the table a crop is seen once, each kind equally often.
    chosen = labels if args.table else labels[number :: len(kinds)]
    for first in range(0, len(chosen), GRID[0] * GRID[1]):
      group = chosen[first : first + GRID[0] * GRID[1]]
      rows[kind] += look(network, whole, random, kind, group, groups)
  unit = np.array([1, 100, 100])
  print(
    'case | faces | missed % | error: years, group %, gender % | difference, likewise'
  )
  if not args.table:
    large = [row for kind, found in rows.items() if kind[0] >= 100 for row in found]
    rows['all of 100 pixels and more'] = large
  means = {}
  for kind, found in rows.items():
    values = np.array(found, float)
    with warnings.catch_warnings(action='ignore', category=RuntimeWarning):
      error = np.nanmean(values[:, :3], axis=0) * unit  # nan of nothing.
    means[kind] = [*error, 100 * values[:, 6].mean()]
    differences = [interval(values[:, 3 + k] * unit[k]) for k in range(3)]
    print(
      f'{kind} | {len(values)} | {100 * values[:, 6].mean():.1f} | '
      f'{", ".join(f"{value:.1f}" for value in error)} | {", ".join(differences)}'
    )
  if args.table and args.figure:
    draw(means, args.figure)


if __name__ == '__main__':
  cli.run(main)
