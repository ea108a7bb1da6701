r"""The embedded synthetic faces, in minutes on two cores.

python -m agegender_jax.main --config=configs/quickstart.py \
  --workdir=runs/quickstart
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of the quick start."""
  arg = recipes.parse_arg(arg, runlocal=False)
  config = config_lib.default_config()
  config.data.name = 'synthetic'
  config.data.image_size = 64
  config.data.flip = True
  config.data.normalize = 'imagenet'
  config.model.layers = 'conv:32 pool conv:64 pool'
  config.model.branch = 'conv:128 pool flatten dense:256 drop:0.5'
  config.tasks.gender.weight = 400.0
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_epochs = 0.5
  config.train.batch_size = 32
  config.train.num_epochs = 6.0
  if arg.runlocal:
    config.data.synthetic_examples = 100
    recipes.set_run_local(config)
  return config
