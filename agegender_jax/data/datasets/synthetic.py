"""Drawn faces, for runs without any data."""

import collections
import concurrent.futures
import functools
import multiprocessing
import os
import pickle

import tensorflow_datasets as tfds

from agegender_jax import errors
from agegender_jax.data.datasets import common
from agegender_jax.data.datasets import examples as examples_lib
from agegender_jax.data.synthetic_faces import faces as faces_lib

# Fewer faces are drawn before a worker process has started.
_MIN_PARALLEL = 500


class Synthetic(common.FaceBuilder):
  """Procedurally drawn faces, deterministic in a seed."""

  name = 'synthetic'
  LICENCE = 'Apache-2.0'
  DESCRIPTION = 'Procedurally drawn faces of known age and gender.'

  def collect(self):
    num_examples, seed = self.builder_config.source
    examples = [
      examples_lib.Example(
        face['name'],
        functools.partial(bytes, face['image']),
        float(face['age']),
        int(face['gender']),
      )
      for face in draw(num_examples, seed)
    ]
    counts = collections.Counter(pictures=len(examples))
    return examples, counts


def create_builder(
  data_dir: str | None, num_examples: int, seed: int, **options
) -> tfds.core.DatasetBuilder:
  """Creates the builder of drawn faces.

  Args:
    data_dir: where the prepared data go; None = TFDS's own.
    num_examples: how many faces.
    seed: of the drawing.
    **options: those of other builders, not used.

  Raises:
    errors.UserError: fewer than one face.
  """
  del options
  if num_examples < 1:
    raise errors.UserError(
      f'config.data.synthetic_examples is {num_examples}; give at least 1'
    )
  config = common.SourceConfig(
    name=f'n{num_examples}_s{seed}', source=(num_examples, seed)
  )
  return Synthetic(data_dir=data_dir, config=config, file_format='array_record')


def draw(num_examples: int, seed: int) -> list[dict]:
  """Draws faces, in processes where that is worth their start.

  Returns:
    The dicts of synthetic_faces.draw_example, by index.
  """
  draw_one = functools.partial(faces_lib.draw_example, seed)
  with examples_lib.progress_bar(num_examples, 'synthetic: drawing') as bar:
    faces = []
    if num_examples >= _MIN_PARALLEL:
      try:
        # Drawing holds Python's lock; forking a process with threads hangs.
        with concurrent.futures.ProcessPoolExecutor(
          os.cpu_count(), multiprocessing.get_context('spawn')
        ) as pool:
          for face in pool.map(draw_one, range(num_examples), chunksize=50):
            faces.append(face)
            bar.update()
      except (concurrent.futures.BrokenExecutor, OSError, pickle.PickleError):
        pass  # No processes here, or a main program that cannot be imported.
    for index in range(len(faces), num_examples):
      faces.append(draw_one(index))
      bar.update()
  return faces
