"""What a head means: its outputs, its loss and how they are read.

A kind of age or gender estimation is one row of TASKS.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from agegender_jax import errors, schema
from agegender_jax.models import losses

DEX_YEARS = 101  # Rothe et al. 2015: one class for each of 0 .. 100 years.
NUM_YEARS = schema.LAST_YEAR + 1


@dataclasses.dataclass(frozen=True)
class Task:
  """A target of the network.

  Attributes:
    name: key of the model's outputs.
    labels: keys of the batch, [B] each, that the loss takes; they are known
      together.
    num_outputs: K.
    loss: logits [B, K], labels -> float32 [B].
    decode: logits [B, K] -> predictions by key, [B] each: `age` in years,
      `age_group` row, `gender_prob`, the probability of FEMALE; a distribution
      also gives `age_distribution` [B, NUM_YEARS].
    weight: factor of the loss in the total.
    shares_weights: the outputs share one weight vector, see multitask.Branch.
  """

  name: str
  labels: tuple[str, ...]
  num_outputs: int
  loss: Callable[..., jax.Array]
  decode: Callable[[jax.Array], dict[str, jax.Array]]
  weight: float = 1.0
  shares_weights: bool = False

  @property
  def label(self) -> str:
    """The label that tells which examples are known."""
    return self.labels[0]


def _decode_years(logits, groups):
  return {'age': logits[:, 0]}


def _decode_expectation(logits, groups):
  years = jnp.arange(logits.shape[1], dtype=logits.dtype)
  return {'age': jax.nn.softmax(logits) @ years}


def _decode_group(logits, groups):
  return {'age_group': jnp.argmax(logits, axis=1).astype(jnp.int32)}


def _decode_binary(logits, groups):
  return {'gender_prob': jax.nn.sigmoid(logits[:, 0])}


def _decode_softmax(logits, groups):
  return decode_distribution(jax.nn.softmax(logits), groups)


def _decode_coral(logits, groups):
  return decode_distribution(_years_of_survival(jax.nn.sigmoid(logits)), groups)


def _decode_corn(logits, groups):
  older = jnp.cumprod(jax.nn.sigmoid(logits), axis=1)
  return decode_distribution(_years_of_survival(older), groups)


def _years_of_survival(older):
  """Returns P(year), [B, K + 1], of P(age > 0), P(age > 1), ..., [B, K]."""
  # CORAL's biases fall when it is trained; until then some years have none.
  older = jax.lax.cummin(older, axis=1)
  ends = jnp.pad(older, ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0)))
  return ends[:, :-1] - ends[:, 1:]


def decode_distribution(distribution: jax.Array, groups: str) -> dict[str, jax.Array]:
  """Reads a distribution over whole years.

  Args:
    distribution: float32 [B, NUM_YEARS], rows sum to 1.
    groups: key of schema.AGE_GROUPS.

  Returns:
    `age`, the median, linear within its year, where year k is the interval
    [k - 1/2, k + 1/2], so that a sure prediction of k decodes to k (labels are
    whole years); `age_group`, the group with the most mass, years in a gap
    being of the nearest group; `age_distribution`.
  """
  below = jnp.cumsum(distribution, axis=1)
  year = jnp.sum(below < 0.5, axis=1)
  is_year = jax.nn.one_hot(year, below.shape[1], dtype=below.dtype)
  missing = (is_year * below).sum(1) - 0.5
  age = year + 0.5 - missing / jnp.maximum((is_year * distribution).sum(1), 1e-9)
  rows = schema.group_of_prediction(np.arange(NUM_YEARS), groups)
  mass = distribution @ jax.nn.one_hot(rows, len(schema.AGE_GROUPS[groups]))
  return {
    'age': jnp.maximum(age, 0),
    'age_group': jnp.argmax(mass, axis=1).astype(jnp.int32),
    'age_distribution': distribution,
  }


_YEARS = ('age_low', 'age_high')
# Task -> kind -> (labels, number of outputs or None = age groups, loss, decode).
TASKS = {
  'age': {
    'mse': (('age',), 1, losses.squared_error, _decode_years),
    'mae': (('age',), 1, losses.absolute_error, _decode_years),
    'gaussian': (('age',), 2, losses.gaussian, _decode_years),
    'dex': (('age',), DEX_YEARS, losses.year_cross_entropy, _decode_expectation),
    'interval': (_YEARS, NUM_YEARS, losses.interval_likelihood, _decode_softmax),
    'ldl': (('age',), NUM_YEARS, losses.label_distribution, _decode_softmax),
    'coral': (('age',), NUM_YEARS - 1, losses.coral, _decode_coral),
    'corn': (('age',), NUM_YEARS - 1, losses.corn, _decode_corn),
    'group': (('age_group',), None, losses.cross_entropy, _decode_group),
  },
  'gender': {
    'binary': (('gender',), 1, losses.binary_cross_entropy, _decode_binary),
  },
}


# The kinds of age whose decoding gives a distribution.
DISTRIBUTIONS = ('interval', 'ldl', 'coral', 'corn')


def teacher_loss(decoded: dict[str, jax.Array], target: jax.Array) -> jax.Array:
  """Computes KL(teacher || network), nats.

  Args:
    decoded: what `Task.decode` returns, of one task.
    target: float32 [B, K], the teacher's probabilities, of the years or of male
      and female.

  Returns:
    float32 [B].
  """
  if 'gender_prob' in decoded:
    female = decoded['gender_prob']
    found = jnp.stack([1 - female, female], axis=1)
  else:
    found = decoded['age_distribution']
  tiny = 1e-7
  return (target * (jnp.log(target + tiny) - jnp.log(found + tiny))).sum(axis=1)


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
    raise errors.unknown('data.age_groups', age_groups, schema.AGE_GROUPS)
  result = []
  for name, kinds in TASKS.items():
    kind = config[name].kind
    if not kind:
      continue
    if kind not in kinds:
      raise errors.unknown(f'tasks.{name}.kind', kind, kinds)
    labels, num_outputs, loss, decode = kinds[kind]
    if smoothing := config[name].get('label_smoothing', 0.0):
      loss = functools.partial(loss, smoothing=smoothing)
    result.append(
      Task(
        name,
        labels,
        num_outputs or len(schema.AGE_GROUPS[age_groups]),
        loss,
        functools.partial(decode, groups=age_groups),
        config[name].weight,
        shares_weights=kind == 'coral',
      )
    )
  if not result:
    raise errors.UserError('no task: set tasks.age.kind or tasks.gender.kind')
  return tuple(result)
