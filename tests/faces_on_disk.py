"""Writes small images for tests: no faces, but as face data are named."""

import io

import numpy as np
from PIL import Image

from agegender_jax import config as config_lib
from agegender_jax.data import datasets
from agegender_jax.data import source as source_lib


def data_of(**fields):
  """Returns the block `config.data` with some fields of its own."""
  data = config_lib.default_config().data
  data.update(fields)
  return data


def open_source(name, split, *, drop_conflicts=False, **fields):
  """Opens a split of the data that the fields of `config.data` describe."""
  data = data_of(**fields)
  return source_lib.open_source(data, {}, name, split, data.source_dir, drop_conflicts)


def create_builder(name, **fields):
  """Creates the builder of the data that the fields of `config.data` describe."""
  data = data_of(**fields)
  return datasets.create_builder(data, name, data.source_dir)


def jpeg(seed: int, size: int = 32) -> bytes:
  """Returns an RGB JPEG of smooth noise, different for each seed."""
  rng = np.random.default_rng(seed)
  small = rng.integers(0, 256, (9, 9, 3), np.uint8)
  image = Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)
  stream = io.BytesIO()
  image.save(stream, 'JPEG', quality=90)
  return stream.getvalue()


def write_utkface(folder, count: int, first: int = 0) -> list[str]:
  """Writes images with well-formed UTKFace names and returns the names."""
  folder.mkdir(parents=True, exist_ok=True)
  names = []
  for index in range(first, first + count):
    name = f'{index % 90 + 1}_{index % 2}_{index % 5}_{index:017d}.jpg.chip.jpg'
    (folder / name).write_bytes(jpeg(index))
    names.append(name)
  return names
