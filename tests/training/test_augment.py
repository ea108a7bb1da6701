import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from agegender_jax import errors
from agegender_jax.models import preprocessing
from agegender_jax.training import augment


def random_image(size=8, batch=2):
  random = np.random.default_rng(0)
  return random.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def matrices(batch=2, flip=False, angle=0.0, zoom=1.0, shift=(0.0, 0.0)):
  return augment.affine_matrices(
    jnp.full(batch, flip),
    jnp.full(batch, angle),
    jnp.full(batch, zoom),
    jnp.tile(jnp.array(shift)[None], (batch, 1)),
  )


def keys(batch=2, seed=0):
  return jax.vmap(jax.random.fold_in, (None, 0))(
    jax.random.key(seed), jnp.arange(batch)
  )


def test_zero_strength_is_the_identity():
  image = random_image()
  result = jax.jit(augment.create_augment(augment.Strengths()))(keys(), image)
  np.testing.assert_array_equal(result, image)
  np.testing.assert_array_equal(augment.warp(image, matrices()), image)


def test_flip_mirrors_and_twice_is_the_identity():
  image = random_image()
  once = augment.warp(image, matrices(flip=True))
  np.testing.assert_array_equal(once, image[:, :, ::-1])
  twice = augment.warp(np.asarray(once, np.uint8), matrices(flip=True))
  np.testing.assert_array_equal(twice, image)


@pytest.mark.parametrize('size', [8, 9])
def test_quarter_turn_is_rot90(size):
  image = random_image(size)
  result = augment.warp(image, matrices(angle=np.pi / 2))
  expected = np.rot90(image, axes=(1, 2)).astype(np.float32)
  np.testing.assert_allclose(result, expected, atol=1e-3)


def test_shift_moves_and_repeats_the_border():
  image = random_image()
  result = augment.warp(image, matrices(shift=(2.0, -1.0)))
  np.testing.assert_allclose(result[:, 2:, :-1], image[:, :-2, 1:], atol=1e-3)
  np.testing.assert_allclose(result[:, 0, :-1], image[:, 0, 1:], atol=1e-3)


def test_half_pixel_shift_averages_neighbours():
  image = random_image()
  result = augment.warp(image, matrices(shift=(0.0, 0.5)))
  values = image.astype(np.float32)
  expected = (values[:, :, :-1] + values[:, :, 1:]) / 2
  np.testing.assert_allclose(result[:, :, 1:], expected, atol=1e-3)


def test_zoom_two_enlarges_the_centre():
  ramp = np.arange(9, dtype=np.uint8) * 20
  image = np.broadcast_to(ramp[None, None, :, None], (1, 9, 9, 3))
  result = augment.warp(image, matrices(1, zoom=2.0))
  np.testing.assert_allclose(result[0, 4, :, 0], 40 + 10 * np.arange(9))


def test_adjust_follows_its_formula_and_clips():
  image = np.full((1, 2, 2, 3), 100, np.float32)
  image[0, 0] = 60
  result = augment.adjust(image, jnp.array([0.1]), jnp.array([0.5]))
  np.testing.assert_allclose(result[0, 0, 0, 0], 80 - 10 + 25.5)
  np.testing.assert_allclose(result[0, 1, 0, 0], 80 + 10 + 25.5)
  bright = augment.adjust(image, jnp.array([1.0]), jnp.array([1.0]))
  np.testing.assert_array_equal(bright, np.full_like(image, 255))


def smooth(size=40):
  """Returns an image with edges and colours, as photos have them."""
  y, x = np.mgrid[:size, :size] / size
  image = np.stack([255 * x, 255 * y, 128 + 100 * np.sin(9 * x * y)], -1)
  image[10:20, 5:30] = (200, 150, 90)
  return image.astype(np.uint8)[None]


def test_saturation_is_pillows_and_none_leaves_luma():
  image = smooth()
  enhancer = ImageEnhance.Color(Image.fromarray(image[0]))
  for factor in (0.0, 0.5, 1.6):
    found = augment.saturate(image[0].astype(np.float32), factor)
    np.testing.assert_allclose(found, enhancer.enhance(factor), atol=1.6)
  same = augment.saturate(image[0].astype(np.float32), 1.0)
  np.testing.assert_allclose(same, image[0], atol=1e-3)


