"""Times a recipe's train step: our convolutions beside XLA's own, alternating.

python scripts/benchmark.py --config=configs/utk_multibranch.py --rounds=5

On made-up pictures, so no data are needed. Prints a Markdown table of medians
and the range of the ratio. Run it on an idle machine; single rounds mislead.
"""

import resource
import statistics
import time

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from agegender_jax import build, parallel, predictor, runtime, schema
from agegender_jax.models import layers

_CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Alternations.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 5, 'Steps a round.', lower_bound=1)

PICTURES = 4000  # Of an epoch, for schedules that count in epochs.


def create_batch(config) -> dict[str, np.ndarray]:
  """Makes up a batch as the input pipeline gives it."""
  random = np.random.default_rng(0)
  count, size = config.train.batch_size, config.data.image_size
  age = random.integers(1, 80, count).astype(np.float32)
  return {
    'image': random.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
    'age': age,
    'age_group': schema.group_of_label(age, config.data.age_groups),
    'gender': random.integers(0, 2, count).astype(np.int32),
    'mask': np.ones(count, np.float32),
    'row': np.arange(count, dtype=np.int32),
  }


class Bench:
  """A recipe's train step in one formulation of the convolutions."""

  def __init__(self, config, formulation: str):
    layers.set_formulation(formulation)
    run = build.create_run(config, predictor.Predictor(config), PICTURES)
    self.state = parallel.replicate(run.state)
    self.step = run.train_step
    self.batch = parallel.shard(create_batch(config))
    self.run(2)  # Compiles now, while its formulation is the one in force.

  def run(self, count: int) -> float:
    """Returns seconds a step, over `count` steps."""
    start = time.perf_counter()
    for _ in range(count):
      self.state, _ = self.step(self.state, self.batch, jax.random.key(0))
    jax.block_until_ready(self.state)
    return (time.perf_counter() - start) / count


def main(argv) -> None:
  """Alternates the formulations and prints what they took."""
  del argv
  runtime.tune_malloc()
  runtime.set_up_compilation_cache()
  config = _CONFIG.value
  benches = {name: Bench(config, name) for name in layers.FORMULATIONS}
  seconds = {name: [] for name in benches}
  for _ in range(_ROUNDS.value):
    for name, bench in benches.items():
      seconds[name].append(bench.run(_STEPS.value))
  print('| formulation | images/s | ms/step |\n|---|---|---|')
  for name, values in seconds.items():
    median = statistics.median(values)
    speed = config.train.batch_size / median
    print(f'| {name} | {speed:.1f} | {1e3 * median:.0f} |')
  pairs = zip(seconds['plain'], seconds['fast'], strict=True)
  ratios = [plain / fast for plain, fast in pairs]
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  print(
    f'\nfast / plain {statistics.median(ratios):.2f} '
    f'[{min(ratios):.2f} to {max(ratios):.2f}], {_ROUNDS.value} rounds of '
    f'{_STEPS.value} steps, batch {config.train.batch_size}, '
    f'{config.data.image_size} px, {jax.device_count()} x '
    f'{jax.devices()[0].device_kind}, peak {peak:.1f} GiB with both'
  )


if __name__ == '__main__':
  app.run(main)
