"""Grad-CAM equals its formula, for every net, in evaluation mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import models
from agegender_jax.evaluation import grad_cam
from agegender_jax.inference import predictor
from agegender_jax.models import tasks
from agegender_jax.runtime import devices

# Side of the explained map at 64 pixels: after the last ReLU of a map, before
# the pooling behind it.
SIDES = {
  'cnn': 16,
  'levi_hassner': 3,
  'efficientnet_lite0': 2,
  'resnet18': 2,
  'resnet34': 2,
  'resnet50': 2,
  'resnet101': 2,
  'resnet152': 2,
  'vgg16': 4,
  'vgg16_bn': 4,
}
# One net of each family is enough for every day.
SLOW = ('resnet34', 'resnet50', 'resnet101', 'resnet152', 'vgg16')


def create(size=64, **fields):
  """Returns a network and made-up variables, on one device."""
  config = config_lib.default_config()
  config.data.image_size = size
  config.model.update(fields)
  network = predictor.Network(config)
  shapes = jax.eval_shape(
    lambda key: network.model.init(key, jnp.zeros((1, size, size, 3)), train=False),
    jax.random.key(0),
  )
  random = np.random.default_rng(0)

  def fill(path, leaf):
    if path[-1].key == 'kernel':
      scale = (2 / np.prod(leaf.shape[:-1])) ** 0.5
      return jnp.asarray(random.normal(0, scale, leaf.shape), leaf.dtype)
    return jnp.full(leaf.shape, path[-1].key in ('scale', 'var'), leaf.dtype)

  return network, jax.tree_util.tree_map_with_path(fill, shapes)


def random_images(count, size=64):
  shape = (count, size, size, 3)
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def normalised(heat):
  heat = np.maximum(heat, 0)
  return heat / heat.max(axis=(1, 2), keepdims=True)


def create_linear(age, gender):
  """Returns a net of two maps, red and blue, a mean and a dense layer each."""
  network, variables = create(8, layers='conv:2', branch='gap')
  kernel = np.zeros((3, 3, 3, 2), np.float32)
  kernel[1, 1, 0, 0] = kernel[1, 1, 2, 1] = 1
  params = variables['params']
  params['backbone']['conv1']['kernel'] = jnp.asarray(kernel)
  for name, weights in (('age', age), ('gender', gender)):
    params[f'branch_{name}']['logits']['kernel'] = jnp.asarray([weights]).T
  return network, variables


def test_heat_is_the_weighted_sum_of_the_maps():
  network, variables = create_linear([3.0, -1.0], [1.0, 2.0])
  image = random_images(4, 8)
  red, blue = image[..., 0] / 255, image[..., 2] / 255
  found = grad_cam.explain(network, variables, image)
  np.testing.assert_allclose(found['age'], normalised(3 * red - blue), atol=1e-6)
  np.testing.assert_allclose(found['gender'], normalised(red + 2 * blue), atol=1e-6)


def test_a_male_face_is_explained_by_what_makes_it_male():
  network, variables = create_linear([1.0, 1.0], [1.0, -2.0])
  image = random_images(3, 8)
  image[..., 2] //= 8
  image[0, ..., 2] = 255  # Blue on the whole: a negative logit.
  red, blue = image[..., 0] / 255, image[..., 2] / 255
  heat = red - 2 * blue
  assert heat[0].mean() < 0 < heat[1].mean()
  heat[0] *= -1
  found = grad_cam.explain(network, variables, image)['gender']
  np.testing.assert_allclose(found, normalised(heat), atol=1e-6)


def test_nothing_that_raises_the_score_is_no_heat():
  network, variables = create_linear([-1.0, -1.0], [1.0, 1.0])
  found = grad_cam.explain(network, variables, random_images(2, 8))
  assert not found['age'].any()
  assert found['gender'].max() == 1


def test_a_residual_net_is_explained_at_the_end_of_its_last_stage():
  network, variables = create(backbone='resnet18', branch='gap')
  image = random_images(2)
  features = jax.jit(
    lambda variables, image: network.model.bind(variables).backbone(
      network.normalize_fn(image), train=False
    )
  )(variables, image)
  weights = variables['params']['branch_age']['logits']['kernel'][:, 0]
  found = grad_cam.explain(network, variables, image)['age']
  want = normalised(np.asarray(features) @ np.asarray(weights))
  np.testing.assert_allclose(found, want, atol=1e-4)


def test_every_backbone_has_a_row():
  assert set(SIDES) == set(models.BACKBONES)


@pytest.mark.parametrize(
  'backbone',
  [
    pytest.param(name, marks=[pytest.mark.nightly] if name in SLOW else [])
    for name in SIDES
  ],
)
def test_heat_is_finite_and_of_one_image_alone(backbone):
  flat = backbone == 'levi_hassner'
  branch = {} if backbone == 'cnn' else {'branch': '' if flat else 'gap'}
  network, variables = create(backbone=backbone, **branch)
  image = random_images(3)
  found = grad_cam.explain(network, variables, image)
  assert set(found) == {'age', 'gender'}
  # Batch statistics would mix the images.
  image[0], image[2] = 0, image[0]
  again = grad_cam.explain(network, variables, image)
  for name, heat in found.items():
    assert heat.shape == (3, SIDES[backbone], SIDES[backbone])
    assert np.isfinite(heat).all() and heat.min() >= 0
    top = np.asarray(heat.max(axis=(1, 2)))
    np.testing.assert_allclose(top, top > 0, atol=1e-6)
    np.testing.assert_allclose(heat[1], again[name][1], atol=1e-4)
    assert np.abs(heat[2] - again[name][2]).max() > 1e-3 or not top[2]


@pytest.mark.parametrize(
  'name, kind, want',
  [
    ('age', 'mse', [3.0, -1.0]),
    ('age', 'dex', [50.0, 100.0]),
    ('age', 'group', [2.0, 5.0]),
    ('gender', 'binary', [3.0, 1.0]),
  ],
)
def test_what_is_explained(name, kind, want):
  config = config_lib.default_config().tasks
  config.age.kind, config.gender.kind = '', ''
  config[name].kind = kind
  (task,) = tasks.create_tasks(config, 'adience')
  logits = np.zeros((2, task.num_outputs), np.float32)
  if kind == 'dex':
    logits[1, 100] = 1000  # All equal: the mean of 0 to 100; then one class.
  elif kind == 'group':
    logits[0, 3], logits[1, :2] = 2, (5, 4)
  else:
    logits[:, 0] = (3, -1)
  found = grad_cam.explained_score(task, jnp.asarray(logits))
  np.testing.assert_allclose(found, want, rtol=1e-5)


class Images:
  """A source of images."""

  def __init__(self, images):
    self.images = images

  def __len__(self):
    return len(self.images)

  def gather(self, rows):
    return self.images[rows]


def write(network, variables, folder, images):
  grad_cam.write_saliency(network, devices.replicate(variables), Images(images), folder)
  return folder / 'saliency.npz'


def test_what_is_written(tmp_path):
  network, variables = create_linear([3.0, -1.0], [1.0, 2.0])
  images = random_images(36, 10)  # The net sees the 8 pixels in the middle.
  with np.load(write(network, variables, tmp_path, images)) as found:
    assert found['row'].tolist() == [0, 5, 10, 15, 20, 25, 30, 35]
    assert found['images'].dtype == np.uint8
    want = images[found['row'], 1:-1, 1:-1]
    np.testing.assert_array_equal(found['images'], want)
    heat = normalised(3.0 * want[..., 0] - want[..., 2])
    assert found['age'].dtype == np.float16
    np.testing.assert_allclose(found['age'], heat, atol=1e-3)


def test_nothing_to_explain_writes_nothing(tmp_path):
  flat = create(8, layers='flatten dense:4', branch='')
  assert not write(*flat, tmp_path, random_images(1, 8)).exists()
