import contextlib
import dataclasses
import functools
import os
import pathlib
import subprocess
import sys

import faces_on_disk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, models, schema
from agegender_jax.data import pipeline
from agegender_jax.data import source as source_lib
from agegender_jax.inference import predictor
from agegender_jax.models import parameter_groups, preprocessing, tasks
from agegender_jax.runtime import devices as devices_lib
from agegender_jax.training import augment, optimizers, steps, trainer

SIZE, BATCH = 16, 8
FLIP = augment.Strengths(flip=True)


def batch_of(count=BATCH, seed=0):
  random = np.random.default_rng(seed)
  shape = (count, SIZE, SIZE, 3)
  age = random.integers(1, 80, count).astype(np.float32)
  return {
    'image': random.integers(0, 256, shape, dtype=np.uint8),
    'age': age,
    'age_group': schema.group_of_interval(age, age, 'adience'),
    'gender': random.integers(0, 2, count).astype(np.int32),
    'age_low': age.astype(np.int32),
    'age_high': age.astype(np.int32),
    'mask': np.ones(count, np.float32),
    'row': np.arange(count, dtype=np.int32),
  }


@dataclasses.dataclass
class Bench:
  """A small network with its step on a number of devices."""

  devices: int
  layers: str = 'conv:4 norm pool'
  strengths: augment.Strengths = FLIP
  freeze: str = ''
  optimizer: optax.GradientTransformation | None = None
  skips_nonfinite: bool = False
  branch: str = 'flatten dense:8'
  mixup: float = 0.0
  model: dict = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    config = config_lib.default_config()
    config.model.layers = self.layers
    config.model.branch = self.branch
    config.model.update(self.model)
    self.tasks = tasks.create_tasks(config.tasks, 'adience')
    outputs = {task.name: task.num_outputs for task in self.tasks}
    is_frozen = parameter_groups.create_is_frozen(self.freeze)
    model = models.create_model(config.model, outputs, devices_lib.AXIS, is_frozen)
    self.model = model
    optimizer = self.optimizer or optimizers.create_optimizer(
      config.optimizer, lambda _: 0.01
    )
    self.traces = 0
    step = steps.create_train_step(
      model,
      optimizer,
      self.tasks,
      augment.create_augment(self.strengths),
      preprocessing.create_normalize('unit'),
      is_frozen,
      skips_nonfinite=self.skips_nonfinite,
      mixup=self.mixup,
    )

    def counted(*args):
      self.traces += 1
      return step(*args)

    devices = jax.devices()[: self.devices]
    self.call = jax.pmap(
      steps.create_train_steps(counted),
      devices_lib.AXIS,
      in_axes=(None, None, 0, None),
      out_axes=None,
      devices=devices,
    )
    first = steps.create_state(model, optimizer, SIZE, 0, is_frozen)
    self.state = devices_lib.replicate(first, devices)

  def run(self, *batches):
    for batch in batches:
      state, report = self.run_call([batch])
    return state, jax.tree.map(lambda x: x[0], report)

  def run_call(self, batches, images=None):
    whole = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
    batch = {
      key: value.reshape((len(batches), self.devices, -1) + value.shape[1:])
      for key, value in whole.items()
    }
    batch = {key: value.swapaxes(0, 1) for key, value in batch.items()}
    known = pipeline.count_known(whole, len(batches))
    batch['known'] = np.stack([known] * self.devices)
    if images is not None:
      del batch['image']
    self.state, self.report = self.call(self.state, images, batch, jax.random.key(0))
    return jax.tree.map(np.asarray, (self.state, self.report))


def close(left, right, rtol=2e-4, atol=1e-5):
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
  close(two.params, one.params)
  close(two.batch_stats, one.batch_stats)
  close(report_two, report_one, rtol=1e-4)


_DROPPED = 'conv:8 pool drop:0.25'


def losses_of(devices):
  """Returns the losses of 20 steps with all that is random on a number of devices."""
  bench = Bench(
    devices,
    _DROPPED,
    augment.Strengths(flip=True, grey=0.5, blur=0.5, downscale=0.5, jpeg=0.5),
    branch='flatten dense:16 drop:0.5',
    mixup=0.5,
  )
  reports = [bench.run(batch_of(16, seed))[1] for seed in range(20)]
  return np.array([report['loss'][0] for report in reports])


