"""The defaults: every field of a run, once, with what it means.

Recipes in `configs/` start from `default_config()` and override fields. An
unset string is '', an unset number 0: absl flags cannot override None.
"""

import pathlib
from importlib import metadata

from ml_collections import config_dict

from agegender_jax import errors, files


def default_config() -> config_dict.ConfigDict:
  """Creates the default configuration, locked against unknown fields."""
  config = config_dict.ConfigDict()
  # Seeds initialisation, shuffling, dropout and augmentation.
  config.seed = 0

  data = config.data = config_dict.ConfigDict()
  # Key of datasets.DATASETS, or several joined by `+`: a mixture. Its splits
  # are named once for all or once each, joined by `+`, its source_dir by `:`.
  data.name = 'utkface'
  data.source_dir = ''  # Raw data as their owners distribute them.
  # Of a mixture: how often an epoch takes the rows of each data set, such as
  # `utkface=2 fairface=0.5`; where not named, once.
  data.mix_weights = ''
  # How far an epoch evens out the decades of age, 70 and over being one: an image of
  # known age is taken as often as its decade's size to the power of minus this says,
  # at most ten times; 0 to 1.
  data.balance_ages = 0.0
  # Splits such as `utkface:test fairface:test`: images within 3 bits of
  # difference hash of one of theirs are not trained on; `:test` is of this data.
  # A mixture always leaves out those of its own validation and test split.
  data.hold_out = ''
  # Go on where over 1 % of a column's labels cannot be read, or where a task
  # has one class only in the training split.
  data.allow_unread_labels = False
  data.max_megapixels = 100.0  # A larger image is refused before decoding.
  data.data_dir = ''  # Prepared data; '' = $TFDS_DATA_DIR, then TFDS's own.
  data.train_split = 'train'
  data.validation_split = 'validation'  # Scored every evaluation.
  data.test_split = 'test'  # Scored once, at the end.
  data.eval_split = 'test'  # What --mode=evaluate scores.
  # Held-out images that fit the age intervals and the temperature of gender,
  # neither trained on nor scored; '' = validation_split, unless it is scored.
  data.calibration_split = ''
  data.synthetic_examples = 6000  # Faces that `synthetic` draws.
  data.synthetic_seed = 0  # Of the drawing, not of the run.
  data.image_size = 128  # Pixels, height and width, of what the model sees.
  data.crop = 0.0  # Fraction of the side cut from each edge before resizing.
  data.filter = ''  # '', gaussian (denoised) or otsu (black and white).
  data.age_groups = 'adience'  # Key of schema.AGE_GROUPS.
  # Train without images that an identical one contradicts in age or gender.
  data.drop_conflicts = False
  # memmap: decode once, to disk; none: decode every time; device: decode once,
  # and the training images lie in the memory of each device.
  data.cache = 'memmap'
  data.num_workers = 0  # Grain worker processes; 0 = threads.
  # unit: [0, 1]; imagenet: its mean 0, deviation 1; inception: [-1, 1].
  data.normalize = 'unit'
  # Pixels, height and width, cut at random out of image_size in training and
  # from the centre otherwise; 0 = all of it.
  data.crop_size = 0
  # Average over the centre and corner crops and their mirror images when
  # predicting (Levi & Hassner's over-sampling; without crop_size a mirror).
  # --mode=evaluate and predict may set it for any run.
  data.oversample = False
  # Augmentation, in the train step. 0 (or False) switches each off.
  data.flip = False  # Mirror left and right with probability 1/2.
  data.rotation = 0.0  # Largest angle, degrees, either way.
  data.zoom = 0.0  # Scale in [1 - zoom, 1 + zoom].
  data.shift = 0.0  # Largest shift, fraction of the side, either way.
  data.brightness = 0.0  # Largest offset, fraction of the pixel range.
  data.contrast = 0.0  # Factor in [1 - contrast, 1 + contrast].
  data.saturation = 0.0  # Factor of the colours in [1 - saturation, 1 + saturation].
  data.grey = 0.0  # Probability of no colours.
  data.blur = 0.0  # Probability of a Gaussian blur.
  data.downscale = 0.0  # Probability of shrinking, up to four times, and back.
  data.jpeg = 0.0  # Probability of JPEG's losses, of quality 20 to 95.
  data.erase = 0.0  # Probability of erasing one random rectangle.

  photos = config.photos = config_dict.ConfigDict()
  # The ONNX file that finds faces for predict, of CenterFace's family; '' = the one
  # that `agegender install-detector` installs.
  photos.detector = ''

  model = config.model = config_dict.ConfigDict()
  model.backbone = 'cnn'  # Key of models.BACKBONES.
  # The layers of the backbone `cnn`, in models.cnn.Stack's notation.
  model.layers = 'conv:32 pool conv:64 pool drop:0.25'
  # The layers of each task's branch on top of the backbone, likewise.
  model.branch = 'conv:128 pool flatten dense:128 drop:0.5'
  # One of models.CONVS. All give the same results: direct is what suits the
  # backend, one of plain (XLA's own), fast (for CPUs), gpu; or fourier.
  model.conv = 'direct'
  model.dtype = 'float32'  # Of the activations: float32 or bfloat16.
  # Of levi_hassner: after which convs LRN stands, and the dense layers.
  model.lrn_after = (1, 2)
  model.dense_features = (512, 512)
  # Of the ResNets.
  model.width = 1.0  # Factor of the channels.
  model.first_pool = True  # The max-pool after the first convolution.
  model.squeeze_excite = False  # Hu et al. 2018, at the end of each block.
  # He et al. 2019: three 3x3 convolutions first, average pools in shortcuts.
  model.resnet_d = False
  # Stochastic depth: probability, per example in training, that the last block is
  # skipped; the first block's is the smallest, in a line.
  model.drop_path = 0.0
  # Weights to start from: a .pth, .safetensors or .npz file in torchvision's
  # naming or hf:owner/name for the backbone; or the workdir of a run.
  model.init_from = ''
  # What init_from need not fit, apart by blanks. Of a file: modules of the
  # backbone, or of the file, by name (`fc`, `layer4_1/conv2`; no wildcards),
  # that may be missing, left over or of another shape; they are still loaded
  # where they fit, and a name that is not there is no error. Of a workdir:
  # patterns of parameter paths as in optimizer.freeze (`branch_*`,
  # `backbone/fc7`), which keep their new values even where they would fit; a
  # pattern has to name a parameter of either run.
  model.init_excuse = ''

  tasks = config.tasks = config_dict.ConfigDict()
  # Keys of tasks.TASKS; '' leaves the task out.
  tasks.age = config_dict.ConfigDict({'kind': 'mse', 'weight': 1.0})
  tasks.gender = config_dict.ConfigDict({'kind': 'binary', 'weight': 1.0})
  tasks.gender.label_smoothing = 0.0  # Targets are s / 2 and 1 - s / 2; below 1.

  optimizer = config.optimizer = config_dict.ConfigDict()
  optimizer.name = 'adam'  # adam, adamw or sgd.
  optimizer.learning_rate = 1e-3
  optimizer.momentum = 0.9  # Of sgd.
  optimizer.weight_decay = 0.0  # Of adamw and sgd; kernels only.
  # Patterns of parameter paths, apart by blanks: `backbone/conv*`; a name
  # stands for all below it. Frozen ones are not trained at all.
  optimizer.freeze = ''
  optimizer.lr_multipliers = ''  # Likewise: `backbone=0.1 branch_age=2`.
  # Factor of the learning rate per layer of the backbone, counted from its end, on
  # top of lr_multipliers; 0 = none, else below 1.
  optimizer.layer_decay = 0.0
  optimizer.clip_norm = 0.0  # Global gradient norm; 0 = no clipping.
  optimizer.accumulate_steps = 1  # Steps whose mean gradient is one update.
  # constant, step_decay, time_decay or cosine.
  optimizer.schedule = 'constant'
  optimizer.decay_factor = 0.1  # Of step_decay.
  # Of step_decay and time_decay: exactly one of the two.
  optimizer.decay_every_steps = 0
  optimizer.decay_every_epochs = 0.0
  optimizer.warmup_steps = 0  # Linear, before any schedule: at most one.
  optimizer.warmup_epochs = 0.0

  train = config.train = config_dict.ConfigDict()
  train.batch_size = 64  # Over all devices.
  train.eval_batch_size = 128  # Over all devices.
  train.num_epochs = 10.0  # Exactly one of the two.
  train.num_steps = 0
  train.eval_every_steps = 0  # Evaluate and checkpoint: exactly one.
  train.eval_every_epochs = 1.0
  train.log_every_steps = 50
  train.steps_per_call = 1  # Steps in one dispatch: more pay on fast devices.
  # Devices that JAX takes a CPU for, of all processes together; 0 = chosen by
  # cores, network and batch.
  train.cpu_devices = 0
  # Best checkpoint by validation: '' = age_mae, else age_group_accuracy, else
  # gender_accuracy.
  train.best_metric = ''
  # Stop once best_metric has not improved for so many evaluations; 0 = never.
  train.patience_evaluations = 0
  # Of a moving average of the weights, which is what is evaluated and saved; 0 =
  # none, else below 1.
  train.ema_decay = 0.0
  # Zhang et al. 2018: alpha of Beta(alpha, alpha), the share of either image of two
  # neighbours in a batch that are mixed, and their losses; 0 = none.
  train.mixup = 0.0
  # Workdirs, apart by commas, of runs whose averaged answers on the training images
  # are half of what is learned, the labels being the other half.
  train.teachers = ''
  train.select = 'best'  # Which checkpoint is scored on test: best or last.
  train.restore_step = 0  # Which step --mode=evaluate restores; 0 = select's.
  train.bootstrap_samples = 1000  # Resamples for the 95 % intervals.
  # A step whose loss or gradients are not finite: stop, or skip its update.
  train.on_nonfinite = 'stop'
  train.max_skipped_steps = 10  # How many in a row; one more stops the run.
  train.num_faces = 20  # Test faces kept for the report.

  distributed = config.distributed = config_dict.ConfigDict()
  # Many processes as one run, see docs/scaling.md: HOST:PORT of process 0, or `auto`
  # where JAX knows (SLURM, Open MPI, TPUs); '' = JAX_COORDINATOR_ADDRESS.
  distributed.coordinator = ''
  distributed.num_processes = 0  # 0 = JAX_NUM_PROCESSES.
  distributed.process_id = 0  # Read where num_processes is set.
  distributed.initialization_timeout_seconds = 300
  distributed.heartbeat_timeout_seconds = 30  # Then a silent process is dead.
  return config.lock()


