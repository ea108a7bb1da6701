"""Seed 003: the Levi-Hassner net with LRN on Adience.

python -m agegender_jax.main --config=configs/adience_levi_hassner.py \\
  --workdir=runs/levi_hassner --config.data.name=folder \\
  --config.data.source_dir=PATH_TO_FACES

Levi & Hassner 2015: 256 pixels, random crops of 227 and mirroring, batch 50,
SGD with momentum 0.9, rate 1e-3 divided by 10 after 10,000 iterations,
dropout 0.5. Seed 003's code counts the 10,000 in epochs and so never decays;
--config.optimizer.decay_every_steps=0 with decay_every_epochs=10000 is that.

Arguments: `target=age|gender|both` (age as a group), `runlocal`.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipe


def get_config(arg=''):
  """Returns the configuration of seed 003."""
  arg = recipe.parse_arg(arg, target='both', runlocal=False)
  config = config_lib.default_config()
  config.data.name = 'folder'
  config.data.image_size = 256
  config.data.crop_size = 227
  config.data.flip = True
  config.model.backbone = 'levi_hassner'
  config.model.branch = ''
  recipe.set_target(config, arg.target, age_kind='group')
  config.optimizer.name = 'sgd'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.momentum = 0.9
  config.optimizer.schedule = 'step_decay'
  config.optimizer.decay_every_steps = 10_000
  config.train.batch_size = 50
  config.train.num_epochs = 60.0
  config.train.patience_evaluations = 10
  if arg.runlocal:
    recipe.set_run_local(config)
  return config
