import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agegender_jax import config as config_lib
from agegender_jax import models, schema
from agegender_jax.inference import predictor
from agegender_jax.models import parameter_groups, preprocessing, tasks
from agegender_jax.runtime import devices as devices_lib
from agegender_jax.training import augment, feed, optimizers, state, steps

SIZE, BATCH = 16, 8


def batch_of(count=BATCH, seed=0):
  random = np.random.default_rng(seed)
  shape = (count, SIZE, SIZE, 3)
  age = random.integers(1, 80, count).astype(np.float32)
  return {
    'image': random.integers(0, 256, shape, dtype=np.uint8),
    'age': age,
    'age_group': schema.group_of_label(age, 'adience'),
    'gender': random.integers(0, 2, count).astype(np.int32),
    'mask': np.ones(count, np.float32),
    'row': np.arange(count, dtype=np.int32),
  }


@dataclasses.dataclass
class Bench:
  """A small network with its step on a number of devices."""

  devices: int
  layers: str = 'conv:4 norm pool'
  strengths: augment.Strengths = augment.Strengths(flip=True)
  freeze: str = ''

  def __post_init__(self):
    config = config_lib.default_config()
    config.model.layers = self.layers
    config.model.branch = 'flatten dense:8'
    self.tasks = tasks.create_tasks(config.tasks, 'adience')
    outputs = {task.name: task.num_outputs for task in self.tasks}
    is_frozen = parameter_groups.create_is_frozen(self.freeze)
    model = models.create_model(config.model, outputs, devices_lib.AXIS, is_frozen)
    optimizer = optimizers.create_optimizer(config.optimizer, lambda _: 0.01)
    self.traces = 0
    step = steps.create_train_step(
      model,
      optimizer,
      self.tasks,
      augment.create_augment(self.strengths),
      preprocessing.create_normalize('unit'),
      is_frozen,
    )

    def counted(*args):
      self.traces += 1
      return step(*args)

    devices = jax.devices()[: self.devices]
    self.call = jax.pmap(
      steps.create_train_steps(counted),
      devices_lib.AXIS,
      in_axes=(0, 0, 0, None),
      devices=devices,
    )
    first = state.create_state(model, optimizer, SIZE, 0, is_frozen, terms='')
    self.state = devices_lib.replicate(first, devices)

  def run(self, *batches):
    for batch in batches:
      state, report = self.run_call([batch])
    return state, jax.tree.map(lambda x: x[:, 0], report)

  def run_call(self, batches, data=None):
    shards = {
      key: np.stack(
        [batch[key].reshape((self.devices, -1) + batch[key].shape[1:])
         for batch in batches], axis=1
      )
      for key in batches[0]
    }  # fmt: skip
    whole = {key: np.concatenate([b[key] for b in batches]) for key in shards}
    known = feed.count_known(whole, len(batches))
    shards['known'] = np.stack([known] * self.devices)
    # Step s finds its labels at s % number of steps.
    first = int(self.state.step[0]) % len(batches)
    labels = {
      key: np.roll(value, first, axis=1)
      for key, value in shards.items()
      if key != 'image'
    }
    if data:
      rest = {'turn': np.zeros((self.devices, len(batches)))}
    else:
      rest = {'image': shards['image']}
    self.state, report = self.call(
      self.state, {**(data or {}), 'labels': labels}, rest, jax.random.key(0)
    )
    return jax.tree.map(np.asarray, (self.state, report))


def close(left, right, rtol=2e-4, atol=2e-6):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol),
    left,
    right,
  )


