"""The job of a worker that runs this package's train step."""

import collections
import time
from importlib import metadata

import jax
import numpy as np
from clu import parameter_overview

from agegender_jax.data import pipeline
from agegender_jax.inference import predictor
from agegender_jax.models import flops
from agegender_jax.runtime import devices, process
from agegender_jax.training import logging, trainer
from benchmarking import noise

_EXAMPLES = 4000  # Per epoch, for schedules that count in epochs.


class Step:
  """The train step, on a batch of noise that is on the devices."""

  def __init__(self, config):
    backbone, sizes = config.model.backbone, [config.train.batch_size]
    count = process.choose_cpu_devices(backbone, sizes, process.num_cores())
    process.divide_cpu(config.train.cpu_devices or count)
    process.exclude_nondeterminism()
    device = jax.devices()[0]
    self.facts = {
      'platform': device.platform,
      'device': f'{jax.device_count()} x {device.device_kind}',
      'versions': {name: metadata.version(name) for name in ('jax', 'jaxlib', 'flax')},
      'images': config.train.batch_size,
    }
    devices.check_batch_size('train.batch_size', config.train.batch_size)
    network = predictor.Network(config)
    run = trainer.create_run(config, network, _EXAMPLES)
    self.state, self.steps = devices.replicate(run.state), config.train.steps_per_call
    batch = noise.create_batch(config)
    batch = {key: np.concatenate([value] * self.steps) for key, value in batch.items()}
    batch['known'] = pipeline.count_known(batch, self.steps)
    batch = devices.share(devices.shard_steps(batch, self.steps), devices.AXIS)
    self.rest = None, batch, devices.share(jax.random.key(0))
    start = time.perf_counter()
    self.compiled = run.train_steps.lower(self.state, *self.rest).compile()
    table = flops.layer_table(network.model, network.input_size, network.is_frozen)
    self.facts |= {
      'compile_seconds': time.perf_counter() - start,
      'parameters': int(parameter_overview.count_parameters(run.state.params)),
      'flops_per_image': sum(row['train_flops'] for row in table),
    }

  def call(self):
    """Takes the steps of a call and returns their report, not waited for."""
    self.state, report = self.compiled(self.state, *self.rest)
    return report

  def run(self, count: int) -> float:
    """Returns seconds per step, over `count` steps or the next whole call."""
    in_flight = collections.deque()
    calls = -(-count // self.steps)
    start = time.perf_counter()
    for _ in range(calls):
      in_flight.append(self.call())
      if len(in_flight) > logging.CALLS_IN_FLIGHT:
        jax.block_until_ready(in_flight.popleft())
    jax.block_until_ready(self.state)
    return (time.perf_counter() - start) / (calls * self.steps)

  def device_memory(self) -> float | None:
    """Returns the first device's peak in GiB, None on CPU."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    peak = statistics.get('peak_bytes_in_use')
    return None if peak is None else peak / 2**30