def test_a_blurred_point_is_a_gaussian():
  image = np.zeros((33, 33, 3), np.float32)
  image[16, 16] = 1000
  same = augment.filter_lines(image, lambda size: augment.blur_matrix(size, 0.0))
  np.testing.assert_array_equal(same, image)
  found = augment.filter_lines(image, lambda size: augment.blur_matrix(size, 2.0))
  line = np.exp(-((np.arange(33) - 16) ** 2) / 8)
  expected = 1000 * np.outer(line, line)[..., None] / line.sum() ** 2
  np.testing.assert_allclose(found, np.broadcast_to(expected, (33, 33, 3)), atol=1e-3)
  flat = np.full((9, 5, 3), 80.0, np.float32)
  found = augment.filter_lines(flat, lambda size: augment.blur_matrix(size, 2.0))
  np.testing.assert_allclose(found, flat, rtol=1e-5)


@pytest.mark.parametrize('side', [10, 23, 40])
def test_downscaling_is_pillows_there_and_back(side):
  image = smooth()[0]
  found = augment.filter_lines(
    image.astype(np.float32), lambda size: augment.downscale_matrix(size, side)
  )
  small = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
  expected = small.resize((40, 40), Image.Resampling.BILINEAR)
  np.testing.assert_allclose(found, expected, atol=1.6)


@pytest.mark.parametrize('quality', [20, 50, 75, 95])
@pytest.mark.parametrize('size', [40, 37])
def test_jpeg_has_pillows_losses(quality, size):
  image = smooth(size)
  buffer = io.BytesIO()
  Image.fromarray(image[0]).save(buffer, 'JPEG', quality=quality, subsampling=0)
  expected = np.asarray(Image.open(buffer), np.float32)
  found = np.asarray(jax.jit(augment.jpeg)(image[0].astype(np.float32), quality))
  assert np.abs(found - expected).mean() < 0.7
  lost = np.abs(expected - image[0]).mean()
  assert np.abs(found - image[0]).mean() == pytest.approx(lost, rel=0.1)


@pytest.mark.parametrize('name', ['grey', 'blur', 'downscale', 'jpeg'])
def test_losses_have_their_probability(name):
  image = np.repeat(smooth(64), 400, 0)
  function = augment.create_augment(augment.Strengths(**{name: 0.3}))
  change = np.abs(jax.jit(function)(keys(400), image) - image).max(axis=(1, 2, 3))
  assert np.mean(change > 1e-2) == pytest.approx(0.3, abs=0.08)


def test_what_is_off_is_not_in_the_step():
  image = random_image(16)

  def program(**strengths):
    function = augment.create_augment(augment.Strengths(**strengths))
    return str(jax.make_jaxpr(function)(keys(), image))

  on = program(saturation=0.1, blur=0.1, downscale=0.1, jpeg=0.1)
  assert on.count('dot_general') > 4
  assert 'dot_general' not in program(brightness=0.1, erase=0.1)


def test_erase_replaces_the_box_by_the_mean_colour():
  image = random_image(4, 1).astype(np.float32)
  result = augment.erase(image, jnp.array([[1.0, 0.0, 3.0, 2.0]]))
  expected = image.copy()
  expected[0, 1:3, 0:2] = image[0].mean(axis=(0, 1))
  np.testing.assert_allclose(result, expected, rtol=1e-5)
  nothing = augment.erase(image, jnp.array([[2.0, 2.0, 2.0, 2.0]]))
  np.testing.assert_array_equal(nothing, image)


def test_erase_probability_and_area():
  strengths = augment.Strengths(erase=0.3)
  draw = jax.jit(jax.vmap(lambda k: augment.draw(k, strengths, 100, 100)))
  drawn = draw(keys(2000))
  box = np.asarray(drawn['box'])
  area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
  assert np.mean(area > 0) == pytest.approx(0.3, abs=0.04)
  assert area.max() <= 2001 and (box >= 0).all() and (box <= 100.01).all()
  hit = area[area > 0]
  assert hit.mean() == pytest.approx(1100, rel=0.1)


