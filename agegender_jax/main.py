"""The command line: flags, then one call."""

import os
import threading

from absl import app, flags
from ml_collections import config_flags

from agegender_jax import cli, errors, files, recipes
from agegender_jax import config as config_lib
from agegender_jax.runtime import cluster, process, stop

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'Recipe, configs/NAME.py[:key=value,...]; outside training '
  "it may be left out: the workdir's own is used.",
  lock_config=True,
)
_WORKDIR = flags.DEFINE_multi_string(
  'workdir',
  [],
  'Output folder of the run, for training runs/RECIPE by default; '
  'predict, export and demo also take hf:owner/name of the Hugging Face hub; for '
  'report A,B,... compares, and so does the flag given several times.',
)
_MODES = (
  'train', 'evaluate', 'predict', 'report', 'score', 'export', 'demo',
  'install-detector',
)  # fmt: skip
_MODE = flags.DEFINE_enum('mode', 'train', _MODES, 'What to do.')
# `agegender predict PHOTO...` is --mode=predict --images=PHOTO...
_COMMANDS = ('predict', 'export', 'demo', 'install-detector')
# Those that take the network which ships where no --workdir is named.
_NETWORK_MODES = ('predict', 'export', 'demo')
_IMAGES = flags.DEFINE_multi_string(
  'images', [], 'For predict: a file, folder or glob; repeatable.'
)
_FACES = flags.DEFINE_enum(
  'faces',
  '',
  ['', 'detect', 'crop'],
  'For predict and demo: look for faces in each '
  'image, or take it as one face crop; by default detect where it is known how the '
  "network's faces were cut out.",
)
_LARGEST = flags.DEFINE_bool(
  'largest_face', False, 'For predict: only the largest face of each image.'
)
_ANNOTATE = flags.DEFINE_string(
  'annotate', '', 'For predict: folder for images with boxes and labels.'
)
_FORMAT = flags.DEFINE_string(
  'format', '', 'For export: onnx, stablehlo, torch or folder.'
)
_FLOAT16 = flags.DEFINE_bool('float16', False, 'For export: store weights in float16.')
_PUSH = flags.DEFINE_string(
  'push', '', 'For export --format=folder: owner/name on the Hugging Face hub.'
)
_PORT = flags.DEFINE_integer(
  'port', 7860, 'For demo: port of the local page.', lower_bound=1, upper_bound=65535
)
_PREDICTIONS = flags.DEFINE_string(
  'predictions', '', 'For score: a CSV of predictions of config.data.eval_split.'
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'Where to write: predict (./predictions.csv, or .jsonl, .parquet), '
  'comparisons (./compare.html), export (./network.FORMAT).',
)


def _fail(message) -> None:
  """Ends with status 2 and one line on stderr."""
  text = ' '.join(str(message).split())
  process.leave(2, f'error: {text}')


def _fail_in_thread(caught) -> None:
  """Ends with status 2 where a library's thread meets a full disk."""
  line = files.fixable_error(caught.exc_value)
  if line:
    _fail(line)
  threading.__excepthook__(caught)


def _parse_flags(argv):
  """Parses flags; what the user can fix is one line, status 2."""
  if argv[1:] and argv[1] in _COMMANDS:
    argv = [argv[0], f'--mode={argv[1]}', *argv[2:]]
  before = cli.Parser('', add_help=False)
  for name in ('config', 'mode'):
    before.add_argument(f'-{name}', f'--{name}', default='')
  before.add_argument('-workdir', '--workdir', action='append', default=[])
  try:
    values, others = before.parse_known_args(argv[1:])
    if values.mode in _NETWORK_MODES and not (values.workdir or values.config):
      values.workdir = [str(config_lib.SHIPPED)]
    # A config.json is no recipe, but config.py returns the one of a workdir.
    if (
      values.workdir
      and not values.config
      and (
        values.mode in ('evaluate', *_NETWORK_MODES)
        or (values.mode == 'report' and '--config.' in ' '.join(others))
      )
    ):
      workdir = cli.split_workdirs(values.mode, values.workdir)[0]
      if values.mode in _NETWORK_MODES:
        from agegender_jax.inference import hub

        workdir = hub.local(workdir)
      values.config = f'{config_lib.__file__}:{workdir}'
      argv = [argv[0], f'--config={values.config}', *argv[1:]]
    if values.config:
      recipes.check_flags(values.config, others)
    return flags.FLAGS(argv)
  except (flags.Error, errors.UserError) as error:
    _fail(error)


