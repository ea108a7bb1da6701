"""The training state and the pure steps, on one device's shard of a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from agegender_jax import models, schema
from agegender_jax.models import parameter_groups, tasks
from agegender_jax.runtime import devices
from agegender_jax.training import optimizers


@struct.dataclass
class TrainState:
  """What a step changes; a run is a function of (config, step) otherwise.

  Attributes:
    step: int32 [], optimizer steps done.
    params: the network's parameters; under train.ema_decay their average.
    batch_stats: the batch norms' running statistics; {} without any.
    opt_state: the optimizer's state, of the trained parameters.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any

  @property
  def variables(self) -> dict[str, Any]:
    """Returns what `model.apply` takes."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


def create_state(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  image_size: int,
  seed: int,
  is_frozen: Callable[[str], bool] = lambda path: False,
) -> TrainState:
  """Initialises a network and its optimizer.

  Args:
    model: linen module, `__call__(image, train)`.
    optimizer: see `optimizers.create_optimizer`.
    image_size: pixels, height and width, of the network's input.
    seed: of the initialisation.
    is_frozen: path of a parameter -> True if training leaves it.

  Returns:
    A TrainState at step 0, on the host where JAX may use it: a GPU's compiler
    takes longer for what runs once.
  """

  @jax.jit
  def init(key):
    variables = models.init_variables(model, key, image_size)
    trained, _ = parameter_groups.split(variables['params'], is_frozen)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      batch_stats=variables.get('batch_stats', {}),
      opt_state=optimizer.init(trained),
    )

  with jax.default_device(devices.host_device()):
    return init(jax.random.key(seed))


def weighted_loss(
  batch_tasks: Sequence[tasks.Task],
  logits: dict[str, jax.Array],
  batch: dict[str, jax.Array],
  share: jax.Array | float = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Computes the loss of a shard as its part of the global batch's mean.

  Each task's loss is averaged over the examples of the global batch whose
  label is known, then weighted; a task without any counts 0. With teachers, half
  of an example's loss is how far it is from their answer.

  Args:
    batch_tasks: the tasks.
    logits: task name -> float32 [B, K].
    batch: see schema.
    share: float32 [B], factor of each example's loss.

  Returns:
    The shard's share of the loss, float32 []: the shares of all devices add
    up to the loss; and the same by task name, unweighted.
  """
  total, parts = jnp.zeros(()), {}
  for task in batch_tasks:
    labels = [batch[key] for key in task.labels]
    known = schema.known(batch, task.label)
    count = jnp.maximum(batch['known'][schema.LABELS.index(task.label)], 1)
    loss = task.loss(logits[task.name], *labels)
    if (target := batch.get(f'teacher_{task.name}')) is not None:
      decoded = task.decode(logits[task.name])
      loss = (loss + tasks.teacher_loss(decoded, target)) / 2
    parts[task.name] = jnp.where(known > 0, share * loss, 0.0).sum() / count
    total += task.weight * parts[task.name]
  return total, parts


def swap_neighbours(batch):
  """Returns a tree of arrays [B, ...] with rows 0 and 1, 2 and 3, ... exchanged."""
  return jax.tree.map(
    lambda x: x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape), batch
  )


def draw_shares(key: jax.Array, alpha: float, rows: jax.Array) -> jax.Array:
  """Draws how much of each image stays when neighbours are mixed.

  Rows 2k and 2k + 1 of the global batch share a draw of Beta(alpha, alpha), so
  that mixup (Zhang et al. 2018) is the same on any number of devices. It is
  symmetric: the larger part is called the image's own.

  Args:
    key: typed PRNG key of the step.
    alpha: above 0.
    rows: int32 [B], in the global batch.

  Returns:
    float32 [B], in [1/2, 1].
  """
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows // 2)
  share = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)
  return jnp.maximum(share, 1 - share)


