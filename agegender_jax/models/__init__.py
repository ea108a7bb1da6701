"""The networks, by name, and the one way to build them."""

import functools
from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn

from agegender_jax import schema
from agegender_jax.models import cnn, heads, layers

# Name -> constructor(model config, **shared fields) of a backbone.
BACKBONES = {
  'cnn': lambda config, **fields: cnn.Stack(config.layers, **fields),
}

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def create_model(
  config, outputs: Mapping[str, int], axis_name: str | None = None
) -> nn.Module:
  """Creates the network of a run.

  Args:
    config: the block `config.model`.
    outputs: task name -> number of outputs.
    axis_name: of the devices over which batch norm averages in training.

  Returns:
    A linen module, `__call__(image, train)` -> task name -> logits [B, K].

  Raises:
    schema.UserError: unknown backbone, dtype or layer.
  """
  if config.dtype not in DTYPES:
    raise schema.UserError(
      f'unknown model.dtype "{config.dtype}"; known: {", ".join(DTYPES)}'
    )
  if config.backbone not in BACKBONES:
    raise schema.UserError(
      f'unknown model.backbone "{config.backbone}"; '
      f'known: {", ".join(sorted(BACKBONES))}'
    )
  cnn.parse_layers(config.layers), cnn.parse_layers(config.branch)
  fields = dict(
    conv=layers.Conv,
    norm=functools.partial(layers.BatchNorm, axis_name=axis_name),
    dtype=DTYPES[config.dtype],
  )
  backbone = BACKBONES[config.backbone](config, **fields)
  return heads.MultiBranchCNN(backbone, outputs, config.branch, **fields)
