"""Whole splits in the memory of the devices (`data.cache=device`).

The host then sends the rows of each batch and nothing else; a step takes its
pictures and labels out of what lies there, see steps.create_train_steps.
"""

import jax
import numpy as np

from agegender_jax import parallel, schema
from agegender_jax.data import sources

# Of a device's memory, what the pictures may take; the rest is for training.
_LARGEST_SHARE = 0.7


def load(source: sources.Source) -> dict[str, jax.Array]:
  """Copies a split to every device.

  Args:
    source: the split, N examples.

  Returns:
    `image` uint8 [devices, N, S, S, 3] and the labels [devices, N], by batch
    key.

  Raises:
    schema.UserError: the devices have too little memory.
  """
  shape = source.gather(np.zeros(1, np.int64)).shape[1:]
  needed = len(source) * int(np.prod(shape))
  statistics = jax.local_devices()[0].memory_stats() or {}
  available = statistics.get('bytes_limit')
  if available and needed > _LARGEST_SHARE * available:
    raise schema.UserError(
      f'data.cache=device needs {needed / 1e9:.1f} GB a device for '
      f'{len(source)} pictures and each has {available / 1e9:.1f} GB: use '
      '--config.data.cache=memmap or a smaller image_size'
    )
  pixels = source.gather(np.arange(len(source)))
  return parallel.replicate({'image': pixels, **source.labels})
