"""Sizes, differences and speed of the exported forms of four networks.

taskset -c 0 python scripts/export_check.py [--rounds=5]

The network that ships is trained; the others have random weights, which changes
neither sizes nor speed. Each form is timed in this process, in turns with our own
predictor, on batches of 1 and of 32 images; medians are printed. For the table in
docs/export.md.
"""

import pathlib
import tempfile
import time

import jax
import numpy as np
import onnxruntime

import agegender_jax
from agegender_jax import cli, errors, models, recipes
from agegender_jax import config as config_lib
from agegender_jax.inference import export, predictor, weights

NETS = {
  'fairface_small (ships)': None,
  'utk_multibranch': '',
  'utk_resnet': 'backbone=resnet50,scratch',
  'adience_levi_hassner': '',
}
FORMS = {'onnx': '', 'onnx float16': 'float16', 'stablehlo': '', 'torch': '',
         'folder': '', 'folder float16': 'float16'}  # fmt: skip
COUNTS = (1, 32)


def create_run(name: str, arg: str, folder: pathlib.Path) -> pathlib.Path:
  """Writes what a finished run leaves for prediction, with random weights."""
  config = recipes.load(f'configs/{name}.py').get_config(arg)
  network = predictor.Network(config)
  variables = models.init_variables(
    network.model, jax.random.key(0), network.input_size
  )
  config_lib.save_config(config, str(folder))
  weights.write(folder / weights.RUN_FILE, jax.device_get(variables), 1)
  return folder


def create_calls(network, place: pathlib.Path) -> tuple[dict, dict]:
  """Returns form -> its printed line, and form -> images -> answers."""
  lines, calls = {}, {'our predictor': network.predict}
  for form, dtype in FORMS.items():
    kind = form.split()[0]
    path = place / form.replace(' ', '_')
    try:
      text = export.export(network, path, kind, dtype)
    except errors.UserError as error:
      lines[form] = str(error)
      continue
    size = sum(
      file.stat().st_size for file in (path.glob('*') if path.is_dir() else [path])
    )
    lines[form] = f'{size / 1e6:.1f} MB | {text.partition(": ")[2]}'
    if kind == 'onnx':
      session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
      calls[form] = lambda images, run=session.run: run(None, {'image': images})
    elif kind == 'stablehlo':
      exported = jax.export.deserialize(bytearray(path.read_bytes()))
      program = jax.jit(exported.call)
      calls[form] = lambda images, program=program: jax.device_get(program(images))
  return lines, calls


def images_per_second(calls: dict, size: int, count: int, rounds: int) -> dict:
  """Returns the median of each form, timed in turns."""
  images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
  times = {form: [] for form in calls}
  for turn in range(rounds + 1):
    for form, call in calls.items():
      start, repeats = time.perf_counter(), 0
      while repeats == 0 or (turn and time.perf_counter() - start < 0.5):
        call(images)
        repeats += 1
      if turn:  # The first compiles.
        times[form].append((time.perf_counter() - start) / repeats / count)
  return {form: 1 / float(np.median(found)) for form, found in times.items()}


def main(arguments) -> None:
  """Runs the command."""
  parser = cli.Parser(__doc__)
  parser.add_argument('--rounds', type=int, default=5, help='of timing')
  args = parser.parse_args(arguments)
  for name, arg in NETS.items():
    with tempfile.TemporaryDirectory() as folder:
      place = pathlib.Path(folder)
      source = '' if arg is None else create_run(name, arg, place)
      network = agegender_jax.load(source, faces='crop')
      size = network.info['image_size']
      print(f'{name}, {size} px, {network.info["num_parameters"]:,} parameters')
      lines, calls = create_calls(network, place)
      for form, line in lines.items():
        print(f'  {form} | {line}')
      for count in COUNTS:
        found = images_per_second(calls, size, count, args.rounds)
        rates = ', '.join(f'{form} {rate:.1f}' for form, rate in found.items())
        print(f'  images/s, {count} at once: {rates}', flush=True)


if __name__ == '__main__':
  cli.run(main)
