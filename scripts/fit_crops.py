"""Finds where five landmarks lie in a data set's face crops.

python scripts/fit_crops.py --folder=PATH_TO_UTKFACE [--count=500]

Prints the medians for inference/crops.py, and how far a cut by them moves the
corners of the crops themselves. Crops of the test split are left out.
"""

import numpy as np
from PIL import Image

from agegender_jax import cli
from agegender_jax.data import raw, splits
from agegender_jax.inference import crops, detector


def landmarks_of(find: detector.Detector, crop: Image.Image) -> np.ndarray | None:
  """Returns the landmarks, float [5, 2] in sides of the crop; None without a face."""
  side = crop.width
  # Black around it, as there is a photo around a face.
  around = Image.new('RGB', (2 * side, 2 * side))
  around.paste(crop, (side // 2, side // 2))
  for face in find(around):
    if np.abs((face.box[:2] + face.box[2:]) / 2 / side - 1).max() < 0.25:
      return face.landmarks / side - 0.5
  return None


def main(arguments) -> None:
  """Runs the command."""
  parser = cli.Parser(__doc__)
  parser.add_argument('--folder', required=True, help='of crops')
  parser.add_argument('--count', type=int, default=500, help='crops to look at')
  args = parser.parse_args(arguments)
  find, found, seen = detector.Detector(), [], 0
  paths = [file.path for file in raw.list_folder(args.folder)[0]]
  np.random.default_rng(1).shuffle(paths)
  for path in paths:
    with Image.open(path) as image:
      crop = image.convert('RGB')
    if splits.percent(splits.difference_hash(crop)) < 20 or seen == args.count:
      continue
    seen += 1
    landmarks = landmarks_of(find, crop)
    if landmarks is not None:
      found.append(landmarks)
  points = np.array(found)
  median = np.median(points, axis=0)
  corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
  moved = [
    np.hypot(*(corners @ crops.similarity(one, median).T - corners[:, :2]).T).mean()
    for one in points
  ]
  print(f'{len(found)} faces in {seen} crops')
  print(f'landmarks: {[tuple(map(float, row)) for row in median.round(3)]}')
  print(f'corners move by {np.median(moved):.3f} of the side (median)')


if __name__ == '__main__':
  cli.run(main)
