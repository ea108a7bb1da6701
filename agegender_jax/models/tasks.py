"""What a head means: its outputs, its loss and how they are read.

A kind of age or gender estimation is one row of TASKS.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from agegender_jax import errors, schema
from agegender_jax.models import losses

NUM_YEARS = 101  # DEX: one class for each of 0 .. 100 years.


@dataclasses.dataclass(frozen=True)
class Task:
  """A target of the network.

  Attributes:
    name: key of the model's outputs.
    label: key of the batch that holds the label [B].
    num_outputs: K.
    loss: logits [B, K], label [B] -> float32 [B].
    decode: logits [B, K] -> predictions [B] by schema key (age in years,
      age_group row) or `gender_prob`, the probability of FEMALE.
    weight: factor of the loss in the total.
  """

  name: str
  label: str
  num_outputs: int
  loss: Callable[[jax.Array, jax.Array], jax.Array]
  decode: Callable[[jax.Array], dict[str, jax.Array]]
  weight: float = 1.0


def _decode_years(logits):
  return {'age': logits[:, 0]}


def _decode_expectation(logits):
  years = jnp.arange(logits.shape[1], dtype=logits.dtype)
  return {'age': jax.nn.softmax(logits) @ years}


def _decode_group(logits):
  return {'age_group': jnp.argmax(logits, axis=1).astype(jnp.int32)}


def _decode_binary(logits):
  return {'gender_prob': jax.nn.sigmoid(logits[:, 0])}


# Task -> kind -> (label, number of outputs or None = age groups, loss, decode).
TASKS = {
  'age': {
    'mse': ('age', 1, losses.squared_error, _decode_years),
    'mae': ('age', 1, losses.absolute_error, _decode_years),
    'dex': ('age', NUM_YEARS, losses.year_cross_entropy, _decode_expectation),
    'group': ('age_group', None, losses.cross_entropy, _decode_group),
  },
  'gender': {
    'binary': ('gender', 1, losses.binary_cross_entropy, _decode_binary),
  },
}


def create_tasks(config, age_groups: str) -> tuple[Task, ...]:
  """Creates the tasks of a run.

  Args:
    config: the block `config.tasks`.
    age_groups: key of schema.AGE_GROUPS.

  Returns:
    A Task for each block with a kind.

  Raises:
    errors.UserError: unknown kind or groups, or no task at all.
  """
  if age_groups not in schema.AGE_GROUPS:
    raise errors.UserError(
      f'unknown data.age_groups "{age_groups}"; known: {", ".join(schema.AGE_GROUPS)}'
    )
  result = []
  for name, kinds in TASKS.items():
    kind = config[name].kind
    if not kind:
      continue
    if kind not in kinds:
      raise errors.UserError(
        f'unknown tasks.{name}.kind "{kind}"'
        f'{errors.nearest(kind, kinds)}; known: {", ".join(kinds)}'
      )
    label, num_outputs, loss, decode = kinds[kind]
    num_outputs = num_outputs or len(schema.AGE_GROUPS[age_groups])
    result.append(Task(name, label, num_outputs, loss, decode, config[name].weight))
  if not result:
    raise errors.UserError('no task: set tasks.age.kind or tasks.gender.kind')
  return tuple(result)
