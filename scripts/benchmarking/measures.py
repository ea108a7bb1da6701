"""What `benchmark.py` can measure: which processes take turns, and at what."""

from agegender_jax import models
from benchmarking import rounds, runs, tables, workbench

_KERNELS = (3, 5, 7, 11, 15)
STAGES = ('gather', 'feed', 'shard', 'augment')


def measure_step(bench: workbench.Workbench) -> dict:
  """Times the train step: formulations, allocators, devices, the peer."""
  options, config = bench.options, bench.config
  if not options.augment:
    config = workbench.without_augmentation(config)
  ours, theirs = [], []
  for malloc in options.mallocs:
    for formulation in options.formulations:
      for count in options.cpu_devices:
        task = {'malloc': malloc, 'cpu_devices': count}
        task['formulation'] = formulation or None
        ours.append(bench.start('jax', 'step', config, **task))
    if options.peer:
      theirs.append(bench.start(options.peer, 'step', config, malloc=malloc))
      theirs[-1].facts['flops_per_image'] = ours[0].facts['flops_per_image']
    if ours[0].facts['platform'] != 'cpu':
      break  # The allocator is the host's.
  workers, peaks = [*ours, *theirs], bench.start_peaks(config)
  workbench.check_parameters(workers)
  bench.alternate([*workers, peaks])
  limits = workbench.read_peaks(peaks)
  pairs = [(ours[0], other) for other in ours[1:]]
  pairs += [
    (one, other)
    for one in ours
    for other in theirs
    # Ours comes with another allocator than glibc's stock one.
    if one.task['malloc'] != 'stock' or other.task['malloc'] == 'stock'
  ]
  return {
    'rows': [tables.create_row(worker, config, limits['matmul']) for worker in workers],
    'ratios': [tables.create_ratio(*pair) for pair in pairs],
    'peaks': limits,
  }


def measure_profile(bench: workbench.Workbench) -> dict:
  """Tells the step's time by operation and by layer."""
  config = workbench.without_augmentation(bench.config)
  worker = bench.start('jax', 'profile', config)
  bench.alternate([worker])
  parts = {name: worker.facts.pop(name) for name in ('operations', 'layers')}
  row = tables.create_row(worker, config)
  return {'rows': [row], 'ratios': [], 'profile': parts}


def measure_run(bench: workbench.Workbench) -> dict:
  """Times training from the command line beside its bare step."""
  config = bench.config
  step = bench.start('jax', 'step', config)
  step.name = 'bare step'
  whole = runs.WholeRun('whole run', config, bench.options.mallocs[0])
  host = start_stages(bench, ('feed', 'shard'))
  bench.alternate([whole, step, *host])
  return {
    'rows': [tables.create_row(worker, config) for worker in (whole, step, *host)],
    'ratios': [tables.create_ratio(whole, step)],
  }


def start_stages(bench: workbench.Workbench, stages) -> list:
  """Starts a worker for each stage of the input, see jax_jobs.Input."""
  workers = []
  for stage in stages:
    workers.append(bench.start('jax', 'input', bench.config, stage=stage))
    workers[-1].name = f'input: {stage}'
  return workers


def measure_input(bench: workbench.Workbench) -> dict:
  """Times the stages from the data set to the network's input."""
  workers = start_stages(bench, STAGES)
  bench.alternate(workers)
  return {
    'rows': [tables.create_row(worker, bench.config) for worker in workers],
    'ratios': [],
  }


def measure_startup(bench: workbench.Workbench) -> dict:
  """Times starts up to the second step, the first with nothing compiled."""
  options = bench.options
  starts = runs.time_starts(options.recipe_flags, options.rounds, options.mallocs[0])
  bench.device, bench.versions = starts[0]['device'], starts[0]['versions']
  return {'starts': [start['seconds'] for start in starts]}


def measure_predict(bench: workbench.Workbench) -> dict:
  """Times prediction at several batch sizes."""
  workers = []
  for size in bench.options.batch_sizes or (1, 8, 32, 64, 128, 256):
    config = workbench.without_augmentation(
      bench.config, train__batch_size=size, train__eval_batch_size=size
    )
    workers += [(worker, config) for worker in bench.start_both(
      'predict', config)]  # fmt: skip
  bench.alternate([worker for worker, _ in workers])
  return {
    'rows': [tables.create_row(*pair) for pair in workers],
    'ratios': [],
  }


def measure_scaling(bench: workbench.Workbench) -> dict:
  """Times the step at many sizes, one after the other: memory has one use."""
  options, rows = bench.options, []
  batch_sizes = options.batch_sizes or [2**power for power in range(2, 10)]
  sweeps = [('batch_size', 'train__batch_size', size) for size in batch_sizes]
  sweeps += [('image_size', 'data__image_size', size) for size in options.image_sizes]
  limits = bench.measure_peaks()
  for sweep, field, size in sweeps:
    config = workbench.without_augmentation(bench.config, **{field: size})
    try:
      workers = bench.start_both('step', config)
      bench.alternate(workers)
    except rounds.WorkerDied as error:
      rows.append(
        {
          'name': str(error).splitlines()[0],
          'net': tables.net_name(config),
          'peer': '',
          'sweep': sweep,
          'batch_size': config.train.batch_size,
          'image_size': config.data.image_size,
          'dtype': config.model.dtype,
        }
      )
      continue
    rows += [
      tables.create_row(worker, config, limits['matmul']) | {'sweep': sweep}
      for worker in workers
    ]
  return {'rows': rows, 'ratios': [], 'peaks': limits}


def measure_convolution(bench: workbench.Workbench) -> dict:
  """Times a convolution, direct and by Fourier, at kernel and image sizes."""
  rows, ratios = [], []
  limits = bench.measure_peaks()
  for side in bench.options.image_sizes:
    for kernel in _KERNELS:
      workers = []
      for conv in models.CONVS:
        config = workbench.copy_config(
          bench.config, data__image_size=side, model__conv=conv
        )
        workers.append(bench.start('jax', 'convolution', config, kernel=kernel))
        workers[-1].name = f'{kernel}x{kernel} {conv}'
      bench.alternate(workers)
      for worker in workers:
        row = tables.create_row(worker, config, limits['matmul'])
        rows.append(row | {'net': f'convolution {kernel}x{kernel}'})
      ratio = tables.create_ratio(workers[1], workers[0])
      ratios.append(ratio | {'name': f'{side} px: {ratio["name"]}'})
  return {'rows': rows, 'ratios': ratios, 'peaks': limits}


MEASURES = {
  'step': measure_step,
  'profile': measure_profile,
  'run': measure_run,
  'input': measure_input,
  'startup': measure_startup,
  'predict': measure_predict,
  'convolution': measure_convolution,
  'scaling': measure_scaling,
}
