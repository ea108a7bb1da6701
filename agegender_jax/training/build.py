"""Everything of a run that follows from its configuration alone."""

import dataclasses
from collections.abc import Callable

import optax

from agegender_jax import config as config_lib
from agegender_jax.inference import predictor
from agegender_jax.models import layers, parameter_groups
from agegender_jax.runtime import devices
from agegender_jax.training import augment, durations, optimizers, steps
from agegender_jax.training import state as state_lib


@dataclasses.dataclass(frozen=True)
class Run:
  """A network with what trains it.

  Attributes:
    network: the network and how it predicts.
    plan: when the run does what.
    schedule: step -> learning rate.
    state: the first state, on one device.
    train_steps: compiled; takes and returns what steps.create_train_steps
      says, with the axis of the devices first.
  """

  network: predictor.Predictor
  plan: durations.Durations
  schedule: optax.Schedule
  state: state_lib.TrainState
  train_steps: Callable


def create_run(config, network: predictor.Predictor, num_examples: int) -> Run:
  """Creates optimizer, first state and train step.

  Args:
    config: the run's configuration.
    network: of the same configuration.
    num_examples: of the training split.

  Returns:
    The run.

  Raises:
    errors.UserError: anything in the configuration to mend.
  """
  plan = durations.create_durations(config.train, num_examples)
  schedule = optimizers.create_schedule(config.optimizer, plan.total, plan.per_epoch)
  optimizer = optimizers.create_optimizer(config.optimizer, schedule)
  # What the compiled programs follow from.
  terms = (
    f'{config_lib.flatten(config)}, {plan.total} of {plan.per_epoch} an epoch, '
    f'{layers.formulation()}'
  )
  state = state_lib.create_state(
    network.model,
    optimizer,
    network.input_size,
    config.seed,
    network.is_frozen,
    terms=terms,
  )
  parameter_groups.check_rules(
    config.optimizer.freeze, config.optimizer.lr_multipliers, state.params
  )
  train_step = steps.create_train_step(
    network.model,
    optimizer,
    network.tasks,
    augment.create_augment(
      augment.create_strengths(config.data), config.data.crop_size
    ),
    network.normalize_fn,
    network.is_frozen,
  )
  train_steps = devices.pmap_train_steps(steps.create_train_steps(train_step), terms)
  return Run(network, plan, schedule, state, train_steps)