def main(argv) -> None:
  """Runs the mode that the flags name."""
  processes = None
  mode, output = _MODE.value, _OUTPUT.value and os.path.expanduser(_OUTPUT.value)
  try:
    if argv[1:] and mode not in ('predict', 'install-detector'):
      raise errors.UserError(f'unexpected argument "{argv[1]}"')
    if mode == 'install-detector':
      from agegender_jax.inference import detector

      print(f'detector: {detector.install(*argv[1:2])}')
      return
    config = _CONFIG.value
    if config is None and mode in ('train', 'score'):
      raise errors.UserError(f'--config=configs/NAME.py is needed to {mode}')
    recipe = config and config_flags.get_config_filename(flags.FLAGS['config'])
    workdirs = _name_workdirs(mode, recipe)
    if mode == 'report':
      _report(workdirs, output)
      return
    config_lib.check_values(config)
    processes = cluster.find(config.distributed)
    if processes:
      if mode not in ('train', 'evaluate'):
        raise errors.UserError(
          f'--mode={mode} is for one process: unset config.distributed and '
          f'{", ".join(cluster.VARIABLES)}'
        )
      cluster.enter_child()
    process.set_up_logging()
    process.set_up(config, workdirs[0] if mode == 'train' else '', processes)
    if mode in _NETWORK_MODES:
      _use_network(mode, config, workdirs[0], argv[1:], output)
    else:
      _run_on_data(mode, config, workdirs[0], recipe)
    process.flush_stdout()
    if processes:
      from agegender_jax.runtime import hosts

      hosts.shut_down()
      os._exit(0)  # Past what the libraries' threads do at the end.
  except errors.UserError as error:
    _fail(error)
  except Exception as error:
    lost = processes and cluster.lost_line(error)
    if lost:
      process.leave(cluster.LOST, lost)
    line = files.fixable_error(error)  # Such as a full disk.
    if line is None:
      raise
    place = '' if '/' in line else ', in the workdir, data.data_dir or a cache folder'
    _fail(line + place)


def _name_workdirs(mode, recipe) -> list[str]:
  """Returns the folders of --workdir, or the one that the mode takes without it."""
  workdirs = cli.split_workdirs(mode, _WORKDIR.value)
  if not workdirs and mode == 'train':
    workdirs = [cli.default_workdir(recipe)]
    print(f'workdir: {workdirs[0]}', flush=True)
  if not workdirs and mode in _NETWORK_MODES:
    workdirs = [str(config_lib.SHIPPED)]
    print(f'network: {config_lib.SHIPPED.name}, which ships with the package')
  if not workdirs:
    raise errors.UserError('--workdir=DIR is needed')
  if workdirs[0].startswith('hf:') and mode not in _NETWORK_MODES:
    raise errors.UserError(
      f'--mode={mode} takes a folder as --workdir, not {workdirs[0]}'
    )
  return workdirs


# The modes' own modules are imported late: --help and a typing error should answer
# at once.


def _report(workdirs, output):
  """Reports a run, or compares several."""
  from agegender_jax import report

  if len(workdirs) == 1:
    print(report.write_report(workdirs[0]))
  else:
    print(report.write_comparison(workdirs, output or 'compare.html'))


def _run_on_data(mode, config, workdir, recipe):
  """Trains, evaluates or scores."""
  if mode == 'train':
    from agegender_jax.training import trainer

    trainer.train_and_evaluate(config, workdir, recipe)
  elif mode == 'evaluate':
    from agegender_jax.evaluation import evaluate

    evaluate.evaluate(config, workdir)
  else:
    from agegender_jax import report
    from agegender_jax.evaluation import score_file

    score_file.score_file(config, workdir, _PREDICTIONS.value)
    print(f'report: {report.write_report(workdir)}')


def _use_network(mode, config, workdir, images, output):
  """Runs one of _NETWORK_MODES."""
  from agegender_jax.inference import api

  faces = 'crop' if mode == 'export' else _FACES.value
  network = api.Predictor(config, workdir, faces)
  if mode == 'predict':
    from agegender_jax.inference import predict

    images = [os.path.expanduser(path) for path in [*_IMAGES.value, *images]]
    folder = os.path.expanduser(_ANNOTATE.value)
    output = output or 'predictions.csv'
    predict.predict(network, images, output, folder, _LARGEST.value)
  elif mode == 'export':
    from agegender_jax.inference import export

    dtype = 'float16' if _FLOAT16.value else ''
    print(export.export(network, output or '', _FORMAT.value, dtype, _PUSH.value))
  else:
    from agegender_jax.inference import demo

    demo.serve(network, _PORT.value)


def run() -> None:
  """Entry point of the console script and of `python -m`."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  # Before there are threads, or XLA may get an arena that is given back.
  process.tune_malloc()
  threading.excepthook = _fail_in_thread
  stop.STOP.listen()
  app.run(main, flags_parser=_parse_flags)


if __name__ == '__main__':
  run()
