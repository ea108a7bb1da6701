"""The multi-branch network: one shared backbone, one branch a task."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from agegender_jax import errors
from agegender_jax.models import cnn, layers


class Branch(nn.Module):
  """A task's own layers and its output layer.

  Attributes:
    layers: see `cnn.parse_layers`; must end flat unless empty on flat input.
    num_outputs: K.
    ordinal: outputs share one weight vector and differ in their bias (CORAL).
    kit: see layers.Kit.
    dtype: of the activations; the output layer computes in float32.
  """

  layers: str
  num_outputs: int
  ordinal: bool = False
  kit: layers.Kit = layers.Kit()
  dtype: Any = None

  @nn.compact
  def __call__(self, features: jax.Array, train: bool) -> jax.Array:
    """Maps features [B, h, w, C] or [B, C] to logits float32 [B, K]."""
    x = cnn.apply_layers(self, self.layers, features, train)
    if x.ndim != 2:
      raise errors.UserError('model.branch must end flat: add "flatten" or "gap" to it')
    x = x.astype(jnp.float32)
    if not self.ordinal:
      return nn.Dense(self.num_outputs, kernel_init=cnn.KERNEL_INIT, name='logits')(x)
    slope = nn.Dense(1, use_bias=False, kernel_init=cnn.KERNEL_INIT, name='logits')
    # Falling, as the probability of being older than each year does.
    first = lambda _, shape: jnp.linspace(2.0, -2.0, *shape)  # noqa: E731
    return slope(x) + self.param('thresholds', first, (self.num_outputs,))[None]


class MultiBranchCNN(nn.Module):
  """Shared backbone, then a branch per task, as in two of the reports.

  Attributes:
    backbone: linen module, `__call__(image, train)` -> features.
    outputs: task name -> number of outputs K.
    branch: layers of each branch, see `cnn.parse_layers`.
    ordinal: tasks whose outputs share one weight vector, see Branch.
    kit: see layers.Kit.
    dtype: of the activations.
  """

  backbone: nn.Module
  outputs: Mapping[str, int]
  branch: str = ''
  ordinal: tuple[str, ...] = ()
  kit: layers.Kit = layers.Kit()
  dtype: Any = None

  @nn.compact
  def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
    """Maps images to logits.

    Args:
      image: float32 [B, H, W, 3], normalised.
      train: batch statistics and dropout as in training.

    Returns:
      Task name -> float32 [B, K].
    """
    features = self.backbone(image, train)
    return {
      name: Branch(
        self.branch,
        num_outputs,
        name in self.ordinal,
        kit=self.kit,
        dtype=self.dtype,
        name=f'branch_{name}',
      )(features, train)
      for name, num_outputs in self.outputs.items()
    }
