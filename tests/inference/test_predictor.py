import jax
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax.inference import predictor
from agegender_jax.runtime import devices
from agegender_jax.training import optimizers, steps


def small_config(**fields):
  config = config_lib.default_config()
  config.data.image_size = 16
  config.model.layers = 'conv:4 norm pool'
  config.model.branch = 'flatten dense:8'
  config.train.eval_batch_size = 4
  config.update_from_flattened_dict(fields)
  return config


def variables_of(network):
  optimizer = optimizers.create_optimizer(small_config().optimizer, lambda step: 0.1)
  return steps.create_state(
    network.model, optimizer, network.input_size, seed=1
  ).variables


def predict(config, image, crop=slice(None)):
  network = predictor.Network(config)
  batch = {'image': image[:, crop, crop], 'mask': np.ones(len(image))}
  variables = devices.replicate(variables_of(network))
  return network.predict_all(variables, [batch])


def random_images(count=4, seed=0):
  random = np.random.default_rng(seed)
  return random.integers(0, 256, (count, 16, 16, 3), np.uint8)


def test_over_sampling_averages_the_mirror_image():
  image = random_images()
  both = [predict(small_config(), view) for view in (image, image[:, :, ::-1])]
  found = predict(small_config(**{'data.oversample': True}), image)
  for name, logits in found['logits'].items():
    expected = (both[0]['logits'][name] + both[1]['logits'][name]) / 2
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(logits - both[0]['logits'][name]).max() > 1e-3
  # The decoded values are those of the mean.
  np.testing.assert_array_equal(found['age'], found['logits']['age'][:, 0])


def test_over_sampling_averages_ten_crops():
  image = random_images()
  config = small_config(**{'data.crop_size': 12, 'data.oversample': True})
  found = predict(config, image)
  views = [
    view
    for y, x in [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]
    for crop in [image[:, y : y + 12, x : x + 12]]
    for view in (crop, crop[:, :, ::-1])
  ]
  one = small_config(**{'data.image_size': 12})
  parts = [predict(one, view)['logits']['age'] for view in views]
  np.testing.assert_allclose(
    found['logits']['age'], np.mean(parts, axis=0), rtol=1e-4, atol=1e-4
  )


def test_batches_under_way_together_come_in_their_order():
  network = predictor.Network(small_config())
  variables = devices.replicate(variables_of(network))
  mask = np.array([1, 1, 0, 1])
  batches = [
    {'image': random_images(seed=seed), 'mask': np.roll(mask, seed)}
    for seed in range(7)
  ]
  found = list(network.predict(variables, iter(batches)))
  assert len(found) == 7
  for batch, output in zip(batches, found, strict=True):
    (alone,) = network.predict(variables, [batch])
    jax.tree.map(np.testing.assert_array_equal, output, alone)

  def broken():
    yield from batches[:4]
    raise OSError('no more')

  read = network.predict(variables, broken())
  next(read)
  with pytest.raises(OSError, match='no more'):
    list(read)


def test_shapes_are_those_of_a_state():
  network = predictor.Network(small_config())
  expected = jax.tree.map(np.shape, variables_of(network))
  assert jax.tree.map(lambda leaf: leaf.shape, network.shapes()) == expected
  assert expected['batch_stats']


@pytest.mark.parametrize(
  'largest, count, expected',
  # Two devices share a batch, and CPU_BATCH is 8.
  [(128, 10_000, 8), (128, 3, 4), (128, 1, 2), (4, 100, 4), (6, 100, 6),
   (20, 100, 10)],
)  # fmt: skip
def test_batches_fit_the_images_and_the_devices(largest, count, expected):
  config = small_config(**{'train.eval_batch_size': largest})
  assert predictor.Network(config).batch_size_for(count) == expected
