"""The file that a trained network is handed on in: safetensors with a checksum.

A finished run writes `network.safetensors` beside its checkpoints; a published
folder holds the same as `model.safetensors`. The metadata say which step the
weights are of and how the faces were cut out (`crop`, see crops.Recipe).
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from agegender_jax import errors, files
from agegender_jax.inference import crops

RUN_FILE, FOLDER_FILE = 'network.safetensors', 'model.safetensors'


def digest(arrays: Mapping[str, np.ndarray]) -> str:
  """Returns the SHA-256 of arrays: their names, types, shapes and bytes."""
  result = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    result.update(f'{name} {array.dtype} {array.shape} '.encode())
    result.update(array.tobytes())
  return result.hexdigest()


def write(
  path: str | os.PathLike,
  variables: Mapping[str, Any],
  step: int,
  recipe: crops.Recipe | None = None,
  dtype: str = '',
) -> None:
  """Writes a network's variables to a file, whole or not at all.

  Args:
    path: of the file.
    variables: `params` and `batch_stats`, arrays on the host.
    step: that they are of.
    recipe: how faces are cut out for it; None where that is not known.
    dtype: that floating-point arrays are stored in, such as float16; '' keeps
      theirs.
  """
  flat = traverse_util.flatten_dict(dict(variables), sep='/')
  arrays = {
    name: np.ascontiguousarray(
      array.astype(dtype) if dtype and array.dtype.kind == 'f' else array
    )
    for name, array in ((name, np.asarray(value)) for name, value in flat.items())
  }
  metadata = {'step': str(step), 'sha256': digest(arrays)}
  if recipe:
    metadata['crop'] = json.dumps(dataclasses.asdict(recipe))
  files.write_whole(path, safetensors.numpy.save(arrays, metadata))


def find(folder: str | os.PathLike) -> pathlib.Path | None:
  """Returns the file of a workdir or a published folder, None without one."""
  places = [pathlib.Path(folder) / name for name in (RUN_FILE, FOLDER_FILE)]
  return next(filter(pathlib.Path.is_file, places), None)


def read(
  path: str | os.PathLike, shapes: Mapping[str, Any]
) -> tuple[dict[str, Any], int, crops.Recipe | None]:
  """Reads a network's variables.

  Args:
    path: of the file.
    shapes: `params` and `batch_stats` as the network has them.

  Returns:
    The variables with the dtypes of `shapes`, the step, the crop's recipe.

  Raises:
    errors.UserError: the file is damaged, or of another network.
  """
  try:
    files.check_regular(path)
    with safetensors.safe_open(path, 'np') as file:
      metadata = file.metadata() or {}
      arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    stored = json.loads(metadata['crop']) if 'crop' in metadata else None
    step, expected = int(metadata['step']), metadata['sha256']
    recipe = crops.Recipe.from_dict(stored) if stored else None
  except (
    OSError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,  # A type that NumPy lacks.
    RecursionError,
    safetensors.SafetensorError,
  ) as e:
    raise errors.UserError(
      f'{path} is damaged or no network of agegender_jax ({errors.one_line(e)}): '
      'copy or train it again'
    ) from None
  if digest(arrays) != expected:
    raise errors.UserError(
      f'{path} is damaged: its contents do not have the stored SHA-256; copy it again'
    )
  wanted = traverse_util.flatten_dict(dict(shapes), sep='/')
  for name in sorted(wanted.keys() | arrays.keys()):
    there = arrays[name].shape if name in arrays else 'absent'
    here = tuple(wanted[name].shape) if name in wanted else 'absent'
    if there != here:
      raise errors.UserError(
        f'{path} is of another network: {name} is {there} there and {here} in '
        'config.json'
      )
  flat = {name: array.astype(wanted[name].dtype) for name, array in arrays.items()}
  for name, array in flat.items():
    if not np.isfinite(array).all():
      raise errors.UserError(f'{path} is damaged: {name} holds values that are none')
  variables = traverse_util.unflatten_dict(flat, sep='/')
  return {key: variables.get(key, {}) for key in shapes}, step, recipe
