r"""The Levi-Hassner report: pre-train on many faces, then a new last layer.

python -m agegender_jax.main --workdir=runs/pretrained \
  --config=configs/adience_transfer.py:stage=pretrain,source=fairface \
  --config.data.source_dir=PATH_TO_FAIRFACE
python scripts/sweep.py --sweep=transfer --workdir=runs/transfer \
  --config=configs/adience_transfer.py:init=runs/pretrained,data=utkface \
  --seeds=0,1,2 --config.data.source_dir=PATH_TO_UTKFACE
python scripts/summarise.py --workdir=runs/transfer --paired=stage=scratch

Stages: `pretrain`; `frozen`, the report's transfer: all that `init`, the workdir
of the pre-training, learned is kept but for the output layers, which are new
and alone train; `finetune` trains everything from there; `scratch` starts from
nothing. Sources: `celeb_a` (gender) and `imdb_wiki` (age as 101 classes), as in
the report, and `fairface` (nine age groups, gender). The report has 86.3 %
(gender, from CelebA) and 32.4 % (age, from IMDB-WIKI) on Adience. 64 pixels,
Adam and 30 epochs are our choice: at this size SGD hardly leaves the start.

Arguments: `stage=...`, `source=...`, `init=WORKDIR`, `data=adience|utkface`
(UTKFace as years, 3,463 images of seed5k to train on), `fold=0` to `4` of
Adience, `target=age|gender|both` (of the small set: what `pretrain` learns is
its source's), `runlocal`. Sweep: `transfer`.
"""

from agegender_jax import config as config_lib
from agegender_jax import errors, recipes

STAGES = ('pretrain', 'frozen', 'finetune', 'scratch')
# Source -> (target, what age is).
SOURCES = {
  'celeb_a': ('gender', ''),
  'fairface': ('both', 'group'),
  'imdb_wiki': ('age', 'dex'),
}


def get_config(arg=''):
  """Returns the configuration of one stage of the report's transfer."""
  arg = recipes.parse_arg(
    arg, stage='pretrain', source='fairface', init='', data='adience', fold=0,
    target='both', runlocal=False,
  )  # fmt: skip
  recipes.check_choice('stage', arg.stage, STAGES)
  recipes.check_choice('source', arg.source, SOURCES)
  recipes.check_choice('data', arg.data, ('adience', 'utkface'))
  config = config_lib.default_config()
  data = config.data
  if arg.stage == 'pretrain':
    data.name = arg.source
    data.age_groups = 'fairface' if arg.source == 'fairface' else 'adience'
    recipes.set_target(config, *SOURCES[arg.source])
  elif arg.data == 'adience':
    recipes.set_adience_protocol(config, arg.fold)
    recipes.set_target(config, arg.target, age_kind='group')
  else:
    data.train_split = 'seed5k_train'
    data.validation_split = 'seed5k_validation'
    data.test_split = data.eval_split = 'seed5k_test'
    recipes.set_target(config, arg.target, age_kind='dex')
  if arg.stage in ('frozen', 'finetune'):
    if not arg.init:
      raise errors.UserError(
        f'stage={arg.stage} needs init=WORKDIR of a run with stage=pretrain'
      )
    config.model.init_from = arg.init
    # The branches are the output layers.
    config.model.init_excuse = 'branch_*'
  if arg.stage == 'frozen':
    config.optimizer.freeze = 'backbone'
  data.image_size = 64
  data.flip = True
  data.normalize = 'imagenet'
  config.model.backbone = 'levi_hassner'
  config.model.branch = ''
  config.optimizer.learning_rate = 1e-3
  config.train.batch_size = 64
  config.train.num_epochs = 30.0
  config.train.patience_evaluations = 10
  if arg.runlocal:
    recipes.set_run_local(config)
  return config


def sweep(add):
  """Lists the ways to train on the small set."""
  for stage in ('scratch', 'frozen', 'finetune'):
    add('transfer', arg=f'stage={stage}')
