"""Starts a recipe as `main` does, for two steps, and says when.

python -m benchmarking.startup --config=... [--config.overrides]

The batch is made up: data preparation is left out. Prints JSON: `marks`, one
clock reading (seconds since the epoch) a stage; `device`; `versions`.
"""

import json
import sys
import time

marks = {'python': time.time()}


def main() -> None:
  """Goes through the stages."""
  from absl import flags

  import agegender_jax.main  # noqa: F401, it defines the flags.
  from agegender_jax.runtime import process

  flags.FLAGS(sys.argv)
  config = flags.FLAGS.config
  process.set_up(config.train.cpu_devices)
  marks['flags'] = time.time()

  # What `main` imports to train.
  import jax

  from agegender_jax.inference import predictor
  from agegender_jax.runtime import devices
  from agegender_jax.training import trainer
  from benchmarking import jax_jobs, made_up

  marks['imports'] = time.time()
  run = trainer.create_run(config, predictor.Predictor(config), 4000)
  state = devices.replicate(run.state)
  jax.block_until_ready(state)
  marks['state'] = time.time()
  batch = jax_jobs.place_call(made_up.create_batch(config), 1)
  key = devices.share(jax.random.key(0))
  for stage in ('first step', 'second step'):
    state, report = run.train_steps(state, None, batch, key)
    jax.block_until_ready((state, report))
    marks[stage] = time.time()
  device = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
  versions = {'jax': jax.__version__}
  print(json.dumps({'marks': marks, 'device': device, 'versions': versions}))


if __name__ == '__main__':
  main()
