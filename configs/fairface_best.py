r"""The best of FairFace from scratch: a CNN with batch norm, age as a distribution.

python -m agegender_jax.main --config=configs/fairface_best.py \
  --workdir=runs/fairface_64 --config.data.source_dir=PATH_TO_FAIRFACE
python -m agegender_jax.main --config=configs/fairface_best.py:init=runs/fairface_64 \
  --workdir=runs/fairface_best --config.data.source_dir=PATH_TO_FAIRFACE

The first command trains 16 epochs, the second 8 more at a lower rate. Data, head and
choice of the epoch are those of fairface_small.py; utk_best.py goes on from here.

Arguments: `init=WORKDIR` of the first for the second; `runlocal`.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of FairFace's best network."""
  arg = recipes.parse_arg(arg, init='', runlocal=False)
  config = config_lib.default_config()
  recipes.set_age_distribution(config, 'interval')
  recipes.set_best_cnn(config)
  config.data.name = config.data.age_groups = 'fairface'
  config.data.hold_out = ':test'  # Other scored sets, where at hand, by flag.
  config.train.num_epochs = 16.0
  if arg.init:
    config.model.init_from = arg.init
    config.optimizer.learning_rate = 1e-3
    config.train.num_epochs = 8.0
  # FairFace has no years, so its validation ranks by groups.
  config.train.best_metric = 'age_group_accuracy'
  if arg.runlocal:
    recipes.set_run_local(config)
  return config
