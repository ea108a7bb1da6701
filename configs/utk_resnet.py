r"""The ResNet report: ResNet-50 with ImageNet weights, two branches, UTKFace.

python -m agegender_jax.main --config=configs/utk_resnet.py \
  --workdir=runs/utk_resnet --config.data.source_dir=PATH_TO_UTKFACE

0.1 x MSE + BCE, Adam, batch 64, 50 epochs. The weights are downloaded from the
Hugging Face hub (pip install huggingface_hub), or are a file of torchvision's
or timm's: --config.model.init_from=PATH. The report prints the same figures for
this net as for its CNN: MAE 6.93 and 86 %.

Arguments: `backbone=resnet18|resnet34|resnet50`, `scratch` (no weights),
`protocol=full`, `runlocal`, as in utk_multibranch.py.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of the ResNet report's ResNet-50."""
  arg = recipes.parse_arg(
    arg, backbone='resnet50', scratch=False, protocol='seed5k', runlocal=False
  )
  recipes.check_choice('backbone', arg.backbone, recipes.RESNETS)
  config = config_lib.default_config()
  recipes.set_utk_protocol(config, arg.protocol)
  config.data.flip = True
  config.data.rotation = 10.0
  config.data.zoom = 0.1
  config.data.normalize = 'imagenet'
  config.model.backbone = arg.backbone
  config.model.branch = 'flatten dense:128 dense:64'
  if not arg.scratch:
    config.model.init_from = f'hf:timm/{arg.backbone}.a1_in1k'
    config.model.init_excuse = 'fc'
  config.tasks.age.weight = 0.1
  config.train.batch_size = 64
  config.train.num_epochs = 50.0
  if arg.runlocal:
    recipes.set_run_local(config)
  return config
