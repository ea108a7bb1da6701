r"""The four-conv report, step B: VGG16 frozen, dense 256, UTKFace.

python -m agegender_jax.main --config=configs/utk_vgg.py \
  --workdir=runs/utk_vgg --config.data.source_dir=PATH_TO_UTKFACE

Global average pooling, MAE + BCE 1 : 1, Adam, batch 128, 10 epochs, one branch
per task. The weights are
torchvision's, from the Hugging Face hub (pip install huggingface_hub) or a
file: --config.model.init_from=PATH. The report has MAE 9.77 and 75.8 %.

Arguments: `gender` is the report's gender model, 14,714,688 parameters frozen
and 131,585 trained; `scratch` (no weights: the frozen net is then random),
`protocol=full`, `runlocal`, as in utk_multibranch.py.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of the four-conv report's VGG16."""
  arg = recipes.parse_arg(
    arg, gender=False, scratch=False, protocol='seed5k', runlocal=False
  )
  config = config_lib.default_config()
  recipes.set_utk_protocol(config, arg.protocol)
  config.data.normalize = 'imagenet'
  config.model.backbone = 'vgg16'
  config.model.branch = 'gap dense:256 drop:0.5'
  if not arg.scratch:
    config.model.init_from = 'hf:timm/vgg16.tv_in1k'
    # torchvision's and timm's names of the classifier.
    config.model.init_excuse = 'classifier pre_logits head'
  config.tasks.age.kind = '' if arg.gender else 'mae'
  config.optimizer.freeze = 'backbone'
  config.train.batch_size = 128
  config.train.num_epochs = 10.0
  if arg.runlocal:
    recipes.set_run_local(config)
  return config