def test_eight_devices_equal_two_and_one_with_dropout():
  # Another number of devices wants another process.
  # Two rows per device: mixup's partners.
  code = 'import test_steps; print(*test_steps.losses_of(8))'
  eight = subprocess.run(
    [sys.executable, '-c', code],
    env=os.environ
    | {
      'PYTHONPATH': os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path]),
      'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
    },
    capture_output=True,
    text=True,
    check=True,
  )
  one = losses_of(1)
  np.testing.assert_allclose(losses_of(2), one, rtol=1e-5)
  found = [float(word) for word in eight.stdout.split()]
  np.testing.assert_allclose(found, one, rtol=1e-5)


def test_mixup_mixes_neighbours_and_their_losses():
  batch = batch_of(4)
  batch['gender'][1] = schema.UNKNOWN
  batch['mask'][3] = 0
  off = augment.Strengths()
  bench = Bench(1, 'conv:4 pool', off, mixup=0.4, optimizer=optax.sgd(0.0))
  _, report = bench.run(batch)
  key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 2)
  share = np.asarray(steps.draw_shares(key, 0.4, jnp.arange(4)))
  assert share[0] == share[1] != share[2] == share[3] and (share >= 0.5).all()
  image, other = batch['image'] / 255.0, [1, 0, 3, 2]
  own = share[:, None, None, None]
  mixed = own * image + (1 - own) * image[other]
  logits = bench.model.apply(
    {'params': bench.state.params}, mixed.astype(np.float32), train=False
  )
  error = np.square(np.asarray(logits['age']) - batch['age'][None])  # [image, label].
  rows, weights = np.arange(4), batch['mask']
  expected = (
    share * weights * error[rows, rows]
    + (1 - share) * weights[other] * error[rows, other]
  ).sum() / 3
  assert report['age_loss'][0] == pytest.approx(expected, rel=1e-4)
  z = np.asarray(logits['gender'])[:, 0]
  entropy = np.log1p(np.exp(z))[:, None] - z[:, None] * batch['gender'][None]
  weights = batch['mask'] * (batch['gender'] >= 0)
  expected = (
    share * weights * entropy[rows, rows]
    + (1 - share) * weights[other] * entropy[rows, other]
  ).sum() / 2
  assert report['gender_loss'][0] == pytest.approx(expected, rel=1e-4)


def test_mixup_needs_pairs_on_each_device(tmp_path):
  config = config_lib.default_config()
  config.train.mixup, config.train.batch_size = 0.2, 3 * jax.device_count()
  with pytest.raises(errors.UserError, match=r'train\.mixup needs an even batch'):
    trainer.Trainer(config, str(tmp_path))


def test_replicas_stay_equal():
  # A psum left out would raise nothing: each device would go its own way.
  bench = Bench(2)
  bench.run(batch_of(seed=1), batch_of(seed=2))
  for leaf in jax.tree.leaves((bench.state, bench.report)):
    first, second = (np.asarray(shard.data) for shard in leaf.addressable_shards)
    assert first.shape == leaf.shape
    np.testing.assert_array_equal(first, second)


def test_several_steps_in_a_call_equal_as_many_calls():
  devices = 2
  batches = [batch_of(seed=seed) for seed in range(3)]
  one_by_one, last = Bench(devices).run(*batches)
  at_once, report = Bench(devices).run_call(batches)
  close(at_once, one_by_one)
  close(jax.tree.map(lambda x: x[-1], report), last)
  assert report['loss'].shape == (3, 2)


def test_a_loop_of_steps_equals_them_unrolled(monkeypatch):
  batches = [batch_of(seed=seed) for seed in range(2)]
  unrolled = Bench(1).run_call(batches)
  # What other devices than CPUs run.
  monkeypatch.setattr(steps.jax, 'default_backend', lambda: 'gpu')
  close(Bench(1).run_call(batches), unrolled)


