"""Which parts of a face a prediction rests on: Grad-CAM.

Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via
gradient-based localization", on the output of the last `layers.Relu`: after the
last convolution (or residual block) and before any pooling.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from agegender_jax import files
from agegender_jax.models import layers, preprocessing, tasks
from agegender_jax.runtime import devices

NUM_FACES = 8


def _apply(model: nn.Module, variables, image: jax.Array, shifts: Mapping):
  """Applies a network whose rectified maps are moved.

  Args:
    model: the network.
    variables: of it.
    image: float32 [B, H, W, 3], normalised.
    shifts: path of a `layers.Relu` -> what is added to its output.

  Returns:
    Logits by task name, and the maps [B, h, w, C] by path, in the order of the
    forward pass.
  """
  maps = {}

  def watch(call, args, kwargs, context):
    output = call(*args, **kwargs)
    if isinstance(context.module, layers.Relu) and output.ndim == 4:
      path = '/'.join(context.module.path)
      output = maps[path] = output + shifts.get(path, 0)
    return output

  with nn.intercept_methods(watch):
    return model.apply(variables, image, train=False), maps


def heat_map(maps: jax.Array, gradient: jax.Array) -> jax.Array:
  """Weighs each channel by the mean gradient of the score, and adds them.

  That is exact behind a global average pooling. Behind a flattened map the
  gradient differs from place to place and its mean says less: such heat is
  coarse evidence (Draelos & Carin 2020).

  Args:
    maps: float [B, h, w, C].
    gradient: of the score with respect to them, likewise.

  Returns:
    float32 [B, h, w] in [0, 1], each divided by its maximum: 0 where nothing
    raises the score.
  """
  weights = gradient.mean(axis=(1, 2), dtype=jnp.float32)
  heat = jnp.einsum('bhwc,bc->bhw', maps.astype(jnp.float32), weights)
  heat = jax.nn.relu(heat)
  top = heat.max(axis=(1, 2), keepdims=True)
  return heat / jnp.where(top > 0, top, 1.0)


def explained_score(task: tasks.Task, logits: jax.Array) -> jax.Array:
  """Returns what a heat map explains, float32 [B].

  For an age in years (direct or as an expectation) the years: the heat shows
  what makes a face look older, not younger. For classes the logit of the
  predicted one; a single logit is one of FEMALE, and minus it one of MALE.

  Args:
    task: the task.
    logits: float32 [B, K].
  """
  decoded = task.decode(logits)
  if 'age' in decoded:
    return decoded['age']
  return jnp.abs(logits[:, 0]) if logits.shape[1] == 1 else logits.max(axis=1)


def explain(network, variables, image: jax.Array) -> dict[str, jax.Array]:
  """Explains the prediction of every task.

  Args:
    network: see predictor.
    variables: on one device.
    image: uint8 [B, S, S, 3], of the network's input size.

  Returns:
    Task name -> float32 [B, h, w], see `heat_map`; tasks without a map are left
    out.
  """

  @jax.jit
  def run(variables, image):
    image = network.normalize_fn(image)
    _, maps = _apply(network.model, variables, image, {})
    found = {}
    for task in network.tasks:
      own = f'branch_{task.name}/'
      paths = [p for p in maps if p.startswith(own) or not p.startswith('branch_')]
      if not paths:
        continue

      def score(shift, task=task, path=paths[-1]):
        logits, _ = _apply(network.model, variables, image, {path: shift})
        return explained_score(task, logits[task.name])

      scores, vjp = jax.vjp(score, jnp.zeros_like(maps[paths[-1]]))
      (gradient,) = vjp(jnp.ones_like(scores))
      found[task.name] = heat_map(maps[paths[-1]], gradient)
    return found

  return run(variables, image)


def write_saliency(network, variables, source, folder) -> None:
  """Writes saliency.npz: `images`, `row`, and the heat by task name.

  The centre of an image is explained where the network sees a crop. Nothing
  is written where there is nothing to explain.

  Args:
    network: see predictor.
    variables: replicated over the devices.
    source: see data.sources; NUM_FACES of it, evenly apart, are explained.
    folder: where to.
  """
  places = np.linspace(0, len(source) - 1, min(NUM_FACES, len(source)))
  rows = places.round().astype(np.int64)
  (image,) = preprocessing.create_views(network.input_size, oversample=False)(
    source.gather(rows)
  )
  found = explain(network, devices.unreplicate(variables), image)
  if found:
    arrays: dict[str, Any] = {
      name: np.asarray(heat, np.float16) for name, heat in found.items()
    }
    path = pathlib.Path(folder) / 'saliency.npz'
    with files.whole(path) as temporary, temporary.open('wb') as file:
      np.savez_compressed(file, images=image, row=rows, **arrays)
