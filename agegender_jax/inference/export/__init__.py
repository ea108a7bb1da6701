"""The network in other forms: ONNX, StableHLO, torch and a published folder.

Each form is read back and compared with the predictor before it is kept. `export`
leaves this room; it may import what `inference` may.
"""

import os
import pathlib

from agegender_jax import errors
from agegender_jax.inference.export import folder as folder_lib

# Name -> suffix.
FORMATS = {
  'onnx': '.onnx',
  'stablehlo': '.stablehlo',
  'torch': '.safetensors',
  'folder': '',
}


def export(
  network,
  path: str | os.PathLike = '',
  format: str = '',
  dtype: str = '',
  push: str = '',
) -> str:
  """Exports a network, checked before it is kept.

  Args:
    network: an api.Predictor.
    path: of the file or the folder; '' is `network` with the format's suffix.
    format: key of FORMATS; '' goes by the suffix.
    dtype: of the stored weights: 'float16' or '' for float32; of onnx and folder.
    push: owner/name of the Hugging Face hub that a folder is uploaded to.

  Returns:
    One line: what was written, its size, and how far its answers differ.

  Raises:
    errors.UserError: unknown format, a package is absent, or the network has an
      operation that the format lacks.
  """
  path = pathlib.Path(path)
  suffixes = {suffix: name for name, suffix in FORMATS.items()}
  if not format:
    if path == pathlib.Path():
      raise errors.UserError(f'export needs --format={"|".join(FORMATS)}')
    format = suffixes.get(path.suffix, path.suffix)
  if format not in FORMATS:
    raise errors.unknown('format', format, FORMATS)
  if dtype and format not in ('onnx', 'folder'):
    raise errors.UserError(f'float16 is stored by onnx and folder, not by {format}')
  if push and format != 'folder':
    raise errors.UserError('--push uploads a folder: use --format=folder')
  if path == pathlib.Path():
    path = pathlib.Path(f'network{FORMATS[format]}')
  path.parent.mkdir(parents=True, exist_ok=True)
  if format == 'folder':
    return folder_lib.write(network, path, dtype, push)
  if format == 'torch':
    from agegender_jax.inference.export import torch_state

    return torch_state.write(network, path)
  from agegender_jax.inference.export import programs

  write = programs.write_onnx if format == 'onnx' else programs.write_stablehlo
  return write(network, path, dtype)
