r"""The best of UTKFace: from scratch a CNN with batch norm, from FairFace a ResNet.

python -m agegender_jax.main --config=configs/utk_best.py \
  --workdir=runs/utk_best --config.data.source_dir=PATH_TO_UTKFACE
python -m agegender_jax.main --config=configs/utk_best.py:init=WORKDIR \
  --workdir=runs/utk_best_fine --config.data.source_dir=PATH_TO_UTKFACE

WORKDIR is a run of fairface_small.py, whose half ResNet-18 is tuned at 128 px; train
it with --config.data.hold_out='fairface:test utkface:test', or near-duplicates of what
is scored here are learned there. Age is a distribution over the years. A network of
the full protocol is scored on the reports' 1,008 images by --mode=evaluate
--config.data.eval_split=seed5k_test: they lie in its test part.

Arguments: `init=WORKDIR`; `protocol=seed5k`, as in utk_multibranch.py, with
`search` to select on a part of its training images instead of testing;
`runlocal`.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of UTKFace's best network."""
  arg = recipes.parse_arg(arg, protocol='full', init='', search=False, runlocal=False)
  config = config_lib.default_config()
  recipes.set_utk_protocol(config, arg.protocol)
  data = config.data
  if arg.search and arg.protocol == 'seed5k':
    data.train_split = 'seed5k_train'
    data.validation_split = data.test_split = data.eval_split = 'seed5k_validation'
  # FairFace's recipe has an output per year too: its network fits.
  recipes.set_age_distribution(config, 'ldl')
  config.train.ema_decay = 0.998
  if arg.init:
    data.image_size = 128  # As that of the network that it starts from.
    config.model.width = 0.5
    config.model.init_from = arg.init
    config.optimizer.learning_rate = 7e-4
    config.train.num_epochs = 10.0
  else:
    # Of so few images it learns more of gender than a ResNet does.
    data.image_size = 64
    config.model.backbone = 'cnn'
    config.model.layers = (
      'conv:32 norm pool conv:64 norm conv:64 norm pool '
      'conv:128 norm conv:128 norm pool'
    )
    config.model.branch = 'conv:128 norm conv:128 norm pool flatten drop:0.5 dense:128'
    config.tasks.gender.weight = 4.0
    config.optimizer.weight_decay = 0.1
    config.train.num_epochs = 60.0 if arg.protocol == 'seed5k' else 30.0
  if arg.runlocal:
    recipes.set_run_local(config)
  return config
