"""Which parts of a face a prediction rests on: Grad-CAM.

Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via
gradient-based localization". A network is traced and cut at the last ReLU
that yields a map, so nets need to know nothing of this.
"""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from agegender_jax import files
from agegender_jax.models import preprocessing, tasks
from agegender_jax.runtime import devices

NUM_FACES = 8


def class_activation_map(
  score_fn: Callable[[jax.Array], jax.Array], image: jax.Array
) -> jax.Array | None:
  """Computes Grad-CAM on the last rectified map before a score.

  That is after the ReLU of the last convolution (or residual block) and before
  any pooling. A channel weighs as much as the mean gradient of the score with
  respect to it.

  That is exact behind a global average pooling. Behind a flattened map the
  gradient differs from place to place and its mean says less: such heat is
  coarse evidence (Draelos & Carin 2020).

  Args:
    score_fn: image -> float [B], each from its own image only.
    image: float32 [B, H, W, 3], normalised.

  Returns:
    float32 [B, h, w] in [0, 1], each divided by its maximum: 0 where nothing
    raises the score. None if the network has no such map.
  """
  closed = jax.make_jaxpr(score_fn)(image)
  jaxpr = closed.jaxpr
  place = _last_map(jaxpr)
  if place is None:
    return None
  features = jaxpr.eqns[place].outvars[0]
  # Without the equation that yields them, the features are an input.
  head = jaxpr.replace(
    invars=[features, *jaxpr.invars],
    eqns=jaxpr.eqns[:place] + jaxpr.eqns[place + 1 :],
  )
  body = jaxpr.replace(outvars=[features])
  (maps,) = jax.core.eval_jaxpr(body, closed.consts, image)

  def total(maps):
    return jax.core.eval_jaxpr(head, closed.consts, maps, image)[0].sum()

  weights = jax.grad(total)(maps).mean(axis=(1, 2), dtype=jnp.float32)
  heat = jnp.einsum('bhwc,bc->bhw', maps.astype(jnp.float32), weights)
  heat = jax.nn.relu(heat)
  top = heat.max(axis=(1, 2), keepdims=True)
  return heat / jnp.where(top > 0, top, 1.0)


def _last_map(jaxpr) -> int | None:
  """Returns the last ReLU of a map that the output depends on."""
  needed = set(jaxpr.outvars)
  for place in reversed(range(len(jaxpr.eqns))):
    equation = jaxpr.eqns[place]
    if needed.isdisjoint(equation.outvars):
      continue
    if _is_relu(equation) and equation.outvars[0].aval.ndim == 4:
      return place
    needed.update(v for v in equation.invars if isinstance(v, core.Var))
  return None


def _is_relu(equation) -> bool:
  """Says whether an equation is `jax.nn.relu`, or layers.relu around it."""
  inner = equation.params.get('call_jaxpr')
  return inner is not None and any(
    part.params.get('name') == 'relu' or _is_relu(part) for part in inner.eqns
  )


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
    Task name -> float32 [B, h, w], see `class_activation_map`; tasks without
    a map are left out.
  """

  @jax.jit
  def run(variables, image):
    def score_fn(task, image):
      logits = network.model.apply(variables, image, train=False)
      return explained_score(task, logits[task.name])

    image = network.normalize_fn(image)
    return {
      task.name: class_activation_map(
        lambda image, task=task: score_fn(task, image), image
      )
      for task in network.tasks
    }

  found = run(variables, image)
  return {name: heat for name, heat in found.items() if heat is not None}


def write_saliency(network, variables, source, folder) -> None:
  """Writes saliency.npz: `images`, `row`, and the heat by task name.

  The centre of a picture is explained where the network sees a crop. Nothing
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
    arrays = {name: np.asarray(heat, np.float16) for name, heat in found.items()}
    path = pathlib.Path(folder) / 'saliency.npz'
    with files.whole(path) as temporary, temporary.open('wb') as file:
      np.savez_compressed(file, images=image, row=rows, **arrays)
