"""From a face in an image to the crop that a network was trained on.

A data set's faces were cut out by its owners in one way. A recipe says where five
landmarks lie in such a crop; a similarity transform takes a detected face's
landmarks there. `scripts/fit_crops.py` computes the places.
"""

import dataclasses
from typing import Any

import numpy as np
from PIL import Image

from agegender_jax.inference import detector

# Of eyes, nose and corners of the mouth in the fit: a mouth opens, a nose turns.
WEIGHTS = (1.0, 1.0, 0.5, 0.25, 0.25)


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a face is cut out.

  Attributes:
    alignment: name of the data set whose crops these are.
    landmarks: x and y of the five landmarks, see detector.Detection, in sides of
      the crop.
    size: side of the crop in pixels, before it is resized for the network.
    detector: the detector that the landmarks are of, and its SHA-256.
  """

  alignment: str
  landmarks: tuple[tuple[float, float], ...]
  size: int
  detector: str = f'centerface {detector.SHA256}'

  @classmethod
  def from_dict(cls, stored: dict[str, Any]) -> 'Recipe':
    """Returns the recipe of `dataclasses.asdict`; raises ValueError of another."""
    points = tuple((float(x), float(y)) for x, y in stored['landmarks'])
    found = cls(**{**stored, 'landmarks': points})
    if np.shape(points) != (5, 2) or not np.isfinite(points).all():
      raise ValueError('not five landmarks')
    if not 1 <= found.size <= 4096:
      raise ValueError(f'crops of {found.size} pixels')
    return found


# Medians over 600 crops in scenes, none of the test split (scripts/fit_crops.py).
RECIPES = {
  # Its owners: dlib's get_face_chip with five points and padding 0.25.
  'fairface': Recipe(
    'fairface',
    ((0.312, 0.312), (0.68, 0.303), (0.489, 0.513), (0.347, 0.689), (0.651, 0.682)),
    224,
  ),
  # "Aligned & cropped", 200 pixels.
  'utkface': Recipe(
    'utkface',
    ((0.293, 0.305), (0.693, 0.296), (0.484, 0.515), (0.331, 0.698), (0.66, 0.69)),
    200,
  ),
}


def recipe_of(data_name: str) -> Recipe | None:
  """Returns the recipe of a data set, None where there is none.

  Args:
    data_name: `config.data.name`; of several joined by `+` all must have the same.
  """
  found = {RECIPES.get(name) for name in data_name.split('+')}
  return found.pop() if len(found) == 1 else None


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Fits rotation, scale and shift by weighted least squares (Umeyama 1991).

  Args:
    source: float [5, 2], x and y.
    target: float [5, 2].

  Returns:
    float [2, 3]: the matrix that takes (x, y, 1) of the source to the target.
  """
  weights = np.asarray(WEIGHTS) / sum(WEIGHTS)
  # In the plane a rotation and scale is a complex factor.
  start, end = (np.asarray(points, np.float64) @ (1, 1j) for points in (source, target))
  start_mean, end_mean = weights @ start, weights @ end
  away = start - start_mean
  factor = weights @ (np.conj(away) * (end - end_mean)) / (weights @ abs(away) ** 2)
  shift = end_mean - factor * start_mean
  return np.array(
    [
      [factor.real, -factor.imag, shift.real],
      [factor.imag, factor.real, shift.imag],
    ]
  )


def cut(image: Image.Image, landmarks: np.ndarray, recipe: Recipe) -> Image.Image:
  """Cuts a face out as the recipe says; outside of the image is black.

  Args:
    image: RGB.
    landmarks: float [5, 2], pixels.
    recipe: see Recipe.

  Returns:
    An RGB image of recipe.size pixels, height and width.
  """
  target = recipe.size * np.asarray(recipe.landmarks)
  return detector.sample(image, similarity(target, landmarks), recipe.size)