def test_two_devices_equal_one():
  batches = [batch_of(seed=seed) for seed in range(3)]
  # Uneven shards: the mean is over the batch, not of the devices' means.
  batches[0]['gender'][:3] = schema.UNKNOWN
  batches[1]['mask'][5:] = 0
  turned = augment.Strengths(flip=True, rotation=10.0)
  one, report_one = Bench(1, strengths=turned).run(*batches)
  two, report_two = Bench(2, strengths=turned).run(*batches)
  first = jax.tree.map(lambda x: x[0], two)
  close(first.params, jax.tree.map(lambda x: x[0], one.params))
  close(first.batch_stats, jax.tree.map(lambda x: x[0], one.batch_stats))
  close(
    jax.tree.map(lambda x: x[0], report_two),
    jax.tree.map(lambda x: x[0], report_one),
    rtol=1e-4,
  )


def test_replicas_stay_equal():
  # A psum left out would raise nothing: each device would go its own way.
  two, report = Bench(2).run(batch_of(seed=1), batch_of(seed=2))
  for tree in (two.params, two.batch_stats, report):
    close(
      jax.tree.map(lambda x: x[0], tree),
      jax.tree.map(lambda x: x[1], tree),
      rtol=0,
      atol=0,
    )


def test_several_steps_in_a_call_equal_as_many_calls():
  devices = 2
  batches = [batch_of(seed=seed) for seed in range(3)]
  one_by_one, last = Bench(devices).run(*batches)
  at_once, report = Bench(devices).run_call(batches)
  close(at_once, one_by_one)
  close(jax.tree.map(lambda x: x[:, -1], report), last)
  assert report['loss'][0].shape == (devices, 3)


def test_a_loop_of_steps_equals_them_unrolled(monkeypatch):
  batches = [batch_of(seed=seed) for seed in range(2)]
  unrolled = Bench(1).run_call(batches)
  # What other devices than CPUs run.
  monkeypatch.setattr(steps.jax, 'default_backend', lambda: 'gpu')
  close(Bench(1).run_call(batches), unrolled)


def test_rows_of_resident_pictures_equal_the_batches():
  devices = 2
  whole = batch_of(count=20)
  order = np.random.default_rng(0).permutation(20).astype(np.int32)
  batches = [
    {k: v[rows] for k, v in whole.items()} for rows in (order[:8], order[8:16])
  ]
  expected = Bench(devices).run_call(batches)
  image = devices_lib.replicate(whole['image'], jax.devices()[:devices])
  found = Bench(devices).run_call(batches, {'image': image})
  close(found, expected, rtol=1e-6)


def test_a_step_is_traced_once():
  bench = Bench(2)
  bench.run(*[batch_of(seed=seed) for seed in range(3)])
  assert bench.traces == 1


def test_unknown_labels_and_padding_teach_nothing():
  batch = batch_of()
  batch['gender'][:4] = schema.UNKNOWN
  batch['mask'][6:] = 0
  other = {key: value.copy() for key, value in batch.items()}
  other['age'][6:] = 3.0
  other['gender'][6:] = 1 - other['gender'][6:]
  # Batch norm sees every picture of a batch, so this net is without it.
  plain = 'conv:4 pool'
  left, report = Bench(1, plain).run(batch)
  right, _ = Bench(1, plain).run(other)
  close(left.params, right.params, rtol=0, atol=0)
  assert report['gender_accuracy'][1][0] == 2
  assert report['age_mae'][1][0] == 6


def test_no_known_label_at_all_changes_no_branch():
  batch = batch_of()
  batch['gender'][:] = schema.UNKNOWN
  bench = Bench(1)
  before = np.asarray(bench.state.params['branch_gender']['logits']['kernel'])
  after, report = bench.run(batch)
  np.testing.assert_array_equal(
    before, after.params['branch_gender']['logits']['kernel']
  )
  assert report['gender_loss'][0][0] == 0 and np.isfinite(report['loss'][0][0])


