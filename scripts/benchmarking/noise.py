"""A batch of noise: timing needs no images."""

import numpy as np

from agegender_jax import schema


def create_batch(config) -> dict[str, np.ndarray]:
  """Returns a batch of noise as the input pipeline returns batches."""
  random = np.random.default_rng(0)
  count, size = config.train.batch_size, config.data.image_size
  years = random.integers(1, 80, count, dtype=np.int32)
  return {
    'image': random.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
    'age': years.astype(np.float32),
    'age_low': years,
    'age_high': years,
    'age_group': schema.group_of_interval(years, years, config.data.age_groups),
    'gender': random.integers(0, 2, count).astype(np.int32),
    'mask': np.ones(count, np.float32),
    'row': np.arange(count, dtype=np.int32),
  }
