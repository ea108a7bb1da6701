import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from agegender_jax.inference import crops


def turned(points, angle, scale, shift):
  """Rotates clockwise on the screen, y being down."""
  cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
  return scale * points @ np.array([[cos, sin], [-sin, cos]]) + shift


@pytest.mark.parametrize('angle, scale', [(0, 1.0), (30, 2.5), (-160, 0.3)])
def test_a_similarity_is_recovered(angle, scale):
  source = np.random.default_rng(0).uniform(0, 100, (5, 2))
  target = turned(source, angle, scale, (7, -3))
  matrix = crops.similarity(source, target)
  found = np.c_[source, np.ones(5)] @ matrix.T
  np.testing.assert_allclose(found, target, atol=1e-9)
  assert np.hypot(*matrix[:, 0]) == pytest.approx(scale)


@pytest.mark.parametrize('name', crops.RECIPES)
@pytest.mark.parametrize('angle, scale', [(0, 1.0), (25, 0.8), (-30, 2.6)])
def test_a_face_comes_back_as_it_was_pasted(name, angle, scale):
  recipe = crops.RECIPES[name]
  random = np.random.default_rng(1)
  small = Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8))
  chip = small.resize((recipe.size, recipe.size), Image.Resampling.BICUBIC)
  # The scene's pixel (x, y) is the chip's pixel `back @ (x, y, 1)`.
  shift = np.array([500.0, 500.0]) - turned(
    np.full((1, 2), recipe.size / 2), angle, scale, 0
  )
  corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]]) * recipe.size
  back = crops.similarity(turned(corners, angle, scale, shift), corners)
  scene = chip.transform(
    (1000, 1000), Image.Transform.AFFINE, tuple(back.ravel()), Image.Resampling.BICUBIC
  )
  landmarks = turned(recipe.size * np.asarray(recipe.landmarks), angle, scale, shift)
  found = np.asarray(crops.cut(scene, landmarks, recipe)).astype(int)
  inner = slice(6, -6)
  difference = np.abs(found - np.asarray(chip))[inner, inner]
  assert difference.mean() < 2.5 and difference.max() < 40


def test_outside_of_the_image_is_black():
  recipe = crops.RECIPES['fairface']
  landmarks = recipe.size * np.asarray(recipe.landmarks) - recipe.size / 2
  found = np.asarray(
    crops.cut(Image.new('RGB', (300, 300), 'white'), landmarks, recipe)
  )
  half = recipe.size // 2
  assert (found[: half - 1] == 0).all() and (found[half + 1 :, half + 1 :] == 255).all()


def test_data_of_one_recipe_have_it():
  fairface, utkface = crops.RECIPES['fairface'], crops.RECIPES['utkface']
  assert crops.recipe_of('fairface') is fairface
  assert crops.recipe_of('utkface+utkface') is utkface
  for name in ('synthetic', 'utkface+fairface', 'utkface+folder'):
    assert crops.recipe_of(name) is None
  stored = json.loads(json.dumps(dataclasses.asdict(utkface)))
  assert crops.Recipe.from_dict(stored) == utkface
