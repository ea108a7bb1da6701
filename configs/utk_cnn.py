r"""The ResNet report: a deeper multi-branch CNN with batch norm, UTKFace.

python -m agegender_jax.main --config=configs/utk_cnn.py \
  --workdir=runs/utk_cnn --config.data.source_dir=PATH_TO_UTKFACE

0.1 x MSE + BCE, Adam, batch 64, 50 epochs. The report prints no widths,
dropout rates or augmentation strengths: those are our reading. It has MAE 6.93
and 86 %.

Arguments: `protocol=full`, `runlocal`, as in utk_multibranch.py.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of the ResNet report's own CNN."""
  arg = recipes.parse_arg(arg, protocol='seed5k', runlocal=False)
  config = config_lib.default_config()
  recipes.set_utk_protocol(config, arg.protocol)
  config.data.flip = True
  config.data.rotation = 10.0
  config.data.zoom = 0.1
  config.model.layers = 'conv:16 conv:32 pool norm conv:64 pool'
  # No dropout before a ReLU layer that decides the age: see utk_multibranch.
  config.model.branch = (
    'conv:64 pool norm conv:128 pool norm conv:128 flatten dense:128 dense:64 drop:0.3'
  )
  config.tasks.age.weight = 0.1
  config.train.batch_size = 64
  config.train.num_epochs = 50.0
  if arg.runlocal:
    recipes.set_run_local(config)
  return config
