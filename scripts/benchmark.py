r"""Times a recipe: its step, whole run, input, start, prediction, scaling.

python scripts/benchmark.py --measure=step --peer=torch \
  --config=configs/utk_multibranch.py --output=runs/benchmark/multibranch

What is compared runs in processes of its own, alternating round by round.
Pictures are made up, but for `run` and `input`, which take the recipe's data.
Prints Markdown; --output also keeps it, with the numbers as JSON and figures.
`roofline` joins the benchmark.json files of `step`; `profile` tells a step's
time by operation and layer; `convolution` times one layer, direct and in the
Fourier domain. Use an idle machine: single rounds mislead, and so does a load.
docs/performance.md says more.
"""

import glob
import json
import pathlib
import sys
import tempfile

from absl import app, flags
from benchmarking import measures, rounds, tables, workbench
from ml_collections import config_flags

from agegender_jax import config as config_lib
from agegender_jax import errors, files

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Recipe, configs/NAME.py[:key=value,...].', lock_config=True
)
_MEASURE = flags.DEFINE_enum(
  'measure', 'step', [*measures.MEASURES, 'roofline'], 'What to time.'
)
_PEER = flags.DEFINE_enum(
  'peer', '', ['', 'torch'], 'For step, predict and scaling: time it too.'
)
_FORMULATIONS = flags.DEFINE_list(
  'formulations', [''], 'For step: of our convolutions, such as fast,plain; '
  "'' is the one that the backend gets.",
)  # fmt: skip
_MALLOC = flags.DEFINE_list(
  'malloc', ['tuned', 'stock'], 'For step: allocators of all, ours and '
  'theirs: glibc\'s, tuned or stock, or jemalloc, where it is installed; the '
  'others take the first. On a GPU only the first counts.',
)  # fmt: skip
_CPU_DEVICES = flags.DEFINE_list(
  'cpu_devices',
  [''],
  "For step: for how many devices JAX takes the CPU; '' is what the recipe says.",
)
_AUGMENT = flags.DEFINE_boolean(
  'augment', False, 'For step: keep the augmentation, which a peer lacks.'
)
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Turns of each.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 5, 'Calls a turn.', lower_bound=1)
_WARMUP = flags.DEFINE_integer(
  'warmup', 3, 'Calls before the first turn.', lower_bound=0
)
_BATCH_SIZES = flags.DEFINE_list('batch_sizes', None, 'For predict and scaling.')
_IMAGE_SIZES = flags.DEFINE_list(
  'image_sizes', ['64', '96', '128', '160', '192', '224', '256'],
  'For scaling and convolution, pixels.',
)  # fmt: skip
_RESULTS = flags.DEFINE_string(
  'results', None, 'For roofline: glob of benchmark.json files of `step`.'
)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder to keep the results in.')


def _options() -> workbench.Options:
  """Checks the flags and collects them."""
  if _AUGMENT.value and _PEER.value:
    raise errors.UserError('--augment: a peer has no augmentation to time')
  if set(_MALLOC.value) - {'tuned', 'jemalloc', 'stock'}:
    raise errors.UserError('--malloc is some of tuned, jemalloc and stock')
  try:
    sizes = [int(size) for size in _BATCH_SIZES.value or ()]
    image_sizes = [int(size) for size in _IMAGE_SIZES.value]
  except ValueError as error:
    raise errors.UserError(f'sizes are whole numbers: {error}') from None
  return workbench.Options(
    peer=_PEER.value,
    formulations=_FORMULATIONS.value,
    mallocs=_MALLOC.value,
    cpu_devices=_CPU_DEVICES.value,
    augment=_AUGMENT.value,
    rounds=_ROUNDS.value,
    steps=_STEPS.value,
    warmup=_WARMUP.value,
    batch_sizes=sizes,
    image_sizes=image_sizes,
    recipe_flags=[arg for arg in sys.argv[1:] if arg.startswith('--config')],
  )


def _roofline(bench: workbench.Workbench) -> dict:
  """Joins what `step` wrote, under peaks that are measured now."""
  rows, ratios = [], []
  for path in sorted(glob.glob(_RESULTS.value or '', recursive=True)):
    result = json.loads(pathlib.Path(path).read_text())
    if result['measure'] == 'step':
      rows += result['rows']
      ratios += [
        ratio | {'name': f'{result["rows"][0]["net"]}: {ratio["name"]}'}
        for ratio in result['ratios']
      ]
  if not rows:
    raise errors.UserError('--results=GLOB names no benchmark.json of --measure=step')
  return {'rows': rows, 'ratios': ratios, 'peaks': bench.measure_peaks()}


def _draw(measure, result, folder):
  from benchmarking import figures  # matplotlib takes a second to import.

  if measure == 'scaling':
    figures.draw_scaling(result['rows'], folder)
  elif measure == 'roofline':
    figures.draw_roofline(result['rows'], result['peaks'], folder)


def _recipe():
  """Returns the configuration of --config; the default one for a roofline."""
  if _MEASURE.value == 'roofline':
    return config_lib.default_config()
  if _CONFIG.value is None:
    raise errors.UserError('--config=configs/NAME.py is needed')
  try:
    config_lib.check_values(_CONFIG.value)
  except OSError:  # A missing file shows only now.
    name = config_flags.get_config_filename(flags.FLAGS['config'])
    raise errors.UserError(f'--config={name}: no such recipe; see configs/') from None
  return _CONFIG.value


def _run(machine: dict) -> None:
  """Measures, prints and keeps."""
  options, measure = _options(), _MEASURE.value
  function = {**measures.MEASURES, 'roofline': _roofline}[measure]
  with tempfile.TemporaryDirectory() as folder:
    bench = workbench.Workbench(_recipe(), options, folder)
    result = function(bench)
  machine['device'] = bench.device
  machine['versions'] |= bench.versions
  result = {'measure': measure, 'machine': machine, **result}
  text = tables.describe(machine, tables.to_markdown(result))
  print(text)
  if _OUTPUT.value:
    folder = pathlib.Path(_OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_whole(folder / 'benchmark.md', text)
    files.write_whole(folder / 'benchmark.json', json.dumps(result, indent=2) + '\n')
    _draw(measure, result, folder)


def main(argv) -> None:
  """Measures; what the user can mend is one line and status 2."""
  try:
    if argv[1:]:
      raise errors.UserError(f'unexpected argument "{argv[1]}"')
    _run(tables.describe_machine())
  except (errors.UserError, rounds.WorkerDied) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2 if isinstance(error, errors.UserError) else 1)


if __name__ == '__main__':
  app.run(main)