# Fields that may change between a run and its resumption: none of them
# changes a number of training (moved data are recognised by their
# fingerprint).
_FREE_FIELDS = (
  'data.source_dir', 'data.data_dir', 'data.cache', 'data.num_workers',
  'data.eval_split', 'data.calibration_split', 'train.eval_batch_size',
  'train.restore_step', 'train.cpu_devices', 'photos.detector',
  'distributed.coordinator', 'distributed.num_processes', 'distributed.process_id',
  'distributed.initialization_timeout_seconds',
  'distributed.heartbeat_timeout_seconds',
)  # fmt: skip
# Fields that extend a run or change what it prints: a resumed run takes the new
# values and says so. None of them changes the numbers of the steps before.
LENGTH_FIELDS = ('train.num_epochs', 'train.num_steps', 'train.patience_evaluations')
_EXTENDING_FIELDS = (
  *LENGTH_FIELDS, 'train.on_nonfinite', 'train.max_skipped_steps',
  'train.eval_every_epochs', 'train.eval_every_steps', 'train.log_every_steps',
  'train.bootstrap_samples', 'train.num_faces',
)  # fmt: skip
_AT_LEAST_ONE = (
  'train.log_every_steps', 'train.steps_per_call', 'optimizer.accumulate_steps',
)  # fmt: skip
# Fields that make a network what it is, so that evaluation must keep them.
_NETWORK_FIELDS = (
  'data.image_size', 'data.crop', 'data.filter', 'data.crop_size',
  'data.age_groups', 'data.normalize', 'model.backbone', 'model.layers',
  'model.branch', 'model.dtype', 'model.lrn_after', 'model.dense_features',
  'model.width', 'model.first_pool', 'model.squeeze_excite', 'model.resnet_d',
  'tasks.age.kind', 'tasks.gender.kind',
)  # fmt: skip


