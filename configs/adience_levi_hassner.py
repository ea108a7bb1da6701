r"""The Levi-Hassner report: the net with LRN on Adience, and its experiments.

python -m agegender_jax.main --config=configs/adience_levi_hassner.py:fold=0 \
  --workdir=runs/levi_hassner --config.data.source_dir=PATH_TO_ADIENCE
python scripts/sweep.py --config=configs/adience_levi_hassner.py \
  --sweep=folds --workdir=runs/levi_hassner_folds \
  --config.data.source_dir=PATH_TO_ADIENCE
python scripts/summarise.py --workdir=runs/levi_hassner_folds

Levi & Hassner 2015: 256 pixels, random crops of 227 and mirroring, batch 50,
SGD with momentum 0.9, rate 1e-3 divided by 10 after 10,000 iterations,
the mean subtracted from the pixels, dropout 0.5; here pixels are normalised by
ImageNet's mean and deviation, so that inputs are of order 1, where LRN changes
little. They print 50.7 / 84.7 / 86.8 % (exact, one-off, gender). The report's
code counts the 10,000 in epochs and so never decays: decay_every_steps=0 and
decay_every_epochs=10000 is that.
Training stops after 10 epochs without a better validation score; the best
epoch is scored, as the report has it.

Arguments: `fold=0` to `4`, `target=age|gender|both` (age as a group),
`runlocal`. Sweeps: `folds`; `batch_size`, `neurons`, `hidden_layers`,
`learning_rate` and `flip`, without augmentation and at a constant rate as in
the report's code. Of its values only the batch sizes are printed, and that 512
neurons, 1 layer and rates of 0.001 and 0.005 came out best: the other values
are our reading.
"""

from agegender_jax import config as config_lib
from agegender_jax import recipes

# As the report's code has it, which never decays its rate.
PLAIN = {
  'data.flip': False,
  'data.crop_size': 0,
  'optimizer.schedule': 'constant',
}


def get_config(arg=''):
  """Returns the configuration of the Levi-Hassner report."""
  arg = recipes.parse_arg(arg, fold=0, target='both', runlocal=False)
  config = config_lib.default_config()
  recipes.set_adience_protocol(config, arg.fold)
  config.data.image_size = 256
  config.data.crop_size = 227
  config.data.flip = True
  config.data.normalize = 'imagenet'
  config.model.backbone = 'levi_hassner'
  config.model.branch = ''
  recipes.set_target(config, arg.target, age_kind='group')
  config.optimizer.name = 'sgd'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.momentum = 0.9
  config.optimizer.schedule = 'step_decay'
  config.optimizer.decay_every_steps = 10_000
  config.train.batch_size = 50
  config.train.num_epochs = 60.0
  config.train.patience_evaluations = 10
  if arg.runlocal:
    recipes.set_run_local(config)
  return config


def sweep(add):
  """Lists the five folds and the report's experiments."""
  for fold in range(recipes.ADIENCE_FOLDS):
    add('folds', arg=f'fold={fold}')
  for size in (4, 8, 16, 32, 64):
    add('batch_size', **PLAIN, **{'train.batch_size': size})
  for width in (128, 256, 512, 1024):
    add('neurons', **PLAIN, **{'model.dense_features': (width, width)})
  for count in (1, 2, 3):
    add('hidden_layers', **PLAIN, **{'model.dense_features': (512,) * count})
  for rate in (1e-4, 5e-4, 1e-3, 5e-3, 1e-2):
    add('learning_rate', **PLAIN, **{'optimizer.learning_rate': rate})
  for flip in (False, True):
    add('flip', **(PLAIN | {'data.flip': flip}))