def test_weighted_loss_is_the_seeds_sum():
  config = config_lib.default_config()
  config.tasks.age.weight, config.tasks.gender.weight = 0.1, 500.0
  both = tasks.create_tasks(config.tasks, 'adience')
  logits = {'age': jnp.array([[3.0], [5.0]]), 'gender': jnp.zeros((2, 1))}
  batch = {
    'age': jnp.array([1.0, 1.0]),
    'gender': jnp.array([1, 0]),
    'mask': jnp.ones(2),
    'known': jnp.array([2.0, 0, 2, 0, 0]),
  }
  total, parts = steps.weighted_loss(both, logits, batch)
  assert float(parts['age']) == pytest.approx((4 + 16) / 2)
  assert float(total) == pytest.approx(0.1 * 10 + 500 * np.log(2), rel=1e-6)


def test_predict_step_ignores_the_rest_of_the_batch():
  config = config_lib.default_config()
  config.model.layers, config.model.branch = 'conv:4 norm pool', 'gap'
  run_tasks = tasks.create_tasks(config.tasks, 'adience')
  model = models.create_model(
    config.model, {task.name: task.num_outputs for task in run_tasks}
  )
  image = batch_of()['image']
  variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), False)
  step = predictor.create_predict_step(
    model, run_tasks, preprocessing.create_normalize('unit')
  )
  whole, part = step(variables, image), step(variables, image[3:4])
  np.testing.assert_allclose(whole['age'][3:4], part['age'], rtol=1e-5)
  assert ((whole['gender_prob'] > 0) & (whole['gender_prob'] < 1)).all()


def test_frozen_parameters_and_statistics_stay_bit_identical():
  bench = Bench(1, freeze='backbone')
  before = jax.tree.map(np.asarray, bench.state)
  after, _ = bench.run(*[batch_of(seed=seed) for seed in range(5)] * 20)
  close(after.params['backbone'], before.params['backbone'], 0, 0)
  close(after.batch_stats, before.batch_stats, 0, 0)
  moved = np.abs(
    after.params['branch_age']['logits']['kernel']
    - before.params['branch_age']['logits']['kernel']
  )
  assert moved.max() > 0
  held = jax.tree_util.tree_flatten_with_path(after.opt_state)[0]
  held = ' '.join(str(path) for path, _ in held)
  assert 'branch_age/logits/kernel' in held and 'backbone' not in held


def test_frozen_batch_norm_uses_its_stored_statistics():
  bench = Bench(1, freeze='backbone')
  shifted = jax.tree.map(lambda x: x + 3.0, bench.state.batch_stats)
  plain = bench.run(batch_of())[1]
  bench = Bench(1, freeze='backbone')
  bench.state = bench.state.replace(batch_stats=shifted)
  other = bench.run(batch_of())[1]
  assert abs(plain['loss'][0] - other['loss'][0]) > 1e-3


@pytest.mark.parametrize(
  'fields',
  [
    {'name': 'adam', 'clip_norm': 0.5},
    {'name': 'adamw', 'weight_decay': 0.3},
    {'name': 'sgd', 'weight_decay': 0.3, 'lr_multipliers': 'a=0.1'},
  ],
  ids=lambda fields: fields['name'],
)
def test_an_update_is_optax_of_the_parameters(fields):
  config = config_lib.default_config().optimizer
  config.update(fields)
  optimizer = optimizers.create_optimizer(config, lambda count: 0.1 / (1 + count))
  random = np.random.default_rng(0)
  shapes = {'a/kernel': (2, 3), 'a/bias': (3,), 'b/kernel': (2,), 'b/scale': ()}
  first, gradients = (
    {path: jnp.array(random.normal(size=shape)) for path, shape in shapes.items()}
    for _ in range(2)
  )

  def plain(optimizer, gradients, opt_state, params):
    changes, opt_state = optimizer.update(gradients, opt_state, params)
    return optax.apply_updates(params, changes), opt_state

  def after_three(update):
    params, opt_state = first, optimizer.init(first)
    for _ in range(3):
      params, opt_state = update(optimizer, gradients, opt_state, params)
    return params, opt_state

  found, wanted = (
    jax.jit(after_three, static_argnums=0)(update) for update in (steps._update, plain)
  )
  close(found, wanted, 1e-6, 1e-7)
  assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, wanted)