# What a run's numbers depend on, in its config.json.
_VERSIONED = (
  'agegender_jax', 'jax', 'flax', 'optax', 'orbax-checkpoint', 'grain',
  'tensorflow-datasets', 'numpy',
)  # fmt: skip

# Folder of the network that ships with the package, as a run's workdir.
SHIPPED = pathlib.Path(__file__).parent / 'networks' / 'fairface_small'


def config_path(workdir: str | pathlib.Path) -> pathlib.Path:
  """Returns where the configuration of a run lies."""
  return pathlib.Path(workdir) / 'config.json'


def load_config(workdir: str) -> config_dict.ConfigDict:
  """Loads the configuration that a run saved.

  Args:
    workdir: output folder of the run.

  Returns:
    The configuration; a field that is newer than the run has its default.

  Raises:
    errors.UserError: the folder holds no run.
  """
  path = config_path(workdir)
  try:
    saved = files.read_json(path)['config']
  except (OSError, errors.UserError, KeyError):
    raise errors.UserError(
      f'no run in workdir "{workdir}": {path} is missing or broken; '
      'name the --workdir of a training run'
    ) from None
  config = default_config()
  try:
    config.update(saved)
    empty = [name for name, value in flatten(config).items() if value is None]
    if empty:
      raise ValueError(f'{empty[0]} is null')
  except (KeyError, AttributeError, TypeError, ValueError) as error:
    raise errors.UserError(
      f'{path} does not fit this version: {errors.one_line(error)}'
    ) from None
  check_values(config)
  return config