def mixed_loss(
  batch_tasks: Sequence[tasks.Task],
  logits: dict[str, jax.Array],
  batch: dict[str, jax.Array],
  share: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Computes `weighted_loss` of images of which `share`, [B], is their own."""
  kept = {name: batch[name] for name in batch.keys() - {'image', 'known'}}
  other = {'known': batch['known'], **swap_neighbours(kept)}
  return jax.tree.map(
    jnp.add,
    weighted_loss(batch_tasks, logits, batch, share),
    weighted_loss(batch_tasks, logits, other, 1 - share),
  )


def all_finite(tree) -> jax.Array:
  """Returns True, bool [], if all values of a tree are finite."""
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def batch_sums(
  batch_tasks: Sequence[tasks.Task],
  logits: dict[str, jax.Array],
  batch: dict[str, jax.Array],
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Computes training metrics of a shard as sums and counts.

  Args:
    batch_tasks: the tasks.
    logits: task name -> float32 [B, K].
    batch: see schema.

  Returns:
    Metric name -> (sum, count), both float32 [].
  """
  decoded: dict[str, jax.Array] = {}
  for task in batch_tasks:
    decoded |= task.decode(logits[task.name])
  values = {}
  if 'age' in decoded:
    values['age_mae'] = ('age', jnp.abs(decoded['age'] - batch['age']))
  if 'age_group' in decoded:
    hit = decoded['age_group'] == batch['age_group']
    values['age_group_accuracy'] = ('age_group', hit)
  if 'gender_prob' in decoded:
    female = decoded['gender_prob'] > 0.5
    hit = female == (batch['gender'] == schema.FEMALE)
    values['gender_accuracy'] = ('gender', hit)
  result = {}
  for name, (label, value) in values.items():
    known = schema.known(batch, label)
    result[name] = ((value * known).sum(), known.sum())
  return result


def create_train_step(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  train_tasks: Sequence[tasks.Task],
  augment_fn: Callable,
  normalize_fn: Callable,
  is_frozen: Callable[[str], bool] = lambda path: False,
  skips_nonfinite: bool = False,
  mixup: float = 0.0,
) -> Callable:
  """Creates the train step of a run.

  Args:
    model: linen module, `__call__(image, train)` -> task name -> logits.
    optimizer: see `optimizers.create_optimizer`.
    train_tasks: the tasks.
    augment_fn: keys [B], uint8 image -> float image in [0, 255].
    normalize_fn: image in [0, 255] -> the network's input.
    is_frozen: path of a parameter -> True if it stays; no gradient of such a
      parameter is computed.
    skips_nonfinite: leave out the update of a step whose loss or gradients are
      not finite, count it as `skipped`, and leave it out of the other metrics.
    mixup: see `draw_shares`; 0 switches it off. A device has an even batch.

  Returns:
    A pure function of state, batch (the device's shard) and key of the run,
    which returns the new state and name -> (sum, count), float32 [2], of the
    metrics and losses over the global batch. See `create_train_steps`.
  """

  def train_step(state: TrainState, batch, key):
    key = jax.random.fold_in(key, state.step)
    rows = devices.global_index(batch['image'].shape[0])
    augment_key, dropout_key = jax.random.split(key)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(augment_key, rows)
    image = normalize_fn(augment_fn(keys, batch['image']))
    if mixup:
      share = draw_shares(jax.random.fold_in(key, 2), mixup, rows)
      own = share[:, None, None, None]
      image = own * image + (1 - own) * swap_neighbours(image)

    trained, frozen = parameter_groups.split(state.params, is_frozen)

    def loss_fn(trained):
      params = parameter_groups.join(trained, frozen)
      logits, updates = model.apply(
        {'params': params, 'batch_stats': state.batch_stats},
        image,
        train=True,
        rngs={'dropout': dropout_key},
        mutable=['batch_stats'],
      )
      if mixup:
        loss, parts = mixed_loss(train_tasks, logits, batch, share)
      else:
        loss, parts = weighted_loss(train_tasks, logits, batch)
      return loss, (logits, updates, parts)

    (loss, (logits, updates, parts)), gradients = jax.value_and_grad(
      loss_fn, has_aux=True
    )(optimizers.live(state.opt_state, trained))
    sums = batch_sums(train_tasks, logits, batch)
    loss, parts, gradients, sums = devices.psum((loss, parts, gradients, sums))
    changes, opt_state = optimizer.update(gradients, state.opt_state, trained)
    updated = optax.apply_updates(trained, changes)
    batch_stats = updates.get('batch_stats', {})
    losses = {'loss': loss, **{f'{name}_loss': part for name, part in parts.items()}}
    report = sums | {name: (loss, jnp.ones_like(loss)) for name, loss in losses.items()}
    report = {name: jnp.stack(pair) for name, pair in report.items()}
    if skips_nonfinite:
      is_finite = all_finite((loss, gradients))
      nothing = jax.tree.map(jnp.zeros_like, report)
      updated, opt_state, batch_stats, report = jax.tree.map(
        lambda new, old: jnp.where(is_finite, new, old),
        (updated, opt_state, batch_stats, report),
        (trained, state.opt_state, state.batch_stats, nothing),
      )
      report['skipped'] = jnp.stack([1.0 - is_finite, 1.0])
    state = TrainState(
      step=state.step + 1,
      params=parameter_groups.join(updated, frozen),
      batch_stats=batch_stats,
      opt_state=opt_state,
    )
    return state, report

  return train_step


def create_train_steps(train_step: Callable) -> Callable:
  """Creates the function that runs several steps in one dispatch.

  Args:
    train_step: see `create_train_step`.

  Returns:
    A pure function for `devices.pmap_train_steps`, of a device's part of:
    state; images, uint8 [N, S, S, 3], those of the whole split where they stay
    on the device, else None; batch, arrays of [steps, ...], see schema, without
    `image` where images stay; key of the run. It returns the new state and
    metric name -> (sum, count), float32 [steps, 2].
  """

  def train_steps(state, images, batch, key):
    def run(state, batch):
      if images is not None:
        batch = batch | {'image': images[batch['row']]}
      return train_step(state, batch, key)

    # XLA on CPU is many times slower at convolutions inside of a loop.
    unrolls = len(batch['row']) == 1 or jax.default_backend() == 'cpu'
    return jax.lax.scan(run, state, batch, unroll=unrolls)

  return train_steps