def test_rows_of_resident_images_equal_the_batches():
  devices = 2
  whole = batch_of(count=20)
  order = np.random.default_rng(0).permutation(20).astype(np.int32)
  batches = [
    {k: v[rows] for k, v in whole.items()} for rows in (order[:8], order[8:16])
  ]
  expected = Bench(devices).run_call(batches)
  image = devices_lib.replicate(whole['image'], jax.devices()[:devices])
  found = Bench(devices).run_call(batches, image)
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
  # Batch norm sees every image of a batch, so this net is without it.
  plain = 'conv:4 pool'
  left, report = Bench(1, plain).run(batch)
  right, _ = Bench(1, plain).run(other)
  close(left.params, right.params, rtol=0, atol=0)
  assert report['gender_accuracy'][1] == 2
  assert report['age_mae'][1] == 6


def test_no_known_label_at_all_changes_no_branch():
  batch = batch_of()
  batch['gender'][:] = schema.UNKNOWN
  bench = Bench(1)
  before = np.asarray(bench.state.params['branch_gender']['logits']['kernel'])
  after, report = bench.run(batch)
  np.testing.assert_array_equal(
    before, after.params['branch_gender']['logits']['kernel']
  )
  assert report['gender_loss'][0] == 0 and np.isfinite(report['loss'][0])


def test_weighted_loss_is_the_reports_sum():
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
  config.data.image_size = 16
  network = predictor.Network(config)
  image = batch_of()['image']
  variables = models.init_variables(network.model, jax.random.key(0), 16)
  step = functools.partial(network.predict_step, variables)
  whole, part = step(image), step(image[3:4])
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


def test_an_optimizer_sees_parameters_in_their_own_shapes():
  # adafactor factors the moments of matrices; the mask goes by the axes.
  def matrices(params):
    return {path: leaf.ndim == 2 for path, leaf in params.items()}

  chain = optax.chain(
    optax.adafactor(0.01, min_dim_size_to_factor=4),
    optax.add_decayed_weights(0.1, matrices),
  )
  plain = {'layers': 'conv:4 pool', 'devices': 1}
  bench = Bench(**plain, optimizer=optax.sgd(1.0))
  first = {
    path: np.asarray(leaf)
    for path, leaf in parameter_groups.flatten(bench.state.params).items()
  }
  after = parameter_groups.flatten(bench.run(batch_of())[0].params)
  gradients = {path: first[path] - after[path] for path in first}
  changes, _ = chain.update(gradients, chain.init(first), first)
  expected = optax.apply_updates(first, changes)
  state, _ = Bench(**plain, optimizer=chain).run(batch_of())
  found = parameter_groups.flatten(state.params)
  # What is subtracted above is rounded as parameters are.
  close(found, expected, 1e-3, 1e-5)
  sizes = {leaf.shape for leaf in jax.tree.leaves(state.opt_state)}
  assert (8,) in sizes and (256,) in sizes  # Factored: of [256, 8] only these.
  assert (256, 8) not in sizes


def look(state, batch, key):
  """A train step that reports what all devices are given."""
  shards = jax.lax.all_gather(batch, devices_lib.AXIS)
  return state.replace(step=state.step + 1), shards


def test_an_average_is_of_the_weights_that_train():
  plain = {'devices': 1, 'layers': 'conv:4 pool'}
  batches = [batch_of(seed=seed) for seed in range(2)]
  first = Bench(**plain, optimizer=optax.sgd(1e-3)).run(batches[0])[0]
  second = Bench(**plain, optimizer=optax.sgd(1e-3)).run(*batches)[0]
  chain = optimizers.with_average(optax.sgd(1e-3), decay=0.9)
  state, _ = Bench(**plain, optimizer=chain).run(*batches)
  close(state.opt_state.live, parameter_groups.flatten(second.params))
  # Shares 1 - 1 / 10 and 1 - 2 / 11; the first average has a tenth of the start.
  begin = Bench(**plain, optimizer=optax.sgd(1e-3)).state.params
  average = jax.tree.map(
    lambda x, y: 0.1 * np.asarray(x) + 0.9 * y, begin, first.params
  )
  expected = jax.tree.map(lambda x, y: (2 * x + 9 * y) / 11, average, second.params)
  close(state.params, expected)


