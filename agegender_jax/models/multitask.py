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
    conv: class of the convolutions.
    norm: class of the batch norms.
    dtype: of the activations; the output layer computes in float32.
  """

  layers: str
  num_outputs: int
  conv: Any = layers.Conv
  norm: Any = layers.BatchNorm
  dtype: Any = None

  @nn.compact
  def __call__(self, features: jax.Array, train: bool) -> jax.Array:
    """Maps features [B, h, w, C] or [B, C] to logits float32 [B, K]."""
    x = cnn.apply_layers(self, self.layers, features, train)
    if x.ndim != 2:
      raise errors.UserError('model.branch must end flat: add "flatten" or "gap" to it')
    output = nn.Dense(self.num_outputs, kernel_init=cnn.KERNEL_INIT,
                      name='logits')  # fmt: skip
    return output(x.astype(jnp.float32))


class MultiBranchCNN(nn.Module):
  """Shared backbone, then a branch a task (seeds 000, 001).

  Attributes:
    backbone: linen module, `__call__(image, train)` -> features.
    outputs: task name -> number of outputs K.
    branch: layers of each branch, see `cnn.parse_layers`.
    conv: class of the convolutions.
    norm: class of the batch norms.
    dtype: of the activations.
  """

  backbone: nn.Module
  outputs: Mapping[str, int]
  branch: str = ''
  conv: Any = layers.Conv
  norm: Any = layers.BatchNorm
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
        conv=self.conv,
        norm=self.norm,
        dtype=self.dtype,
        name=f'branch_{name}',
      )(features, train)
      for name, num_outputs in self.outputs.items()
    }
