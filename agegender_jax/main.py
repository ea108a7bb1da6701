"""The command line: flags, then one call."""

import argparse
import errno
import os
import re
import sys
import traceback

from absl import app, flags
from ml_collections import config_flags

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.runtime import process

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Recipe, configs/NAME.py[:key=value,...]; outside training '
  "it may be left out: the workdir's own is used.", lock_config=True,
)  # fmt: skip
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Output folder of the run; for report A,B,... compares.'
)
_MODE = flags.DEFINE_enum(
  'mode', 'train', ['train', 'evaluate', 'predict', 'report'], 'What to do.'
)
_IMAGES = flags.DEFINE_multi_string(
  'images', [], 'For predict: a file, folder or glob; repeatable.'
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'For predict (./predictions.csv) and comparisons '
  '(./compare.html): where to write.',
)  # fmt: skip


_MENDABLE = (
  errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EEXIST,
  errno.ENOTDIR, errno.EISDIR, errno.ENOENT,
)  # fmt: skip


def _fail(message) -> None:
  """Ends with status 2 and one line on stderr."""
  text = ' '.join(str(message).split())
  print(f'error: {text}', file=sys.stderr, flush=True)
  sys.exit(2)


def _parse_flags(argv):
  """Parses flags; what the user can mend is one line, status 2."""
  before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  for name in ('config', 'mode', 'workdir'):
    before.add_argument(f'-{name}', f'--{name}', default='')
  values, others = before.parse_known_args(argv[1:])
  # A config.json is no recipe, but config.py makes one of a workdir.
  if not values.config and (
    values.mode in ('evaluate', 'predict')
    or (values.mode == 'report' and '--config.' in ' '.join(others))
  ):
    recipe = f'{config_lib.__file__}:{values.workdir.split(",")[0]}'
    argv = [argv[0], f'--config={recipe}', *argv[1:]]
  try:
    rest = flags.FLAGS(argv)
    getattr(_CONFIG.value, 'seed', None)  # A missing file shows only now.
    return rest
  except (flags.Error, errors.UserError) as error:
    _fail(error)
  except OSError:
    _fail(f'--config={values.config}: no such recipe; see configs/')
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if 'ml_collections' not in frame.filename:
      raise
    # Such as: 'batchsize' Did you mean "batch_size" instead of "batchsize"?
    name, hint = re.match(
      r'\W*(\w+).*?(Did you mean.*\?)?\W*$', str(error), re.DOTALL
    ).groups()
    given = [flag.split('=')[0] for flag in others]
    given = [flag for flag in given if name in flag.split('.')] or [name]
    _fail(f'no field {given[0]}. {hint or ""}')


def main(argv) -> None:
  """Runs the mode that the flags name."""
  mode, workdir = _MODE.value, _WORKDIR.value
  try:
    if argv[1:]:
      raise errors.UserError(f'unexpected argument "{argv[1]}"')
    if not workdir:
      raise errors.UserError('--workdir=DIR is needed')
    if mode == 'report':
      from agegender_jax import report

      workdirs = [path for path in workdir.split(',') if path]
      if len(workdirs) == 1:
        print(report.write_report(workdirs[0]))
      else:
        output = _OUTPUT.value or 'compare.html'
        print(report.write_comparison(workdirs, output))
      return
    config = _CONFIG.value
    if config is None:
      raise errors.UserError('--config=configs/NAME.py is needed to train')
    config_lib.check_values(config)
    process.set_up_logging()
    process.set_up(config.train.cpu_devices)
    # Imported late: --help and a typing error should answer at once.
    if mode == 'train':
      from agegender_jax.training import trainer

      recipe = config_flags.get_config_filename(flags.FLAGS['config'])
      trainer.train_and_evaluate(config, workdir, recipe)
    elif mode == 'evaluate':
      from agegender_jax.evaluation import evaluate

      evaluate.evaluate(config, workdir)
    else:
      from agegender_jax.inference import predict

      output = _OUTPUT.value or 'predictions.csv'
      predict.predict(config, workdir, _IMAGES.value, output)
  except errors.UserError as error:
    _fail(error)
  except OSError as error:
    # Such as a full disk: the place that the user named is to be mended.
    if error.errno not in _MENDABLE or not error.filename:
      raise
    _fail(f'{error.filename}: {error.strerror}')


def run() -> None:
  """Entry point of the console script and of `python -m`."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  app.run(main, flags_parser=_parse_flags)


if __name__ == '__main__':
  run()
