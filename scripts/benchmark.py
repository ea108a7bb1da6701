r"""Times a recipe: its step or its whole run.

python scripts/benchmark.py --measure=step --peer=torch \
  --config=configs/utk_multibranch.py --output=runs/benchmark/multibranch

What is compared runs in processes of its own, alternating round by round; a
ratio is taken within each round. Images are noise, but for `run`, which takes the
recipe's data. Prints Markdown; --output also keeps it, with the
numbers as JSON. Use an idle machine: a load misleads, and so do single rounds.
docs/performance.md has the tables.
"""

import dataclasses
import pathlib
import sys
import tempfile

from absl import app, flags
from benchmarking import runs, tables, worker
from ml_collections import config_flags

from agegender_jax import config as config_lib
from agegender_jax import errors, files
from agegender_jax.training import augment

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Recipe, configs/NAME.py[:key=value,...].', lock_config=True
)
_PEER = flags.DEFINE_enum('peer', '', ['', 'torch'], 'For step: time it too.')
_MALLOC = flags.DEFINE_list(
  'malloc',
  list(worker.MALLOCS),
  "glibc's allocator, tuned or stock. `step` compares them on a CPU; `run` takes the "
  'first.',
)
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Turns of each.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 5, 'Calls per turn.', lower_bound=1)
_WARMUP = flags.DEFINE_integer(
  'warmup', 3, 'Calls before the first turn.', lower_bound=0
)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder to keep the results in.')


def without_augmentation(config):
  """Returns a copy whose network sees the images as they are, as a peer does."""
  result = config.copy_and_resolve_references()
  result.data.update(dataclasses.asdict(augment.Strengths()))
  result.data.oversample, result.train.mixup = False, 0.0
  result.data.image_size = config.data.crop_size or config.data.image_size
  result.data.crop_size = 0
  return result


def check_parameters(workers) -> None:
  """Raises errors.UserError unless all networks have as many parameters."""
  counts = {worker.name: worker.facts['parameters'] for worker in workers}
  if len(set(counts.values())) != 1:
    raise errors.UserError(f'these are not the same network: {counts}')


class Bench:
  """Starts the processes of a measurement; each method is a `--measure`."""

  def __init__(self, config, folder: str):
    """Keeps the recipe's configuration; `folder` holds what processes read."""
    self.config, self.folder = config, pathlib.Path(folder)
    self.device, self.versions, self._count = '', {}, 0

  def start(self, module: str, config, malloc: str = '') -> worker.Worker:
    """Starts a process that takes train steps; see worker.create_job.

    Args:
      module: jax or torch.
      config: what it runs.
      malloc: one of worker.MALLOCS; --malloc's first by default.
    """
    self._count += 1
    folder = self.folder / str(self._count)
    config_lib.save_config(config, str(folder))
    malloc = malloc or _MALLOC.value[0]
    task = {
      'module': f'{module}_step',
      'config': str(folder),
      'malloc': malloc,
      'warmup': _WARMUP.value,
    }
    name = {'jax': 'this package', 'torch': 'PyTorch'}[module]
    # Without a cache, so that the seconds of compiling are real.
    result = worker.Worker(
      f'{name}, {malloc} allocator', task, JAX_ENABLE_COMPILATION_CACHE='false'
    )
    self.device = result.facts.pop('device')
    self.versions |= result.facts.pop('versions')
    return result

  def start_with_peer(self, config, malloc: str) -> list[worker.Worker]:
    """Starts the step and, where --peer asks for it, the peer's."""
    workers = [self.start('jax', config, malloc)]
    if _PEER.value:
      workers.append(self.start(_PEER.value, config, malloc))
      check_parameters(workers)
      workers[1].facts['flops_per_image'] = workers[0].facts['flops_per_image']
    return workers

  def alternate(self, workers) -> None:
    """Lets workers take their turns."""
    worker.alternate(workers, _ROUNDS.value, _STEPS.value)

  def step(self) -> dict:
    """Times the train step: allocators and the peer."""
    config = without_augmentation(self.config)
    pairs = [self.start_with_peer(config, _MALLOC.value[0])]
    if pairs[0][0].facts['platform'] == 'cpu':  # The allocator is the host's.
      pairs += [self.start_with_peer(config, m) for m in _MALLOC.value[1:]]
    workers = [worker for pair in pairs for worker in pair]
    self.alternate(workers)
    # Both with an allocator; and the first beside all others as they come.
    ratios = [pair for pair in pairs if len(pair) == 2]
    ratios += [[pairs[0][0], other] for pair in pairs[1:] for other in pair]
    return {
      'rows': [tables.create_row(worker, config) for worker in workers],
      'ratios': [tables.create_ratio(*pair) for pair in ratios],
    }

  def run(self) -> dict:
    """Times training from the command line beside its step alone."""
    step = self.start('jax', self.config)
    step.name = 'step alone'
    whole = runs.WholeRun('whole run', self.config, _MALLOC.value[0])
    self.alternate([whole, step])
    return {
      'rows': [tables.create_row(worker, self.config) for worker in (whole, step)],
      'ratios': [tables.create_ratio(whole, step)],
    }


_MEASURES = {'step': Bench.step, 'run': Bench.run}
_MEASURE = flags.DEFINE_enum('measure', 'step', list(_MEASURES), 'What to time.')


def _check_flags() -> None:
  """Raises errors.UserError for what is wrong with the flags."""
  if set(_MALLOC.value) - set(worker.MALLOCS):
    raise errors.UserError(f'--malloc is some of {", ".join(worker.MALLOCS)}')
  if _CONFIG.value is None:
    raise errors.UserError('--config=configs/NAME.py is needed')
  try:
    config_lib.check_values(_CONFIG.value)
  except OSError:  # A missing file shows only now.
    name = config_flags.get_config_filename(flags.FLAGS['config'])
    raise errors.UserError(f'--config={name}: no such recipe; see configs/') from None


def _run(machine: dict) -> None:
  """Measures, prints and keeps."""
  _check_flags()
  with tempfile.TemporaryDirectory() as folder:
    bench = Bench(_CONFIG.value, folder)
    result = _MEASURES[_MEASURE.value](bench)
  machine['device'] = bench.device
  machine['versions'] |= bench.versions
  result = {'measure': _MEASURE.value, 'machine': machine, **result}
  text = tables.describe(machine, tables.to_markdown(result))
  print(text)
  if _OUTPUT.value:
    folder = pathlib.Path(_OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_whole(folder / 'benchmark.md', text)
    files.write_json(folder / 'benchmark.json', result)


def main(argv) -> None:
  """Measures; what the user can fix is one line and status 2."""
  try:
    if argv[1:]:
      raise errors.UserError(f'unexpected argument "{argv[1]}"')
    _run(tables.describe_machine())
  except (errors.UserError, worker.WorkerDiedError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2 if isinstance(error, errors.UserError) else 1)


if __name__ == '__main__':
  app.run(main)
