r"""The ResNet-34 report: ResNet-34 with ImageNet weights on Adience's age groups.

python -m agegender_jax.main --config=configs/adience_resnet.py:fold=0 \
  --workdir=runs/adience_resnet --config.data.source_dir=PATH_TO_ADIENCE
python scripts/sweep.py --config=configs/adience_resnet.py --sweep=folds \
  --workdir=runs/resnet_folds --config.data.source_dir=PATH_TO_ADIENCE
python scripts/summarise.py --paired=adience_levi_hassner \
  --workdir=runs/resnet_folds,runs/levi_hassner_folds

Exact and one-off accuracy of eight age groups; the last command answers the
report's question, ResNet-34 against Levi-Hassner on the same folds, with
`:target=both` for genders too. The report prints neither figures nor settings:
SGD with momentum, rate 1e-3 for the backbone and 1e-2 for the new layer, cosine
decay, 20 epochs are our reading. --config.model.init_from also takes the
workdir of a run with the same backbone, together with
--config.model.init_excuse='branch_*'.

Arguments: `fold=0` to `4`, `target=age|gender|both`, `scratch` (no weights),
`runlocal`. Sweep: `folds`.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes


def get_config(arg=''):
  """Returns the configuration of the ResNet-34 report."""
  arg = recipes.parse_arg(arg, fold=0, target='age', scratch=False, runlocal=False)
  config = config_lib.default_config()
  recipes.set_adience_protocol(config, arg.fold)
  config.data.image_size = 256
  config.data.crop_size = 224
  config.data.flip = True
  config.data.normalize = 'imagenet'
  config.model.backbone = 'resnet34'
  config.model.branch = 'gap'
  recipes.set_target(config, arg.target, age_kind='group')
  if not arg.scratch:
    config.model.init_from = 'hf:timm/resnet34.a1_in1k'
    config.model.init_excuse = 'fc branch_*'
    config.optimizer.lr_multipliers = 'backbone=0.1'
  config.optimizer.name = 'sgd'
  config.optimizer.learning_rate = 1e-2
  config.optimizer.weight_decay = 1e-4
  config.optimizer.schedule = 'cosine'
  config.train.batch_size = 64
  config.train.num_epochs = 20.0
  if arg.runlocal:
    recipes.set_run_local(config)
  return config


def sweep(add):
  """Lists the five folds."""
  for fold in range(recipes.ADIENCE_FOLDS):
    add('folds', arg=f'fold={fold}')
