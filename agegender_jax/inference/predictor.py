"""A network ready to predict, for training's evaluations and afterwards."""

import itertools
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from flax import linen as nn

from agegender_jax import config as config_lib
from agegender_jax import errors, models, schema, scoring
from agegender_jax.inference import ahead
from agegender_jax.models import parameter_groups, preprocessing, tasks
from agegender_jax.runtime import devices

# Batches under way on the device, each in a thread of its own: what one thread
# asks of a CPU is done one after the other, and XLA's small operations leave
# half of the cores idle.
BATCHES_IN_FLIGHT = 2
# Of an endless stream on a CPU: larger ones are no faster there, and what
# hundreds of megabytes of activations leave behind fragments the memory.
CPU_BATCH = 8


class Network:
  """Predicts batches of uint8 images with given variables.

  Attributes:
    tasks: the run's tasks.
    model: the network.
    normalize_fn: pixels in [0, 255] -> the network's input.
    input_size: pixels, height and width, of the network's input.
    is_frozen: path of a parameter -> whether training leaves it.
  """

  def __init__(self, config):
    """Builds the network of `config`.

    Raises:
      errors.UserError: the configuration names something unknown.
    """
    devices.check_batch_size('train.eval_batch_size', config.train.eval_batch_size)
    if config.train.select not in ('best', 'last'):
      raise errors.UserError(
        f'train.select is "best" or "last", not "{config.train.select}"'
      )
    self.batch_size = config.train.eval_batch_size // jax.process_count()
    self.tasks = tasks.create_tasks(config.tasks, config.data.age_groups)
    outputs = {task.name: task.num_outputs for task in self.tasks}
    ordinal = tuple(task.name for task in self.tasks if task.shares_weights)
    self.is_frozen = parameter_groups.create_is_frozen(config.optimizer.freeze)
    self.model: nn.Module = models.create_model(
      config.model, outputs, devices.AXIS, self.is_frozen, ordinal
    )
    crop, size = config.data.crop_size, config.data.image_size
    if not 0 <= crop <= size:
      raise errors.UserError(
        f'data.crop_size = {crop} is not within data.image_size = {size}'
      )
    self.input_size = crop or size
    self.normalize_fn = preprocessing.create_normalize(config.data.normalize)
    self._views_fn = preprocessing.create_views(crop, config.data.oversample)
    self._step = devices.pmap_predict_step(self.predict_step)

  def shapes(self) -> dict:
    """Returns the shapes of `params` and `batch_stats`, computing nothing."""
    found = jax.eval_shape(
      lambda key: models.init_variables(self.model, key, self.input_size),
      jax.random.key(0),
    )
    return {key: found.get(key, {}) for key in ('params', 'batch_stats')}

  def batch_size_for(self, count: int) -> int:
    """Returns a batch size for images of which `count` are at hand.

    The evaluation's, halved while all of them fit, and on a CPU while it is
    beyond CPU_BATCH.
    """
    size = self.batch_size
    is_cpu = jax.default_backend() == 'cpu'
    while size >= 2 * count or (is_cpu and size > CPU_BATCH):
      if size % (2 * jax.local_device_count()):
        break
      size //= 2
    return size

  def predict_step(self, variables, image: jax.Array) -> dict:
    """Predicts images uint8 [B, H, W, 3] on one device.

    Returns:
      What the tasks decode, by key, and `logits` by task name, float32 [B, K]:
      the mean of those of the image's crops and mirror images.
    """
    views = [
      self.model.apply(variables, self.normalize_fn(view), train=False)
      for view in self._views_fn(image)
    ]
    logits = jax.tree.map(lambda *parts: sum(parts) / len(parts), *views)
    decoded: dict[str, jax.Array] = {}
    for task in self.tasks:
      decoded |= task.decode(logits[task.name])
    return {'logits': logits, **decoded}

  def predict(self, variables, batches: Iterable[dict]) -> Iterator[dict]:
    """Predicts batches, the next ones under way while one is read.

    Args:
      variables: replicated over the devices.
      batches: dicts with `image` uint8 [B, H, W, 3] and `mask` [B].

    Yields:
      For each batch the predictions of its rows with mask 1, in their order:
      decoded values [n] by key and `logits` [n, K] by task name.
    """

    def run(batch):
      output = self._step(variables, devices.shard(batch['image']))
      return jax.tree.map(lambda x: devices.unshard(x)[batch['mask'] > 0], output)

    batches = iter(batches)
    for batch in itertools.islice(batches, 1):
      yield run(batch)  # Compiles, as two threads at once would twice.
    yield from ahead.map_ahead(run, batches, BATCHES_IN_FLIGHT)

  def predict_all(self, variables, batches: Iterable[dict]) -> dict:
    """Predicts batches and joins them: values [N] by key, `logits` [N, K]."""
    outputs = list(self.predict(variables, batches))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)


