r"""ResNet-18 on FairFace at 96 px, age as a distribution: a candidate, not trained yet.

python -m agegender_jax.main --config=configs/fairface_best.py \
  --workdir=runs/fairface_best --config.data.source_dir=PATH_TO_FAIRFACE

fairface_small.py at full width, for longer, against poorer photos, with the weights
averaged. What these gain is not measured; fairface_small.py is.

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
  data.saturation = 0.2
  data.downscale = data.jpeg = 0.1
  config.model.drop_path = 0.1
  config.tasks.gender.label_smoothing = 0.1
  config.optimizer.warmup_epochs = 2.0
  config.train.num_epochs = 40.0
  config.train.ema_decay = 0.999
  config.train.best_metric = 'age_group_accuracy'
  if arg.runlocal:
    recipes.set_run_local(config)
  return config
