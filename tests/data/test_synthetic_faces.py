"""Tests of the drawn faces: reproducible, labelled, not read off a pixel."""

import io

import numpy as np
import pytest
from PIL import Image

from agegender_jax import schema
from agegender_jax.data.synthetic_faces import faces as faces_lib
from agegender_jax.data.synthetic_faces import painting, person

_FACES = 600


@pytest.fixture(scope='module')
def faces():
  """Returns images float32 [600, 32, 32, 3] and genders int [600]."""
  drawn = [faces_lib.draw_face(3, i, 64) for i in range(_FACES)]
  images = [
    np.asarray(Image.fromarray(face.image).reduce(2), np.float32) / 255
    for face in drawn
  ]
  return np.stack(images), np.array([face.gender for face in drawn])


def _traits(number: int) -> list:
  return [
    person.sample_traits(np.random.Generator(np.random.Philox(key=[5, i])))
    for i in range(number)
  ]


def test_draw_face_depends_on_seed_and_index_alone():
  first = faces_lib.draw_face(1, 7)
  np.random.seed(0)
  faces_lib.draw_face(1, 8)
  again = faces_lib.draw_face(1, 7)
  np.testing.assert_array_equal(first.image, again.image)
  assert first[1:] == again[1:]
  for seed, index in ((1, 8), (2, 7), (7, 1)):
    other = faces_lib.draw_face(seed, index)
    assert np.abs(first.image.astype(int) - other.image).mean() > 5


def test_draw_face_labels_do_not_depend_on_size():
  for index in range(10):
    small = faces_lib.draw_face(0, index, 32)
    large = faces_lib.draw_face(0, index, 96)
    assert small[1:] == large[1:]
    assert large.image.shape == (96, 96, 3) and large.image.dtype == np.uint8


def test_draw_example_is_the_face_as_jpeg():
  face = faces_lib.draw_face(2, 3)
  example = faces_lib.draw_example(2, 3)
  decoded = np.asarray(Image.open(io.BytesIO(example['image'])), np.float32)
  assert decoded.shape == (128, 128, 3)
  assert np.abs(decoded - face.image).mean() < 12
  assert example['age'] == face.age and example['gender'] == face.gender
  assert example['name'] == 'synthetic_2_000003.jpg'
  assert 1500 < len(example['image']) < 20000


def test_draw_face_draws_small_images_of_many_people():
  # Indices whose soft-edged parts cross the frame must not fail.
  for index in range(60):
    assert faces_lib.draw_face(11, index, 32).image.std() > 4


def test_traits_have_the_ages_and_genders_of_a_data_set():
  people = _traits(3000)
  age = np.array([person.age for person in people])
  gender = np.array([person.gender for person in people])
  assert age.min() >= 1 and age.max() <= 90
  np.testing.assert_array_equal(age, np.floor(age))
  assert abs(gender.mean() - 0.5) < 0.03
  counts, _ = np.histogram(age, np.arange(0, 101, 10))
  assert counts.argmax() == 2
  assert 0.08 < np.mean(age < 12) < 0.22
  assert 0.06 < np.mean(age >= 60) < 0.2


def test_traits_overlap_between_genders_and_ages():
  people = [p for p in _traits(3000) if p.age >= 20]
  male = np.array([p.gender == schema.MALE for p in people])
  long_hair = np.array([p.hair_end > 0 for p in people])
  assert 0.08 < long_hair[male].mean() < 0.25
  assert 0.6 < long_hair[~male].mean() < 0.85
  for name in ('jaw', 'chin', 'brow_width', 'brow_lift', 'lip', 'neck'):
    value = np.array([getattr(p, name) for p in people])
    middle = (value[male].mean() + value[~male].mean()) / 2
    accuracy = np.mean((value > middle) == male)
    assert 0.7 < max(accuracy, 1 - accuracy) < 0.98, name
  # What says nothing about the labels.
  for name in ('glasses', 'earrings'):
    value = np.array([getattr(p, name) for p in people])
    assert abs(value[male].mean() - value[~male].mean()) < 0.04
  age = np.array([p.age for p in people])
  grey = np.array([p.grey for p in people])
  assert grey[age < 35].mean() < 0.15 and grey[age > 65].mean() > 0.55
  assert np.any(grey[age < 45] > 0.4) and np.any(grey[age > 60] < 0.2)


def test_no_single_pixel_tells_the_gender(faces):
  images, gender = faces
  pixels = images.reshape(_FACES, -1)
  best = 0.0
  for cut in np.linspace(0.05, 0.95, 19):
    accuracy = ((pixels > cut) == gender[:, None]).mean(0)
    best = max(best, accuracy.max(), 1 - accuracy.min())
  assert best < 0.72
  # Nor does the mean colour.
  mean = images.mean((1, 2))
  for cut in np.linspace(0.05, 0.95, 19):
    accuracy = ((mean > cut) == gender[:, None]).mean(0)
    assert np.maximum(accuracy, 1 - accuracy).max() < 0.65


def test_a_linear_rule_on_pixels_does_not_tell_the_gender(faces):
  images, gender = faces
  pixels = images.reshape(_FACES, -1)
  pixels = pixels - pixels.mean(0)[None]
  sign = 2.0 * gender - 1
  train = slice(0, 400)
  gram = pixels @ pixels[train].T
  best = 0.0
  for ridge in (30.0, 300.0, 3000.0):
    weight = np.linalg.solve(
      gram[train] + ridge * np.eye(400, dtype=np.float32), sign[train]
    )
    best = max(best, np.mean((gram[400:] @ weight > 0) == (sign[400:] > 0)))
  # Above chance, for there is something to see.
  assert 0.55 < best < 0.8


def test_smooth_curve_passes_through_its_control_points():
  control = np.array([(0.0, 0.0), (1.0, 2.0), (3.0, 1.0), (2.0, -1.0)])
  closed = painting.smooth(control)
  np.testing.assert_allclose(closed[::5], control, atol=1e-12)
  opened = painting.smooth(control, closed=False)
  np.testing.assert_allclose(opened[::5], control, atol=1e-12)
  assert len(closed) == 20 and len(opened) == 16
  # On equally spaced points of a line the curve is that line.
  line = painting.smooth([(0, 0), (1, 1), (2, 2), (3, 3)], closed=False)[5:11]
  np.testing.assert_allclose(line[:, 0], np.linspace(1, 2, 6), atol=1e-12)


def test_project_without_turn_scales_and_shifts():
  pose = {
    'cos_yaw': 1.0, 'sin_yaw': 0.0, 'sin_pitch': 0.0, 'cos_roll': 0.0,
    'sin_roll': 1.0, 'scale': 0.25, 'x': 0.5, 'y': 0.5,
  }  # fmt: skip
  canvas = painting.Canvas(Image.new('RGB', (128, 128)), 64, pose)
  # A quarter turn: x runs down, y runs left; 16 pixels to the unit.
  pixels = canvas.project([(1.0, 0.0), (0.0, 1.0)])
  np.testing.assert_allclose(pixels, [(32, 48), (16, 32)], atol=1e-12)
  pose['sin_yaw'] = 0.5
  # The middle of the face is 0.6 deep, so it moves by 0.3 units.
  np.testing.assert_allclose(canvas.project([(0.0, 0.0)]), [(32, 36.8)])
  np.testing.assert_allclose(canvas.project([(0.0, 0.0)], True), [(32, 32)])
