"""The networks, by name, and the one way to build and initialise them.

May import `ops`, `runtime` and what lies below it. `create_model`, `BACKBONES` and
`tasks.create_tasks` leave this room, and `pretrained`'s first weights.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from agegender_jax import errors, ops
from agegender_jax.models import (
  cnn,
  efficientnet,
  layers,
  levi_hassner,
  multitask,
  resnet,
  vgg,
)

_RESNET_FIELDS = ('width', 'first_pool', 'squeeze_excite', 'resnet_d', 'drop_path')
# Name -> class of a backbone, and the fields of the model config that it takes
# beside `kit` and `dtype`.
BACKBONES = {
  'cnn': (cnn.Stack, ('layers',)),
  'efficientnet_lite0': (efficientnet.EfficientNetLite0, ()),
  'levi_hassner': (levi_hassner.LeviHassner, ('lrn_after', 'dense_features')),
  'resnet18': (resnet.ResNet18, _RESNET_FIELDS),
  'resnet34': (resnet.ResNet34, _RESNET_FIELDS),
  'resnet50': (resnet.ResNet50, _RESNET_FIELDS),
  'resnet101': (resnet.ResNet101, _RESNET_FIELDS),
  'resnet152': (resnet.ResNet152, _RESNET_FIELDS),
  'vgg16': (vgg.VGG16, ()),
  'vgg16_bn': (vgg.VGG16BN, ()),
}

# direct is what suits the backend.
CONVS = ('direct', *ops.FORMULATIONS)
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def create_model(
  config,
  outputs: Mapping[str, int],
  axis_name: str | None = None,
  is_frozen: Callable[[str], bool] = lambda path: False,
  ordinal: tuple[str, ...] = (),
) -> nn.Module:
  """Creates the network of a run.

  Args:
    config: the block `config.model`.
    outputs: task name -> number of outputs.
    axis_name: of the devices over which batch norm averages in training, and
      whose rows dropout counts.
    is_frozen: path of a parameter -> whether training leaves it; a batch norm
      whose scale is frozen uses and keeps its running statistics.
    ordinal: tasks whose outputs share one weight vector (CORAL).

  Returns:
    A linen module, `__call__(image, train)` -> task name -> logits [B, K].

  Raises:
    errors.UserError: unknown backbone, dtype or layer, or a width that is none.
  """
  for field, known in (('backbone', BACKBONES), ('conv', CONVS), ('dtype', DTYPES)):
    if config[field] not in known:
      raise errors.unknown(f'model.{field}', config[field], sorted(known))
  # The first of a ResNet's layers has 64 channels times the width, half of them too.
  widths = config.dense_features
  if config.width < 1 / 32 or not all(isinstance(n, int) and n > 0 for n in widths):
    raise errors.UserError(
      'model.width must be at least 1/32, each of model.dense_features a whole number '
      'from 1 on'
    )
  # Written wrongly, either would be refused later, and less clearly.
  for text in (config.layers, config.branch):
    cnn.parse_layers(text)
  formulation = '' if config.conv == 'direct' else config.conv
  kit = layers.Kit(
    conv=layers.conv(formulation),
    norm=functools.partial(layers.BatchNorm, axis_name=axis_name, is_frozen=is_frozen),
    drop=functools.partial(layers.Dropout, axis_name=axis_name),
    max_pool=functools.partial(ops.max_pool, formulation=formulation),
  )
  fields = dict(kit=kit, dtype=DTYPES[config.dtype])
  if (config.backbone, config.conv) == ('efficientnet_lite0', 'fourier'):
    raise errors.UserError(
      'model.conv=fourier has no groups, which efficientnet_lite0 needs'
    )
  create_backbone, names = BACKBONES[config.backbone]
  backbone = create_backbone(**{name: config[name] for name in names}, **fields)
  return multitask.MultiBranchCNN(backbone, outputs, config.branch, ordinal, **fields)


def published_pixels(backbone: str) -> str:
  """Returns the `data.normalize` that a backbone's published weights want."""
  return 'inception' if backbone == 'efficientnet_lite0' else 'imagenet'


def init_variables(model: nn.Module, key: jax.Array, image_size: int) -> dict:
  """Initialises a network's variables.

  Args:
    model: linen module, `__call__(image, train)`.
    key: of the initialisation.
    image_size: pixels, height and width, of what the network sees.

  Returns:
    `params` and, where there are any, `batch_stats`.
  """
  image = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
  return model.init(key, image, train=False)
