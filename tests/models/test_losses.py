import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax.models import losses, tasks


def test_squared_and_absolute_error():
  logits, age = jnp.array([[30.0], [10.0]]), jnp.array([27.0, 14.0])
  np.testing.assert_allclose(losses.squared_error(logits, age), [9, 16])
  np.testing.assert_allclose(losses.absolute_error(logits, age), [3, 4])


def test_binary_cross_entropy_is_minus_log_probability():
  logits = jnp.log(jnp.array([[3.0], [3.0]]))  # P(1) = 3/4.
  loss = losses.binary_cross_entropy(logits, jnp.array([1, 0]))
  np.testing.assert_allclose(loss, -np.log([0.75, 0.25]), rtol=1e-6)


def test_cross_entropy_is_minus_log_probability():
  logits = jnp.log(jnp.array([[1.0, 2.0, 5.0]]))
  loss = losses.cross_entropy(logits, jnp.array([2]))
  np.testing.assert_allclose(loss, -np.log(5 / 8), rtol=1e-6)


def test_year_cross_entropy_clips_at_the_last_year():
  logits = jnp.zeros((2, 101))
  loss = losses.year_cross_entropy(logits, jnp.array([116.0, 26.7]))
  np.testing.assert_allclose(loss, np.log([101, 101]), rtol=1e-6)
  peaked = logits.at[:, 100].set(9.0)
  loss = losses.year_cross_entropy(peaked, jnp.array([116.0, 100.0]))
  np.testing.assert_allclose(loss[0], loss[1])


@pytest.mark.parametrize(
  'name, kind',
  [(name, kind) for name in tasks.TASKS for kind in tasks.TASKS[name]],
)
def test_every_task_is_finite_on_unknown_labels_and_decodes(name, kind):
  config = config_lib.default_config().tasks
  config.age.kind = config.gender.kind = ''
  config[name].kind = kind
  (task,) = tasks.create_tasks(config, 'adience')
  logits = jnp.ones((3, task.num_outputs))
  dtype = jnp.float32 if task.label == 'age' else jnp.int32
  labels = [jnp.array([-1, 0, 1], dtype)] * len(task.labels)
  value, gradient = jax.value_and_grad(lambda x: task.loss(x, *labels).sum())(logits)
  assert np.isfinite(value) and np.isfinite(gradient).all()
  decoded = task.decode(logits)
  distribution = decoded.pop('age_distribution', jnp.ones((3, 1)))
  np.testing.assert_allclose(distribution.sum(axis=1), 1, rtol=1e-5)
  for output in decoded.values():
    assert output.shape == (3,)


def test_gaussian_is_minus_log_density():
  logits = jnp.array([[30.0, np.log(16.0)]])
  expected = 0.5 * np.log(2 * np.pi * 16) + 6**2 / (2 * 16)
  loss = losses.gaussian(logits, jnp.array([24.0]))
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_interval_likelihood_is_minus_log_mass_of_its_years():
  logits = jnp.log(jnp.array([[1.0, 2.0, 5.0, 2.0]] * 3))
  low, high = jnp.array([1, 2, 0]), jnp.array([2, 2, 3])
  loss = losses.interval_likelihood(logits, low, high)
  np.testing.assert_allclose(loss, -np.log([0.7, 0.5, 1.0]), atol=1e-6)
  single = losses.cross_entropy(logits, jnp.array([2, 2, 2]))
  np.testing.assert_allclose(loss[1], single[1], rtol=1e-6)


def test_label_distribution_is_its_divergence_and_the_error_of_the_mean():
  years = np.arange(117)
  label = np.exp(-((years - 60) ** 2) / 8)
  label /= label.sum()
  logits = jnp.log(jnp.asarray(label, jnp.float32) + 1e-30)[None]
  loss = losses.label_distribution(logits, jnp.array([60.0]))
  np.testing.assert_allclose(loss, 0, atol=1e-4)
  flat = losses.label_distribution(jnp.zeros((1, 117)), jnp.array([60.0]))
  divergence = (label * np.log(label * 117 + 1e-300)).sum()
  np.testing.assert_allclose(flat, divergence + 58 - 60 + 4 - 0.5, rtol=1e-4)


def test_ordinal_losses_are_minus_log_probabilities():
  # log-odds of age > 0 and age > 1: 3/4 and 1/2.
  logits = jnp.log(jnp.array([[3.0, 1.0]] * 3))
  ages = jnp.array([0.0, 1.0, 2.5])
  found = losses.coral(logits, ages)
  np.testing.assert_allclose(found, -np.log([1 / 8, 3 / 8, 3 / 8]), rtol=1e-6)
  # By the chain rule: the probabilities of 0, 1 and 2 years add up to 1.
  found = losses.corn(logits, ages)
  np.testing.assert_allclose(found, -np.log([1 / 4, 3 / 8, 3 / 8]), rtol=1e-6)


def create_task(kind):
  config = config_lib.default_config().tasks
  config.age.kind = kind
  return tasks.create_tasks(config, 'adience')[0]


def test_a_distribution_decodes_to_median_and_heaviest_group():
  found = jnp.zeros((3, 117)).at[0, 30].set(1.0)
  # 3 is in no group of Adience's; of two equally near it is the younger's.
  found = found.at[1, jnp.array([1, 3, 5])].set(jnp.array([0.3, 0.3, 0.4]))
  found = found.at[2, jnp.array([10, 11])].set(0.5)
  decoded = tasks.decode_distribution(found, 'adience')
  # Of year 3, two thirds lie below the median: 2.5 + 2/3.
  np.testing.assert_allclose(decoded['age'], [30, 2.5 + 2 / 3, 10.5], rtol=1e-5)
  assert decoded['age_group'].tolist() == [4, 0, 2]


@pytest.mark.parametrize('kind', ['coral', 'corn'])
def test_ordinal_heads_decode_the_probabilities_of_years(kind):
  task = create_task(kind)
  logits = jnp.full((1, 116), 30.0).at[0, 20:].set(-30.0).at[0, 20].set(np.log(0.25))
  decoded = task.decode(logits)
  assert decoded['age_distribution'].shape == (1, 117)
  expected = [0.8, 0.2]
  np.testing.assert_allclose(decoded['age_distribution'][0, 20:22], expected, atol=1e-6)
  np.testing.assert_allclose(decoded['age'], 19.5 + 0.5 / 0.8, rtol=1e-5)


def test_dex_decodes_the_expected_year():
  task_config = config_lib.default_config().tasks
  task_config.age.kind = 'dex'
  task = tasks.create_tasks(task_config, 'adience')[0]
  logits = jnp.full((1, 101), -jnp.inf).at[0, 20].set(0).at[0, 30].set(0)
  np.testing.assert_allclose(task.decode(logits)['age'], [25.0], rtol=1e-6)


def test_smoothed_gender_is_the_mean_of_both_answers():
  logits, label = jnp.array([[2.0], [-1.0]]), jnp.array([1, 1])
  plain = losses.binary_cross_entropy(logits, label)
  other = losses.binary_cross_entropy(logits, 1 - label)
  found = losses.binary_cross_entropy(logits, label, smoothing=0.2)
  np.testing.assert_allclose(found, 0.9 * plain + 0.1 * other, rtol=1e-6)
  config = config_lib.default_config()
  config.tasks.gender.label_smoothing = 0.2
  (task,) = [
    t for t in tasks.create_tasks(config.tasks, 'adience') if t.name == 'gender'
  ]
  np.testing.assert_allclose(task.loss(logits, label), found, rtol=1e-6)
