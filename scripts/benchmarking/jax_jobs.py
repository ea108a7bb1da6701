"""What a worker process times of ours: steps, predictions, input."""

import collections
import itertools
import time
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview

from agegender_jax import models
from agegender_jax.data import pipeline
from agegender_jax.evaluation import labelled
from agegender_jax.inference import predictor
from agegender_jax.models import flops, layers
from agegender_jax.runtime import devices, process
from agegender_jax.training import augment, logging, trainer
from benchmarking import made_up, profiles

CHANNELS = 64  # Of a convolution on its own, in and out.
PICTURES = 4000  # Of an epoch, for schedules that count in epochs.
_PROFILED_STEPS = 3
_LONGEST = 10**6  # Batches that the input is timed over, at most.


def place_call(batch: dict[str, np.ndarray], num_steps: int) -> dict:
  """Puts a batch on the devices, to be all batches of a call."""
  batch = {key: np.concatenate([value] * num_steps) for key, value in batch.items()}
  batch['known'] = pipeline.count_known(batch, num_steps)
  return devices.place(devices.shard_steps(batch, num_steps))


class _Job:
  """What all jobs say of themselves."""

  def __init__(self, task: dict, config):
    layers.set_formulation(task.get('formulation'))
    process.divide_cpu(config.train.cpu_devices)
    process.exclude_nondeterminism()
    device = jax.devices()[0]
    self.config = config
    self.facts = {
      'peer': 'ours',
      'formulation': layers.formulation(),
      'platform': device.platform,
      'device_kind': device.device_kind,
      'devices': jax.device_count(),
      'versions': {name: metadata.version(name) for name in ('jax', 'jaxlib', 'flax')},
      'images': config.train.batch_size,
    }

  def device_memory(self) -> float | None:
    """Returns the first device's peak in GiB, None on CPU."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    peak = statistics.get('peak_bytes_in_use')
    return None if peak is None else peak / 2**30


class Step(_Job):
  """The train step on a batch that is on the devices."""

  def __init__(self, task, config):
    super().__init__(task, config)
    devices.check_batch_size('train.batch_size', config.train.batch_size)
    network = predictor.Predictor(config)
    run = trainer.create_run(config, network, PICTURES)
    self.state = devices.replicate(run.state)
    batch = task.get('batch') or made_up.create_batch(config)
    self.steps = config.train.steps_per_call
    key = devices.share(jax.random.key(0))
    self.rest = None, place_call(batch, self.steps), key
    start = time.perf_counter()
    self.call = run.train_steps.lower(self.state, *self.rest).compile()
    seconds = time.perf_counter() - start
    cost = self.call.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    images = config.train.batch_size * self.steps / jax.device_count()
    table = flops.layer_table(network.model, network.input_size, network.is_frozen)
    self.facts |= {
      'compile_seconds': seconds,
      'parameters': int(parameter_overview.count_parameters(run.state.params)),
      'flops_per_image': sum(row['train_flops'] for row in table),
      # By XLA's count, of what it reads and writes between its fusions.
      'bytes_per_image': cost.get('bytes accessed', 0) / images or None,
    }

  def take_steps(self) -> dict:
    """Takes the steps of a call and returns their metrics, not waited for."""
    self.state, report = self.call(self.state, *self.rest)
    return report

  def run(self, count: int) -> float:
    """Returns seconds a step, over `count` steps or the next whole call."""
    in_flight = collections.deque()
    calls = -(-count // self.steps)
    start = time.perf_counter()
    for _ in range(calls):
      in_flight.append(self.take_steps())
      if len(in_flight) > logging.CALLS_IN_FLIGHT:
        jax.block_until_ready(in_flight.popleft())
    jax.block_until_ready(self.state)
    return (time.perf_counter() - start) / (calls * self.steps)


class Profile(Step):
  """A step whose time is told by operation and by layer."""

  def __init__(self, task, config):
    super().__init__(task, config)
    self.run(_PROFILED_STEPS)  # The first ones fetch memory.
    start = time.process_time()
    seconds = self.run(_PROFILED_STEPS) * _PROFILED_STEPS
    self.facts['busy_cores'] = (time.process_time() - start) / seconds
    self.facts |= profiles.record(self.run, _PROFILED_STEPS, self.call.as_text())


class Predict(_Job):
  """The predictor, logits and decoded values brought to the host."""

  def __init__(self, task, config):
    super().__init__(task, config)
    self.network = predictor.Predictor(config)
    run = trainer.create_run(config, self.network, PICTURES)
    self.variables = devices.replicate(run.state.variables)
    self.batch = made_up.create_batch(config)
    start = time.perf_counter()
    self.run(1)
    table = flops.layer_table(self.network.model, self.network.input_size)
    self.facts |= {
      'compile_seconds': time.perf_counter() - start,
      'parameters': int(parameter_overview.count_parameters(run.state.params)),
      'flops_per_image': sum(row['flops'] for row in table),
    }

  def run(self, count: int) -> float:
    """Returns seconds a batch, over `count` batches."""
    start = time.perf_counter()
    self.network.predict_all(self.variables, [self.batch] * count)
    return (time.perf_counter() - start) / count


class Convolution(_Job):
  """A convolution layer, 64 to 64 channels: its output and both gradients."""

  def __init__(self, task, config):
    super().__init__(task, config)
    side, kernel = config.data.image_size, task['kernel']
    conv = models.CONVS[config.model.conv](
      CHANNELS, (kernel, kernel), dtype=models.DTYPES[config.model.dtype]
    )
    shape = (config.train.batch_size, side, side, CHANNELS)
    self.image = jax.random.normal(jax.random.key(0), shape)
    self.variables = conv.init(jax.random.key(1), self.image[:1])

    def loss(variables, image):
      return jnp.square(conv.apply(variables, image)).sum()

    self.compute = jax.jit(jax.grad(loss, argnums=(0, 1)))
    self.facts['flops_per_image'] = 3 * 2 * (side * kernel * CHANNELS) ** 2

  def run(self, count: int) -> float:
    """Returns seconds a batch, over `count` batches."""
    start = time.perf_counter()
    for _ in range(count):
      jax.block_until_ready(self.compute(self.variables, self.image))
    return (time.perf_counter() - start) / count


class Input(_Job):
  """A stage of the way from the data set to the network's input."""

  def __init__(self, task, config):
    super().__init__(task, config)
    self.call = getattr(self, f'create_{task["stage"]}')()

  def create_gather(self):
    """Returns a function that gathers a random batch's pictures."""
    source = self._open_split()
    order = pipeline.Order(len(source), self.config.train.batch_size, 0)
    steps = itertools.count()

    def call():
      step = next(steps)
      return source.gather(order.rows(range(step, step + 1)))

    return call

  def create_feed(self):
    """Returns a function that takes what a step needs, as training does."""
    batches = self._open_batches()
    return lambda: devices.shard_steps(next(batches), 1)

  def _open_split(self):
    return labelled.open_split(self.config, self.config.data.train_split)

  def _open_batches(self):
    source = self._open_split()
    order = pipeline.Order(len(source), self.config.train.batch_size, 0)
    calls = [range(step, step + 1) for step in range(_LONGEST)]
    return pipeline.train_batches(source, order, calls)

  def create_shard(self):
    """Returns a function that hands a batch to the devices, as a step does."""
    with self._open_batches() as batches:
      batch = devices.shard_steps(next(batches), 1)

    # It looks at each array, JAX hands over no others, and returns one: each
    # more would cost as well.
    def look(state, images, batch, key):
      arrays = jax.tree.leaves(batch)
      return state, jnp.stack([x.ravel()[0].astype(jnp.float32) for x in arrays])

    compiled = devices.pmap_train_steps(look)
    key = devices.share(jax.random.key(0))
    return lambda: compiled({}, None, batch, key)[1]

  def create_augment(self):
    """Returns a function that augments and normalises on one device."""
    network = predictor.Predictor(self.config)
    augment_fn = augment.create_augment(
      augment.create_strengths(self.config.data), self.config.data.crop_size
    )
    image = jnp.asarray(made_up.create_batch(self.config)['image'])
    keys = jax.random.split(jax.random.key(0), len(image))

    @jax.jit
    def compute(keys, image):
      return network.normalize_fn(augment_fn(keys, image))

    return lambda: compute(keys, image).block_until_ready()

  def run(self, count: int) -> float:
    """Returns seconds a batch until the call returns, over `count` batches."""
    seconds = 0.0
    for _ in range(count):
      start = time.perf_counter()
      result = self.call()
      seconds += time.perf_counter() - start
      jax.block_until_ready(result)
    return seconds / count


JOBS = {
  'step': Step,
  'profile': Profile,
  'predict': Predict,
  'convolution': Convolution,
  'input': Input,
}
