r"""The network that ships: half a ResNet-18 on FairFace, age as a distribution.

python -m agegender_jax.main --config=configs/fairface_small.py \
  --workdir=runs/fairface_small --config.data.source_dir=PATH_TO_FAIRFACE

One head learns the distribution of the age over the years 0 to 116 from
FairFace's groups, each by the probability of its years. The owners' val is
scored; the best epoch is chosen on a tenth of their train.

Argument: `runlocal`.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of the small network."""
  arg = recipes.parse_arg(arg, runlocal=False)
  config = config_lib.default_config()
  data = config.data
  data.name = data.age_groups = 'fairface'
  data.image_size = 96
  data.normalize = 'imagenet'
  data.flip = True
  data.rotation = 10.0
  data.zoom = 0.15
  data.shift = 0.05
  data.brightness = 0.2
  data.contrast = 0.2
  data.erase = 0.25
  data.oversample = True  # Mirror images: better on validation.
  config.model.backbone = 'resnet18'
  config.model.width = 0.5
  config.model.branch = 'gap drop:0.2'
  config.tasks.age.kind = 'interval'
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 2e-3
  config.optimizer.weight_decay = 0.05
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_epochs = 1.0
  config.train.batch_size = 128
  config.train.num_epochs = 16.0
  # FairFace has no years, so its validation ranks by groups.
  config.train.best_metric = 'age_group_accuracy'
  if arg.runlocal:
    recipes.set_run_local(config)
  return config
