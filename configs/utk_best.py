r"""The best of UTKFace: a CNN with batch norm, from scratch or from FairFace.

python -m agegender_jax.main --config=configs/utk_best.py \
  --workdir=runs/utk_best --config.data.source_dir=PATH_TO_UTKFACE
python -m agegender_jax.main --config=configs/utk_best.py:init=WORKDIR \
  --workdir=runs/utk_best_fine --config.data.source_dir=PATH_TO_UTKFACE

WORKDIR is a run of fairface_best.py; train it with --config.data.hold_out=
'fairface:test utkface:test', or near-duplicates of what is scored here are learned
there. Age is a distribution over the years. A network of the full protocol is scored on
the reports' 1,008 images by --mode=evaluate --config.data.eval_split=seed5k_test: they
lie in its test part.

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
  recipes.set_best_cnn(config)
  config.train.num_epochs = 60.0 if arg.protocol == 'seed5k' else 30.0
  if arg.init:
    config.model.init_from = arg.init
    config.optimizer.learning_rate = 7e-4
    config.train.num_epochs = 10.0
  if arg.runlocal:
    recipes.set_run_local(config)
  return config