def test_draws_stay_within_their_strengths():
  strengths = augment.Strengths(
    flip=True, rotation=30.0, zoom=0.2, shift=0.1, brightness=0.3, contrast=0.4
  )
  draw = jax.jit(jax.vmap(lambda k: augment.draw(k, strengths, 50, 100)))
  drawn = draw(keys(1000))
  for name, limit, centre in [
    ('angle', np.pi / 6, 0),
    ('zoom', 0.2, 1),
    ('brightness', 0.3, 0),
    ('contrast', 0.4, 1),
  ]:
    distance = np.abs(np.asarray(drawn[name]) - centre)
    assert 0.95 * limit < distance.max() <= limit + 1e-6, name
  shift = np.abs(np.asarray(drawn['shift'])).max(axis=0)
  assert 4.5 < shift[0] <= 5 and 9 < shift[1] <= 10
  assert np.mean(drawn['flip']) == pytest.approx(0.5, abs=0.05)


def test_an_example_depends_on_its_own_key_only():
  image = random_image(8, 4)
  function = augment.create_augment(augment.Strengths(
    flip=True, rotation=20.0, zoom=0.1, shift=0.1, brightness=0.1,
    contrast=0.1, saturation=0.1, grey=0.5, blur=0.5, downscale=0.5, jpeg=0.5,
    erase=0.5,
  ))  # fmt: skip
  function = jax.jit(function)
  whole = function(keys(4), image)
  # The third one in company of its own: one shape, compiled once.
  third = np.array([2, 2, 2, 2])
  alone = function(keys(4)[third], image[third])
  np.testing.assert_allclose(whole[third], alone, atol=1e-4)


def test_normalize_imagenet_is_torchvisions():
  normalize = preprocessing.create_normalize('imagenet')
  result = normalize(np.full((1, 1, 1, 3), 255, np.uint8))
  expected = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
  np.testing.assert_allclose(result[0, 0, 0], expected, rtol=1e-5)
  ends = preprocessing.create_normalize('inception')(
    np.array([0, 255, 0], np.uint8).reshape(1, 1, 1, 3)
  )
  np.testing.assert_allclose(ends.reshape(3), [-1, 1, -1], rtol=1e-6)
  unit = preprocessing.create_normalize('unit')(np.full((1, 1, 1, 3), 51, np.uint8))
  np.testing.assert_allclose(unit, 0.2, rtol=1e-6)


@pytest.mark.parametrize('field', [{'zoom': 1.0}, {'erase': 1.5},
                                   {'rotation': -1.0}])  # fmt: skip
def test_a_strength_outside_its_range_is_refused(field):
  with pytest.raises(errors.UserError, match=next(iter(field))):
    augment.Strengths(**field)


def test_crops_are_of_their_size_and_from_everywhere():
  image = np.zeros((200, 6, 6, 3), np.uint8)
  image[..., 0] = np.arange(6)[None, :, None]
  image[..., 1] = np.arange(6)[None, None, :]
  function = augment.create_augment(augment.Strengths(), crop_size=4)
  function = jax.jit(function)
  result = np.asarray(function(keys(200), image))
  assert result.shape == (200, 4, 4, 3)
  corners = {tuple(corner) for corner in result[:, 0, 0, :2]}
  assert corners == {(y, x) for y in range(3) for x in range(3)}
  np.testing.assert_array_equal(
    result - result[:, :1, :1],
    np.broadcast_to(image[:, :4, :4].astype(float), result.shape),
  )


def test_views_are_the_centre_or_the_papers_ten():
  image = random_image(6)
  (centre,) = preprocessing.create_views(4, oversample=False)(image)
  np.testing.assert_array_equal(centre, image[:, 1:5, 1:5])
  views = preprocessing.create_views(4, oversample=True)(image)
  assert len(views) == 10
  np.testing.assert_array_equal(views[4], image[:, 2:, 2:])
  np.testing.assert_array_equal(views[9], image[:, 2:, 2:][:, :, ::-1])
  assert len(preprocessing.create_views(0, oversample=True)(image)) == 2
