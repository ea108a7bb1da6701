"""The training state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from agegender_jax import models
from agegender_jax.models import parameter_groups
from agegender_jax.runtime import devices, programs


@struct.dataclass
class TrainState:
  """What a step changes; a run is a function of (config, step) otherwise.

  Attributes:
    step: int32 [], optimizer steps done.
    params: the network's parameters.
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
  *,
  terms: str,
) -> TrainState:
  """Initialises a network and its optimizer.

  Args:
    model: linen module, `__call__(image, train)`.
    optimizer: see `optimizers.create_optimizer`.
    image_size: pixels, height and width, of what the network sees.
    seed: of the initialisation.
    is_frozen: path of a parameter -> whether training leaves it.
    terms: what model, optimizer and is_frozen follow from, see programs.kept.

  Returns:
    A TrainState at step 0, on one device, the host's where JAX may use it.
  """

  def init_optimizer(params):
    return optimizer.init(parameter_groups.split(params, is_frozen)[0])

  def init(key):
    variables = models.init_variables(model, key, image_size)
    leaves = jax.tree.leaves(init_optimizer(variables['params']))
    return variables, leaves

  # It runs once: LLVM's first level compiles it in a third of the time, to
  # the same numbers; and on the host, where a GPU's compiler takes longer.
  host = devices.host_device()
  options = {'xla_backend_optimization_level': 1} if host else None
  compiled = programs.kept(init, f'{terms} {image_size} init', compiler_options=options)
  with jax.default_device(host):
    variables, leaves = compiled(jax.random.key(seed))
  shapes = jax.eval_shape(init_optimizer, variables['params'])
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables.get('batch_stats', {}),
    opt_state=jax.tree.structure(shapes).unflatten(leaves),
  )