# With it, `--config=.../config.py:WORKDIR` is a recipe like any other.
get_config = load_config


def check_values(config: config_dict.ConfigDict) -> None:
  """Raises errors.UserError for a number below 0, too large or not finite.

  No field has a use for any; what else a field may not be is
  checked where it is read.
  """
  values = flatten(config)
  for name, value in values.items():
    end = 2**63 if isinstance(value, int) else float('inf')
    if isinstance(value, int | float) and not 0 <= value < end:
      raise errors.UserError(
        f'config field {name} = {value} must be 0 or more, and below {end}'
      )
  for name in _AT_LEAST_ONE:
    if values[name] < 1:
      raise errors.UserError(f'{name} must be 1 or more')
  for name in (
    'train.ema_decay', 'tasks.gender.label_smoothing', 'model.drop_path',
    'optimizer.layer_decay',
  ):  # fmt: skip
    if values[name] >= 1:
      raise errors.UserError(f'{name} = {values[name]} must be below 1')


def parse_factors(field: str, text: str) -> dict[str, float]:
  """Parses a field such as `optimizer.lr_multipliers`.

  Args:
    field: its name, for a message.
    text: words NAME=FACTOR, apart by blanks.

  Raises:
    errors.UserError: another word, a factor that is not above 0, or a name twice.
  """
  result: dict[str, float] = {}
  for word in text.split():
    name, _, factor = word.partition('=')
    if name in result:
      raise errors.UserError(
        f'{field}: "{name}" is given twice, as {result[name]:g} and {factor}: leave one'
      )
    try:
      result[name] = float(factor)
    except ValueError:
      result[name] = -1.0
    if not 0 < result[name] < float('inf'):
      frozen = '; optimizer.freeze keeps parameters as they are'
      raise errors.UserError(
        f'{field}: "{word}" should read NAME=FACTOR with a positive number, such as '
        f'{name}=0.5{frozen if field.startswith("optimizer") else ""}'
      )
  return result


