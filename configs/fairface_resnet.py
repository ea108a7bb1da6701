r"""ResNet-18 from scratch on FairFace: nine age groups and gender.

python -m agegender_jax.main --config=configs/fairface_resnet.py \
  --workdir=runs/fairface_resnet --config.data.source_dir=PATH_TO_FAIRFACE

The owners' val is scored; the best epoch is chosen on a tenth of their train.
At 64 pixels, so that 20 epochs of 8,000 images take 20 minutes on one core.

Arguments: `backbone=resnet18|resnet34|resnet50`, `target=age|gender|both`,
`runlocal`.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of FairFace's ResNet."""
  arg = recipes.parse_arg(arg, backbone='resnet18', target='both', runlocal=False)
  recipes.check_choice('backbone', arg.backbone, recipes.RESNETS)
  config = config_lib.default_config()
  config.data.name = 'fairface'
  config.data.age_groups = 'fairface'
  config.data.image_size = 64
  config.data.flip = True
  config.data.rotation = 10.0
  config.data.zoom = 0.1
  config.data.erase = 0.3
  config.data.normalize = 'imagenet'
  config.model.backbone = arg.backbone
  config.model.branch = 'gap drop:0.2'
  recipes.set_target(config, arg.target, age_kind='group')
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 0.05
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_epochs = 1.0
  config.train.batch_size = 64
  config.train.num_epochs = 20.0
  if arg.runlocal:
    recipes.set_run_local(config)
  return config
