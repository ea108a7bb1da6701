r"""The network that ships: half a ResNet-18 on FairFace, age as a distribution.

python -m agegender_jax.main --config=configs/fairface_small.py \
  --workdir=runs/fairface_96 --config.data.source_dir=PATH_TO_FAIRFACE
python -m agegender_jax.main --config=configs/fairface_small.py:init=runs/fairface_96 \
  --workdir=runs/fairface_small --config.data.source_dir=PATH_TO_FAIRFACE

One head learns the distribution of the age over the years 0 to 116 from
FairFace's groups, each by the probability of its years. The owners' val is
scored, and near-duplicates of it are not trained on; the best epoch is chosen on a
tenth of their train. The first command trains 16 epochs at 96 px, the second 8 more
at 128 px, with the weights averaged.

Arguments: `init=WORKDIR` of the first for the second; `runlocal`.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of the small network."""
  arg = recipes.parse_arg(arg, init='', runlocal=False)
  config = config_lib.default_config()
  recipes.set_age_distribution(config, 'interval')
  config.data.name = config.data.age_groups = 'fairface'
  config.data.hold_out = ':test'  # Other scored sets, where at hand, by flag.
  config.model.width = 0.5
  config.train.num_epochs = 16.0
  if arg.init:
    config.data.image_size = 128
    config.model.init_from = arg.init
    config.optimizer.learning_rate = 1e-3
    config.train.num_epochs = 8.0
    config.train.ema_decay = 0.998
  # FairFace has no years, so its validation ranks by groups.
  config.train.best_metric = 'age_group_accuracy'
  if arg.runlocal:
    recipes.set_run_local(config)
  return config
