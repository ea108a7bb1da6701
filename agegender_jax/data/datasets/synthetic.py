"""Drawn faces, for runs without any data."""

import concurrent.futures
import functools
import multiprocessing
import os
import pickle

from agegender_jax import errors
from agegender_jax.data import decoded_cache
from agegender_jax.data.datasets import base
from agegender_jax.data.synthetic_faces import faces as faces_lib

# Fewer faces are drawn before a worker process has started.
_MIN_PARALLEL = 500


class Synthetic(base.FaceBuilder):
  """Procedurally drawn faces, deterministic in a seed."""

  name = 'synthetic'
  LICENCE = 'Apache-2.0'
  DESCRIPTION = 'Procedurally drawn faces of known age and gender.'

  @classmethod
  def find_source(cls, data, source_dir, data_dir):
    num_examples, seed = data.synthetic_examples, data.synthetic_seed
    if num_examples < 1:
      raise errors.UserError(
        f'config.data.synthetic_examples is {num_examples}; give at least 1'
      )
    return (num_examples, seed), f'n{num_examples}_s{seed}'

  def collect(self):
    found = base.Collected()
    for face in draw(*self.source):
      read = functools.partial(bytes, face['image'])
      found.examples.append(
        base.Example(face['name'], read, float(face['age']), int(face['gender']))
      )
    found.counts['images'] = len(found.examples)
    return found


def draw(num_examples: int, seed: int) -> list[dict]:
  """Draws faces, in processes where that is worth their start.

  Returns:
    The dicts of synthetic_faces.draw_example, by index.
  """
  draw_one = functools.partial(faces_lib.draw_example, seed)
  with decoded_cache.progress_bar(num_examples, 'synthetic: drawing') as bar:
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