def create_ranking(config, run_tasks) -> list[tuple[str, int]]:
  """Returns the validation scores that rank checkpoints, in order of preference.

  Args:
    config: the run's configuration.
    run_tasks: its tasks.

  Returns:
    See checkpoint.Checkpoints.

  Raises:
    errors.UserError: `train.best_metric` is none that this run has.
  """
  taught = {task.name: task.label for task in run_tasks}
  # Years are scored as groups, too.
  labels = {'age_group' if name == 'age' else name for name in taught}
  labels |= {'age'} if taught.get('age', 'age_group') != 'age_group' else set()
  known = {
    name: metric
    for name, metric in scoring.METRICS.items()
    if metric.direction and metric.label in labels
  }
  best = config.train.best_metric
  if best and best not in known:
    raise errors.unknown('train.best_metric of this run', best, known)
  chosen = [best] if best else [m.name for m in scoring.headlines(2) if m.name in known]
  return [(f'validation/{name}', known[name].direction) for name in chosen]


def restore(config, workdir: str) -> tuple[Network, dict, int]:
  """Restores a trained network.

  Args:
    config: of the run; `train.restore_step` 0 means the one that
      `train.select` names.
    workdir: output folder of the run.

  Returns:
    The network, its variables replicated over the devices, the step.

  Raises:
    errors.UserError: no such checkpoint, or of another network.
  """
  config_lib.check_network(config, workdir)
  network = Network(config)
  variables, step = read_selected(config, network, workdir, network.shapes())
  return network, devices.replicate(variables), step


def read_selected(config, network: Network, workdir: str, target=None):
  """Reads the variables of the step that `selected_step` names.

  A training beside it may delete that step meanwhile: then it reads again.

  Args:
    config: of the run.
    network: of the same configuration.
    workdir: output folder of the run.
    target: see Checkpoints.restore_variables.

  Returns:
    The variables, as NumPy arrays, and the step.

  Raises:
    errors.UserError: no such checkpoint, or it is damaged.
  """
  # Orbax takes a second to import, and a network is also read without it.
  from agegender_jax.runtime import checkpoint

  ranking = create_ranking(config, network.tasks)
  before = checkpoint.list_files(workdir)
  try:
    checkpoints = checkpoint.Checkpoints(workdir, ranking)
    step = selected_step(config, checkpoints)
    if step is None:
      raise errors.UserError(
        f'workdir "{workdir}" holds no checkpoint yet: train first'
      )
    return checkpoints.restore_variables(step, target), step
  except errors.UserError:
    if checkpoint.list_files(workdir) == before:
      raise
  return read_selected(config, network, workdir, target)


def selected_step(config, checkpoints) -> int | None:
  """Returns the step that is scored on test, None without checkpoints."""
  if config.train.restore_step:
    return checkpoints.check_step(config.train.restore_step)
  if config.train.select == 'last':
    return checkpoints.latest_step()
  return checkpoints.best_step()


def predictions(output, age_groups: str) -> dict[str, np.ndarray]:
  """Names a network's output as the columns of predictions.csv do.

  Args:
    output: of Network.predict.
    age_groups: key of schema.AGE_GROUPS.

  Returns:
    Columns [N], as far as the network gives them: age_pred (years),
    age_group_pred, age_distribution [N, years], gender_prob, and gender_logit,
    the log odds of FEMALE.
  """
  columns = {}
  if 'age' in output:
    columns['age_pred'] = output['age']
    columns['age_group_pred'] = schema.group_of_prediction(output['age'], age_groups)
  if 'age_group' in output:
    columns['age_group_pred'] = output['age_group']
  if 'age_distribution' in output:
    columns['age_distribution'] = output['age_distribution']
  if 'gender_prob' in output:
    columns['gender_prob'] = output['gender_prob']
    columns['gender_logit'] = output['logits']['gender'][:, 0]
  return columns