def check_network(
  config: config_dict.ConfigDict, workdir: str
) -> config_dict.ConfigDict:
  """Returns a run's own configuration.

  Raises:
    errors.UserError: `config` has another network.
  """
  own, fields = load_config(workdir), list(_NETWORK_FIELDS)
  if own.tasks.age.kind != 'group':
    # Years have a place in any data set's groups.
    fields.remove('data.age_groups')
  changed = _differences(own, config, fields)
  if changed:
    raise errors.UserError(
      f'the network in "{workdir}" was trained with other settings: '
      f'{"; ".join(changed)}; leave them as the run has them'
    )
  return own


def recorded(workdir: str, key: str) -> int:
  """Returns a number that config.json has beside the configuration, or 0."""
  try:
    return files.read_json(config_path(workdir)).get(key, 0)
  except (OSError, errors.UserError):
    return 0  # No run yet, or load_config says what is wrong with it.


def check_cpu(workdir: str, count: int, threads: int) -> None:
  """Compares the CPU of a resumed run with that on which it began.

  Another number of threads is printed: it rounds sums in another order.

  Args:
    workdir: of the run.
    count: of CPU devices now, 0 where it does not run on a CPU.
    threads: of each device now.

  Raises:
    errors.UserError: it has another number of devices.
  """
  saved = recorded(workdir, 'cpu_devices')
  if saved and count and saved != count:
    raise errors.UserError(
      f'the run in "{workdir}" takes the CPU for {saved} devices, not {count}: leave '
      'out --config.train.cpu_devices (and the device count in XLA_FLAGS)'
    )
  began = recorded(workdir, 'threads')
  if count and began and began != threads:
    print(
      f'note: the run began with {began} CPU threads per device and goes on with '
      f'{threads}: its last bits are not those of a run that was never stopped'
    )


def check_resume(config: config_dict.ConfigDict, workdir: str) -> list[str] | None:
  """Compares a configuration with that of the run which began in the workdir.

  Returns:
    The fields that extend the run, as `name was X, is Y`; None in a workdir in
    which no training began.

  Raises:
    errors.UserError: fields differ that a run keeps.
  """
  # metrics.jsonl is there from the first step on. Of a finished run the
  # checkpoints may have been deleted.
  patterns = ('metrics.jsonl', 'checkpoints.json', 'checkpoints/[0-9]*', 'run.json')
  folder = pathlib.Path(workdir)
  if not any(path for pattern in patterns for path in folder.glob(pattern)):
    return None
  own = load_config(workdir)
  free = {*_FREE_FIELDS, *_EXTENDING_FIELDS}
  changed = _differences(own, config, [k for k in flatten(config) if k not in free])
  if changed:
    raise errors.UserError(
      f'workdir "{workdir}" holds a run of another configuration: '
      f'{"; ".join(changed)}; choose another --workdir'
    )
  return _differences(own, config, _EXTENDING_FIELDS)


def save_config(
  config: config_dict.ConfigDict,
  workdir: str,
  recipe: str = '',
  cpu_devices: int = 0,
  threads: int = 0,
) -> None:
  """Saves the configuration, the libraries' versions and what else is to be recorded.

  The recipe's path and argument are for people; for how many devices the run takes
  the CPU, and the threads of each, are for a resumed one.
  """
  versions = {}
  for name in _VERSIONED:
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      versions[name] = 'not installed'
  content = {
    'recipe': recipe,
    # Where it runs is a matter of each start.
    'config': {k: v for k, v in config.to_dict().items() if k != 'distributed'},
    'cpu_devices': cpu_devices,
    'threads': threads,
    'versions': versions,
  }
  path = config_path(workdir)
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_json(path, content)


def _differences(old, new, fields):
  """Lists the fields that differ, as `name was X, is Y`."""
  old, new = flatten(old), flatten(new)
  return [
    f'{name} was {old[name]!r}, is {new[name]!r}'
    for name in fields
    if old[name] != new[name]
  ]


def flatten(config) -> dict:
  """Returns `block.field` -> value."""
  result = {}
  for key, value in config.items():
    if isinstance(value, config_dict.ConfigDict):
      result |= {f'{key}.{k}': v for k, v in flatten(value).items()}
    else:
      result[key] = value
  return result
