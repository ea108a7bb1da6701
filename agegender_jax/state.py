"""The training state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from agegender_jax import partition


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
) -> TrainState:
  """Initialises a network and its optimizer.

  Args:
    model: linen module, `__call__(image, train)`.
    optimizer: see `optimizers.create_optimizer`.
    image_size: pixels, height and width, of what the network sees.
    seed: of the initialisation.
    is_frozen: path of a parameter -> whether training leaves it.

  Returns:
    A TrainState at step 0, on one device.
  """

  @jax.jit
  def init(key):
    image = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
    variables = model.init(key, image, train=False)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      batch_stats=variables.get('batch_stats', {}),
      opt_state=optimizer.init(
        partition.split(variables['params'], is_frozen)[0]
      ),
    )

  return init(jax.random.key(seed))
