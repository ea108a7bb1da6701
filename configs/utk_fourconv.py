r"""The four-conv report, step A: conv layers 32-64-128-256, one dense, UTKFace.

python -m agegender_jax.main --config=configs/utk_fourconv.py \
  --workdir=runs/utk_fourconv --config.data.source_dir=PATH_TO_UTKFACE

MAE + BCE 1 : 1, Adam, batch 128, 10 epochs (the report wished for 30:
--config.train.num_epochs=30). It prints parameters of 896, 18,496, 73,856 and
295,168 for the convolutions, and contradicts itself on the dense layers: a
second one of 256 x 128 + 128, but outputs of 256 x 1 + 1. We follow the
outputs' formula, so the second dense layer has no place. Dropout 0.5 is our
reading. The report has MAE 14.27 and 56 %.

Arguments: `protocol=full`, `runlocal`, as in utk_multibranch.py.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of the four-conv report's CNN."""
  arg = recipes.parse_arg(arg, protocol='seed5k', runlocal=False)
  config = config_lib.default_config()
  recipes.set_utk_protocol(config, arg.protocol)
  config.model.layers = (
    'conv:32 pool conv:64 pool conv:128 pool conv:256 pool flatten dense:256 drop:0.5'
  )
  config.model.branch = ''
  config.tasks.age.kind = 'mae'
  config.train.batch_size = 128
  config.train.num_epochs = 10.0
  if arg.runlocal:
    recipes.set_run_local(config)
  return config
