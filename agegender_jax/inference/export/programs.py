"""ONNX and StableHLO: pixels to calibrated answers in one program."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agegender_jax import errors, files, schema
from agegender_jax.inference import predictor
from agegender_jax.scoring import calibration

NUM_IMAGES = 64  # Random ones, on which a program is compared before it is kept.
# Largest difference that rounding may make: years; probabilities.
YEARS, PROBABILITY = 0.01, 1e-3
# Weights rounded to float16 shift answers, as the printed line says.
HALF_FACTOR = 100
# XLA runs the program that is exported, in its plain form, on any platform.
PLATFORMS = ('cpu', 'cuda', 'tpu')


def random_images(size: int) -> np.ndarray:
  """Returns uint8 [NUM_IMAGES, size, size, 3], from dark to bright."""
  random = np.random.default_rng(0)
  image = random.integers(0, 256, (NUM_IMAGES, size, size, 3), np.uint8)
  return (image * random.uniform(0.2, 1, (NUM_IMAGES, 1, 1, 1))).astype(np.uint8)


def create_answer(network) -> Callable:
  """Creates what an exported program computes.

  Args:
    network: an api.Predictor.

  Returns:
    uint8 [B, S, S, 3] -> `age`, `age_low`, `age_high` (years), `age_group`,
    `age_distribution`, `gender_prob`, as far as the network gives them.
  """
  variables, fitted = network.variables, network.fitted or {}
  config = network.config.copy_and_resolve_references()
  if config.model.conv != 'fourier':
    config.model.conv = 'plain'  # XLA's own operations, on any platform.
  predict_step = predictor.Network(config).predict_step

  def answer(image):
    output = predict_step(variables, image)
    result = {}
    if 'age' in output:
      age = output['age'].astype(jnp.float32)
      result['age'] = age
      result['age_group'] = schema.group_of_prediction(age, config.data.age_groups)
      if fitted.get('age'):
        half = np.asarray(fitted['age']['levels'][str(calibration.SHOWN_LEVEL)])
        edges = np.asarray(fitted['age']['edges'], np.float32)
        width = jnp.full_like(age, half[0])
        for edge, step in zip(edges, np.diff(half), strict=True):
          width = width + jnp.where(age >= edge, jnp.float32(step), jnp.float32(0))
        result['age_low'] = jnp.maximum(age - width, 0)
        result['age_high'] = jnp.maximum(age + width, 0)
    if 'age_group' in output:
      result['age_group'] = output['age_group']
    if 'age_distribution' in output:
      result['age_distribution'] = output['age_distribution']
    if 'gender_prob' in output:
      temperature = (fitted.get('gender') or {}).get('temperature', 1.0)
      logit = output['logits']['gender'][:, 0]
      result['gender_prob'] = jax.nn.sigmoid(logit / jnp.float32(temperature))
    return result

  return answer


def metadata(network) -> dict[str, Any]:
  """Returns what a caller of the program has to know."""
  data = network.config.data
  return {
    'name': network.info['name'],
    'step': network.step,
    'input': {
      'image': f'uint8 [N, {data.image_size}, {data.image_size}, 3], RGB, '
      'face crops, resized with an antialiased bilinear filter'
    },
    'crop': network.recipe and dataclasses.asdict(network.recipe),
    'margin': data.crop,
    'filter': data.filter,
    'outputs': {
      'age': 'years',
      'age_low': f'years, {calibration.SHOWN_LEVEL:.0%} interval',
      'age_high': f'years, {calibration.SHOWN_LEVEL:.0%} interval',
      'age_group': ' '.join(schema.age_group_names(data.age_groups)),
      'age_distribution': 'probability of each year from 0',
      'gender_prob': 'probability of female',
    },
    'calibrated': network.info['calibrated'],
  }


def compare(network, found: dict[str, np.ndarray], what: str, factor: float = 1) -> str:
  """Compares a program's answers with the predictor's.

  Args:
    network: an api.Predictor.
    found: of the program for `random_images`.
    what: name of the program, for the error.
    factor: of the differences that are allowed.

  Returns:
    `differs by at most X years and Y of probability on N images`.

  Raises:
    errors.UserError: it differs by more than rounding.
  """
  expected = network.predict(random_images(network.config.data.image_size))
  if set(found) != set(expected):
    raise errors.UserError(
      f'{what} answers {sorted(found)}, the predictor {sorted(expected)}: not kept'
    )
  worst = {'years': 0.0, 'probability': 0.0}
  for name, values in expected.items():
    difference = np.abs(np.asarray(found[name], np.float64) - values).max()
    if name == 'age_group':
      # A rounded age may cross an edge of a group.
      same = (np.asarray(found[name]) == values).mean()
      difference = 0.0 if same >= 0.95 else np.inf
    unit = 'years' if name in ('age', 'age_low', 'age_high') else 'probability'
    worst[unit] = max(worst[unit], float(difference))
  limits = {'years': YEARS * factor, 'probability': PROBABILITY * factor}
  if not all(worst[unit] <= limits[unit] for unit in limits):
    raise errors.UserError(
      f'{what} differs from the predictor by {worst["years"]:.3g} years and '
      f'{worst["probability"]:.3g} of probability: not kept'
    )
  return (
    f'differs by at most {worst["years"]:.2g} years and '
    f'{worst["probability"]:.2g} of probability on {NUM_IMAGES} random images'
  )


def write_onnx(network, path: pathlib.Path, dtype: str) -> str:
  """Writes an ONNX file; see `export`."""
  onnxruntime = errors.import_extra('onnxruntime', 'onnx', 'ONNX')
  errors.import_extra('onnx', 'onnx', 'ONNX')
  from agegender_jax.inference.export import onnx_writer

  size = network.config.data.image_size
  content = onnx_writer.convert(
    create_answer(network), (size, size, 3), metadata(network), dtype == 'float16'
  )
  session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
  names = [output.name for output in session.get_outputs()]
  found = session.run(names, {'image': random_images(size)})
  factor = HALF_FACTOR if dtype else 1
  line = compare(network, dict(zip(names, found, strict=True)), 'the ONNX file', factor)
  files.write_whole(path, content)
  return f'{path}: {len(content) / 1e6:.1f} MB, {line}'


def write_stablehlo(network, path: pathlib.Path, dtype: str = '') -> str:
  """Writes a StableHLO program that `jax.export.deserialize` reads."""
  from jax import export

  size = network.config.data.image_size
  (batch,) = export.symbolic_shape('b')
  image = jax.ShapeDtypeStruct((batch, size, size, 3), np.uint8)
  answer = jax.jit(create_answer(network))
  exported = export.export(answer, platforms=PLATFORMS)(image)
  content = bytes(exported.serialize())
  found = export.deserialize(bytearray(content)).call(random_images(size))
  line = compare(network, jax.device_get(found), 'the StableHLO program')
  files.write_whole(path, content)
  files.write_json(path.with_name(f'{path.name}.json'), metadata(network))
  return f'{path}: {len(content) / 1e6:.1f} MB, {line}'
