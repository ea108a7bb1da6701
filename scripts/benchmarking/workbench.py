"""Starts the processes of a measurement, of one recipe and its peer."""

import dataclasses
import os
import pathlib
import statistics

from agegender_jax import config as config_lib
from agegender_jax.runtime import process
from benchmarking import rounds

_STRENGTHS = (
  'rotation', 'zoom', 'shift', 'brightness', 'contrast', 'erase',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
  """The flags of `benchmark.py`, under their names."""

  peer: str = ''
  formulations: tuple[str, ...] = ('',)
  mallocs: tuple[str, ...] = ('tuned',)
  cpu_devices: tuple[str, ...] = ('',)
  augment: bool = False
  rounds: int = 1
  steps: int = 1
  warmup: int = 1
  batch_sizes: tuple[int, ...] = ()
  image_sizes: tuple[int, ...] = ()
  recipe_flags: tuple[str, ...] = ()


def copy_config(config, **fields):
  """Returns a copy with some fields, `block__field`, set."""
  result = config_lib.default_config()
  result.update(config.to_dict())
  for name, value in fields.items():
    block, _, field = name.partition('__')
    result[block][field] = value
  return result


def without_augmentation(config, **fields):
  """Returns a copy whose network sees the pictures as they are."""
  size = config.data.crop_size or config.data.image_size
  off = {f'data__{name}': 0.0 for name in _STRENGTHS}
  off |= {'data__flip': False, 'data__oversample': False}
  off |= {'data__crop_size': 0, 'data__image_size': size}
  return copy_config(config, **(off | fields))


class Workbench:
  """Starts the processes of a measurement and remembers where they ran.

  Attributes:
    config: the recipe's.
    options: see Options.
    device: of the network, in words.
    versions: name -> version of the libraries.
  """

  def __init__(self, config, options: Options, folder: str):
    """Keeps its arguments; `folder` holds what the processes read."""
    self.config, self.options = config, options
    self.device, self.versions = '', {}
    self._folder, self._count = pathlib.Path(folder), 0

  def start(self, peer: str, job: str, config, **task):
    """Starts a process; see worker.create_job.

    Args:
      peer: jax, torch or peak.
      job: key of that module's JOBS.
      config: what it runs.
      **task: what else the job reads; `malloc`, `cpu_devices`.

    Returns:
      A rounds.Worker, ready.
    """
    options = self.options
    self._count += 1
    folder = self._folder / str(self._count)
    config_lib.save_config(config, str(folder))
    task = {
      'module': f'{peer}_jobs',
      'job': job,
      'config': str(folder),
      'malloc': options.mallocs[0],
      'warmup': options.warmup,
      **task,
    }
    # So that the seconds of compiling are real.
    env = {'JAX_ENABLE_COMPILATION_CACHE': 'false'}
    if task['malloc'] == 'jemalloc':
      env |= process.jemalloc_environment()
    if task.get('cpu_devices'):
      count = task['cpu_devices']
      flag = f'--xla_force_host_platform_device_count={count}'
      env['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flag}'.strip()
    worker = rounds.Worker(peer, task, **env)
    facts = worker.facts
    self.device = f'{facts["devices"]} x {facts["device_kind"]}'
    self.versions |= facts.pop('versions')
    who = 'PyTorch' if peer == 'torch' else 'ours'
    worker.name = f'{who} {facts["formulation"]}, {task["malloc"]} allocator'
    if task.get('cpu_devices'):
      worker.name += f', {task["cpu_devices"]} CPU devices'
    return worker

  def start_peaks(self, config):
    """Starts what measures the machine's limits."""
    return self.start('peak', 'peaks', config, malloc='tuned', warmup=1)

  def measure_peaks(self) -> dict:
    """Returns the machine's limits, see `read_peaks`."""
    worker = self.start_peaks(self.config)
    self.alternate([worker])
    return read_peaks(worker)

  def alternate(self, workers) -> None:
    """Lets workers take their turns."""
    rounds.alternate(workers, self.options.rounds, self.options.steps)

  def start_both(self, job: str, config):
    """Starts ours and, where asked for, the peer's; checks their sizes."""
    workers = [self.start('jax', job, config)]
    if self.options.peer:
      try:
        workers.append(self.start(self.options.peer, job, config))
      except rounds.WorkerDied:
        workers[0].close()
        raise
      check_parameters(workers)
      workers[1].facts['flops_per_image'] = workers[0].facts['flops_per_image']
    return workers


def read_peaks(worker) -> dict:
  """Returns `matmul` in FLOP/s and `memory` in bytes/s, medians of rounds."""
  return {
    name: statistics.median(found[name] for found in worker.seconds)
    for name in ('matmul', 'memory')
  }


def check_parameters(workers) -> None:
  """Raises ValueError unless all networks have as many parameters."""
  counts = {worker.name: worker.facts['parameters'] for worker in workers}
  if len(set(counts.values())) != 1:
    raise ValueError(f'these are not the same network: {counts}')
