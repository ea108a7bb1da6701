r"""ResNet-18 on FairFace at 96 px, age as a distribution: a candidate, not trained yet.

python -m agegender_jax.main --config=configs/fairface_best.py \
  --workdir=runs/fairface_best --config.data.source_dir=PATH_TO_FAIRFACE

fairface_small.py at full width, for longer, with the weights averaged: for a GPU
(scripts/records.sh). What that gains is not measured.

Argument: `runlocal`.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of FairFace's best network."""
  arg = recipes.parse_arg(arg, runlocal=False)
  config = config_lib.default_config()
  recipes.set_age_distribution(config, 'interval')
  data = config.data
  data.name = data.age_groups = 'fairface'
  data.hold_out = ':test'
  config.optimizer.warmup_epochs = 2.0
  config.train.num_epochs = 40.0
  config.train.ema_decay = 0.999
  config.train.best_metric = 'age_group_accuracy'
  if arg.runlocal:
    recipes.set_run_local(config)
  return config
