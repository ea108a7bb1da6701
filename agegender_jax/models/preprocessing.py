"""What the network sees of an image: crops, mirror images, normalised."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from agegender_jax import errors

# ImageNet's statistics, as torchvision's weights expect them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def cut(image: jax.Array, corner: jax.Array, size: int) -> jax.Array:
  """Cuts a square out of each image.

  Args:
    image: [B, H, W, 3].
    corner: int32 [B, 2], its top and left, pixels.
    size: its height and width, pixels.

  Returns:
    [B, size, size, 3].
  """
  return jax.vmap(
    lambda one, at: jax.lax.dynamic_slice(one, (*at, 0), (size, size, 3))
  )(image, corner)


def create_views(crop_size: int, oversample: bool) -> Callable:
  """Creates the views of an image that a prediction averages over.

  Args:
    crop_size: pixels, height and width, cut from the centre; 0 = all.
    oversample: the four corners too, and the mirror image of each view
      (Levi & Hassner 2015, after Krizhevsky et al. 2012).

  Returns:
    A pure function: [B, H, W, 3] -> a list of [B, h, w, 3].
  """

  def views_fn(image):
    views = [image]
    if crop_size:
      space = [side - crop_size for side in image.shape[1:3]]
      corners = [(space[0] // 2, space[1] // 2)]
      if oversample:
        corners += [(y, x) for y in (0, space[0]) for x in (0, space[1])]
      views = [image[:, y : y + crop_size, x : x + crop_size] for y, x in corners]
    if oversample:
      views += [view[:, :, ::-1] for view in views]
    return views

  return views_fn


def create_normalize(name: str) -> Callable[[jax.Array], jax.Array]:
  """Creates the map from pixels in [0, 255] to what the network sees.

  Args:
    name: `unit` for [0, 1]; `imagenet` for ImageNet's mean 0, deviation 1, as
      torchvision's weights want it; `inception` for [-1, 1], as TensorFlow's do.

  Returns:
    A pure function: [B, H, W, 3] in [0, 255] -> float32 [B, H, W, 3].

  Raises:
    errors.UserError: another name.
  """
  statistics = {
    'unit': ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    'imagenet': (IMAGENET_MEAN, IMAGENET_STD),
    'inception': ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
  }
  if name not in statistics:
    raise errors.unknown('data.normalize', name, statistics)
  mean, std = (255 * jnp.asarray(row, jnp.float32) for row in statistics[name])

  def normalize_fn(image):
    image = image.astype(jnp.float32)
    return (image - mean[None, None, None]) / std[None, None, None]

  return normalize_fn
