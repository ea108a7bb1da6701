r"""The multi-branch report: a CNN on 5,000 UTKFace images, 60 epochs.

python -m agegender_jax.main --config=configs/utk_multibranch.py \
  --workdir=runs/utk_multibranch --config.data.source_dir=PATH_TO_UTKFACE

Two shared conv layers, then per branch a conv, a dense and an output layer;
MSE + 500 x BCE, batch 20, the last epoch is scored. The report prints neither
widths, dropout rates nor the learning rate: those are our reading. It has
MAE 8.11 and 87.70 % on its test part, which its curves show as validation.

Arguments: `protocol=full` trains on all of UTKFace's training split, selects
on validation and scores test; `runlocal` is a check of minutes. Sweeps, at 64
pixels and as long as `--config.train.num_epochs` says: `ideas`, the
Levi-Hassner report's proposals, which are age by regression or by
classification, two models instead of one, denoising and thresholding; and
`conflicts`, without the images that an identical one contradicts (to run with
`protocol=full`: `seed5k` keeps what it scores).
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of the multi-branch report."""
  arg = recipes.parse_arg(arg, protocol='seed5k', runlocal=False)
  config = config_lib.default_config()
  recipes.set_utk_protocol(config, arg.protocol)
  config.data.flip = True
  config.data.rotation = 10.0
  config.data.zoom = 0.1
  config.model.layers = 'conv:32 pool conv:64 pool drop:0.25'
  # No dropout before a ReLU layer that decides the age: its noise is gone in
  # evaluation, and with it part of the mean (ages come out 5 years too low).
  config.model.branch = 'conv:128 pool flatten dense:128 drop:0.5'
  config.tasks.age.kind = 'mse'
  config.tasks.gender.weight = 500.0
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 1e-3
  config.train.batch_size = 20
  config.train.num_epochs = 60.0
  if arg.runlocal:
    recipes.set_run_local(config)
  return config


def sweep(add):
  """Lists the Levi-Hassner report's ideas, each beside the recipe as it is."""
  small = {'data.image_size': 64}
  add('ideas', **small)
  # Gender keeps about half of the loss, in whatever unit that of age is.
  for kind, weight in [('mae', 20.0), ('dex', 5.0), ('group', 2.0)]:
    fields = {'tasks.age.kind': kind, 'tasks.gender.weight': weight}
    add('ideas', **small, **fields)
  add('ideas', **small, **{'tasks.gender.kind': ''})
  add('ideas', **small, **{'tasks.age.kind': ''})
  for name in ('gaussian', 'otsu'):
    add('ideas', **small, **{'data.filter': name})
  for drop in (False, True):
    add('conflicts', **small, **{'data.drop_conflicts': drop})