@pytest.mark.parametrize('cache', source_lib.CACHES)
@pytest.mark.parametrize('start', [0, 5])
def test_every_step_finds_its_examples(tmp_path, cache, start):
  source = faces_on_disk.open_source(
    'synthetic', 'train', data_dir=str(tmp_path), synthetic_examples=40, image_size=8
  )  # fmt: skip
  calls = [range(s, s + 3) for s in range(start, 15 + start, 3)]
  calls.append(range(calls[-1].stop, calls[-1].stop + 1))
  compiled = devices_lib.pmap_train_steps(steps.create_train_steps(look))
  state = devices_lib.replicate(steps.TrainState(np.int32(start), {}, {}, ()))
  resident = cache == 'device'
  images = (
    devices_lib.replicate(source.gather(np.arange(len(source)))) if resident else None
  )
  order = pipeline.Order(len(source), 4, 3)
  found = []
  it = pipeline.train_batches(source, order, calls, with_images=not resident)
  with contextlib.closing(it):
    for call, batch in zip(calls, it, strict=True):
      shards = devices_lib.shard_steps(batch, len(call))
      state, report = compiled(state, images, shards, jax.random.key(0))
      found += [{k: v[i] for k, v in report.items()} for i in range(len(call))]
  assert len(found) == 16
  for step, shards in enumerate(found, start):
    whole = pipeline.make_batch(source, order.rows(range(step, step + 1)))
    known = [(whole[name] != schema.UNKNOWN).sum() for name in schema.LABELS]
    np.testing.assert_array_equal(shards.pop('known'), [known] * jax.device_count())
    assert shards.keys() == whole.keys()
    for key, values in whole.items():
      np.testing.assert_array_equal(devices_lib.unshard(shards[key]), values)
      assert shards[key].dtype == values.dtype


def metric_batch(**columns):
  result = {
    'age': jnp.array([10.0, 20, -1, 40]),
    'age_group': jnp.array([2, -1, 4, 5]),
    'gender': jnp.array([0, 1, 1, -1]),
    'mask': jnp.array([1.0, 1, 1, 0]),
  }
  return {**result, **columns}


def sums_of(logits, batch, **kinds):
  config = config_lib.default_config()
  for name in ('age', 'gender'):
    config.tasks[name].kind = kinds.get(name, '')
  found = tasks.create_tasks(config.tasks, 'adience')
  result = steps.batch_sums(found, logits, batch)
  return {key: tuple(map(float, pair)) for key, pair in result.items()}


def test_sums_count_known_labels_of_unpadded_rows():
  logits = {
    'age': jnp.array([[13.0], [18.0], [50.0], [0.0]]),
    'gender': jnp.array([[-2.0], [-1.0], [3.0], [1.0]]),
  }
  found = sums_of(logits, metric_batch(), age='mse', gender='binary')
  # The third age is unknown, the fourth row is padding.
  assert found['age_mae'] == (3 + 2, 2)
  assert found['gender_accuracy'] == (2, 3)


def test_sums_of_age_groups_count_hits():
  rows = jnp.array([2, 3, 1, 5])
  logits = {'age': jnp.eye(8)[rows]}
  found = sums_of(logits, metric_batch(), age='group')
  assert found == {'age_group_accuracy': (1, 2)}


def test_sums_without_any_label_are_zero():
  unknown = metric_batch(gender=jnp.full(4, -1))
  logits = {'gender': jnp.ones((4, 1))}
  assert sums_of(logits, unknown, gender='binary') == {'gender_accuracy': (0, 0)}


def test_a_step_that_is_not_finite_changes_nothing_but_the_step():
  bench = Bench(2, skips_nonfinite=True)
  before, report = bench.run(batch_of())
  assert report['skipped'].tolist() == [0, 1]
  bad = batch_of(seed=1)
  bad['age'][0] = np.nan
  after, report = bench.run(bad)
  assert report['skipped'].tolist() == [1, 1]
  assert not report['loss'].any() and not report['age_mae'].any()
  assert after.step == 2
  jax.tree.map(
    np.testing.assert_array_equal,
    (after.variables, after.opt_state),
    (before.variables, before.opt_state),
  )
  _good, report = bench.run(batch_of(seed=2))
  assert report['skipped'][0] == 0 and np.isfinite(report['loss'][0]).all()
