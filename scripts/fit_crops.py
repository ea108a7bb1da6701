"""Finds where five landmarks lie in a data set's face crops.

python scripts/fit_crops.py --folder=PATH_TO_UTKFACE [--count=600]

Pastes crops into scenes, of 120 to 260 pixels, every other scene's turned by up to 30
degrees: in a crop alone the detector places the eyes 2 % nearer to each other. Prints
the medians for inference/crops.py, and how far a cut by them moves the corners of the
crops themselves. Crops of the test split are left out.
"""

import numpy as np
import photos_check
from PIL import Image

from agegender_jax import cli
from agegender_jax.data import raw, splits
from agegender_jax.inference import crops, detector

SIDES = (120, 180, 260)  # Pixels of the crops, scene after scene.


def read_crops(folder: str, count: int) -> list[Image.Image]:
  """Returns crops of a folder, none of the test split, in a random order."""
  paths = [file.path for file in raw.list_folder(folder)[0]]
  np.random.default_rng(1).shuffle(paths)
  found: list[Image.Image] = []
  for path in paths:
    if len(found) == count:
      break
    with Image.open(path) as image:
      crop = image.convert('RGB')
    if splits.percent(splits.difference_hash(crop)) >= 20:
      found.append(crop)
  return found


def landmarks_in(
  find: detector.Detector, crops_of_scene: list[Image.Image], number: int
) -> list[np.ndarray]:
  """Returns the landmarks of the faces found, float [5, 2] in sides of the crop."""
  random, side = np.random.default_rng(number), SIDES[number % len(SIDES)]
  angles = [random.uniform(-30, 30) * (number % 2) for _ in crops_of_scene]
  scene, middles = photos_check.paste(random, crops_of_scene, side, angles)
  faces, found = find(scene), []
  for middle, angle in zip(middles, np.deg2rad(angles), strict=True):
    face = photos_check.face_at(faces, middle, side / 2)
    if face is not None:
      turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
      found.append((face.landmarks - middle) @ np.array(turn) / side + 0.5)
  return found


def main(arguments) -> None:
  """Runs the command."""
  parser = cli.Parser(__doc__)
  parser.add_argument('--folder', required=True, help='of crops')
  parser.add_argument('--count', type=int, default=600, help='crops to look at')
  args = parser.parse_args(arguments)
  find, seen = detector.Detector(), read_crops(args.folder, args.count)
  size = photos_check.GRID[0] * photos_check.GRID[1]
  scenes = [seen[first : first + size] for first in range(0, len(seen), size)]
  found = [
    one for n, scene in enumerate(scenes) for one in landmarks_in(find, scene, n)
  ]
  points = np.array(found)
  median = np.median(points, axis=0)
  corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
  moved = [
    np.hypot(*(corners @ crops.similarity(one, median).T - corners[:, :2]).T).mean()
    for one in points
  ]
  print(f'{len(found)} faces in {len(seen)} crops')
  print(f'landmarks: {[tuple(map(float, row)) for row in median.round(3)]}')
  print(f'corners move by {np.median(moved):.3f} of the side (median)')


if __name__ == '__main__':
  cli.run(main)
