"""The pure steps, on one device's shard of the global batch."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from agegender_jax import schema
from agegender_jax.models import parameter_groups, tasks
from agegender_jax.runtime import devices
from agegender_jax.training import state as state_lib
from agegender_jax.training import step_metrics


def weighted_loss(
  batch_tasks: Sequence[tasks.Task],
  logits: dict[str, jax.Array],
  batch: dict[str, jax.Array],
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Computes the loss of a shard as its part of the global batch's mean.

  Each task's loss is averaged over the examples of the global batch whose
  label is known, then weighted; a task without any counts 0.

  Args:
    batch_tasks: the tasks.
    logits: task name -> float32 [B, K].
    batch: see schema.

  Returns:
    The shard's share of the loss, float32 []: the shares of all devices add
    up to the loss; and the same by task name, unweighted.
  """
  total, parts = 0.0, {}
  for task in batch_tasks:
    labels = [batch[key] for key in task.labels]
    known = schema.known(batch, task.label)
    count = jnp.maximum(batch['known'][schema.LABELS.index(task.label)], 1)
    loss = task.loss(logits[task.name], *labels)
    parts[task.name] = jnp.where(known > 0, loss, 0.0).sum() / count
    total += task.weight * parts[task.name]
  return total, parts


def create_train_step(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  train_tasks: Sequence[tasks.Task],
  augment_fn: Callable,
  normalize_fn: Callable,
  is_frozen: Callable[[str], bool] = lambda path: False,
) -> Callable:
  """Creates the train step of a run.

  Args:
    model: linen module, `__call__(image, train)` -> task name -> logits.
    optimizer: see `optimizers.create_optimizer`.
    train_tasks: the tasks.
    augment_fn: keys [B], uint8 image -> float image in [0, 255].
    normalize_fn: image in [0, 255] -> the network's input.
    is_frozen: path of a parameter -> whether it stays; no gradient of such a
      parameter is computed.

  Returns:
    A pure function of state, batch (the device's shard) and key of the run,
    which returns the new state and {name: (sum, count)} of the metrics and of
    `loss` over the global batch. See `create_train_steps`.
  """

  def train_step(state: state_lib.TrainState, batch, key):
    key = jax.random.fold_in(key, state.step)
    rows = devices.global_index(batch['image'].shape[0])
    augment_key, dropout_key = jax.random.split(key)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(augment_key, rows)
    image = normalize_fn(augment_fn(keys, batch['image']))
    # One draw a device: dropout alone depends on the number of devices.
    dropout_key = jax.random.fold_in(dropout_key, rows[0])

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
      loss, parts = weighted_loss(train_tasks, logits, batch)
      return loss, (logits, updates, parts)

    (loss, (logits, updates, parts)), gradients = jax.value_and_grad(
      loss_fn, has_aux=True
    )(trained)
    loss, parts, gradients = devices.psum((loss, parts, gradients))
    trained, opt_state = _update(optimizer, gradients, state.opt_state, trained)
    sums = step_metrics.batch_sums(train_tasks, logits, batch)
    report = devices.psum(sums)
    parts = {'loss': loss, **{f'{k}_loss': v for k, v in parts.items()}}
    report |= {k: (v, jnp.ones_like(v)) for k, v in parts.items()}
    return (
      state_lib.TrainState(
        step=state.step + 1,
        params=parameter_groups.join(trained, frozen),
        batch_stats=updates.get('batch_stats', {}),
        opt_state=opt_state,
      ),
      report,
    )

  return train_step


def _update(optimizer, gradients, opt_state, params):
  """Returns the new parameters and the new state of the optimizer.

  In the shape in which devices keep them: else XLA sees a reshape behind each
  moment, computes it for each use once more, and copies the old one first.
  """
  gradients, opt_state, params = devices.with_device_axis(
    (gradients, opt_state, params)
  )
  changes, opt_state = optimizer.update(gradients, opt_state, params)
  params = optax.apply_updates(params, changes)
  return devices.without_device_axis((params, opt_state))


def create_train_steps(train_step: Callable) -> Callable:
  """Creates the function that runs several steps in one dispatch.

  Args:
    train_step: see `create_train_step`.

  Returns:
    A pure function for `devices.pmap_train_steps`, of a device's part of:
    state; data, which stays for many calls: `labels`, all of some batches but
    the pictures, [K, b] each and `known` [K, 5], step s at s % K, and where
    pictures stay as well `image`, uint8 [N, S, S, 3]; batches, arrays of
    [steps, ...]: `image` where they do not stay; key of the run. See feed.Feed.
    It returns the new state and the metrics as (sum, count) of float32 [steps]
    each.
  """

  def train_steps(state, data, batches, key):
    def run(state, batch):
      labels = {
        name: jax.lax.dynamic_index_in_dim(
          values, state.step % len(values), keepdims=False
        )
        for name, values in data['labels'].items()
      }
      kept = data.get('image')
      image = batch['image'] if kept is None else kept[labels['row']]
      return train_step(state, labels | {'image': image}, key)

    if len(jax.tree.leaves(batches)[0]) == 1:
      state, report = run(state, {k: v[0] for k, v in batches.items()})
      return state, jax.tree.map(lambda x: x[None], report)
    # XLA on CPU is many times slower at convolutions inside of a loop.
    return jax.lax.scan(run, state, batches, unroll=jax.default_backend() == 'cpu')

  return train_steps
