"""Augmentation of images, on the device, with one key per example.

Geometry is one affine map per example, sampled bilinearly with the border
repeated (Keras' ImageDataGenerator with its default fill, as in the
multi-branch report).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from agegender_jax import errors
from agegender_jax.models import preprocessing

# Area and aspect ratio of an erased rectangle (Zhong et al. 2020).
ERASE_AREA = (0.02, 0.2)
ERASE_ASPECT = (0.3, 3.3)
BLUR_SIGMA = 1 / 64  # Largest deviation, fraction of the side.
DOWNSCALE_LEAST = 0.25  # Smallest side of a shrunk image, fraction.
JPEG_QUALITY = (20, 95)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of red, green, blue.


@dataclasses.dataclass(frozen=True)
class Strengths:
  """How much to augment, as the fields of `config.data` say; 0 switches each off.

  Contrast scales about the image's mean, a blur has a deviation of up to BLUR_SIGMA,
  shrinking goes to DOWNSCALE_LEAST, and JPEG has a quality in JPEG_QUALITY.
  """

  flip: bool = False
  rotation: float = 0.0
  zoom: float = 0.0
  shift: float = 0.0
  brightness: float = 0.0
  contrast: float = 0.0
  saturation: float = 0.0
  grey: float = 0.0
  blur: float = 0.0
  downscale: float = 0.0
  jpeg: float = 0.0
  erase: float = 0.0

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      limit = 180 if name == 'rotation' else 1
      if not 0 <= value <= limit or (name == 'zoom' and value == 1):
        raise errors.UserError(
          f'data.{name} = {value} is outside [0, {limit}'
          + (')' if name == 'zoom' else ']')
        )


def create_strengths(config) -> Strengths:
  """Creates the strengths that the block `config.data` asks for."""
  return Strengths(
    **{field.name: config[field.name] for field in dataclasses.fields(Strengths)}
  )


def affine_matrices(
  flip: jax.Array, angle: jax.Array, zoom: jax.Array, shift: jax.Array
) -> jax.Array:
  """Builds the maps from output to input positions, relative to the centre.

  Args:
    flip: bool [B], mirror left and right (first).
    angle: float32 [B], radians, counter-clockwise as seen (second).
    zoom: float32 [B], above 1 enlarges (third).
    shift: float32 [B, 2], down and right, pixels (last).

  Returns:
    float32 [B, 2, 3]: input (y, x) = M @ (output y, output x, 1).
  """
  cos, sin = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
  linear = jnp.stack([jnp.stack([cos, sin], -1), jnp.stack([-sin, cos], -1)], -2)
  linear = (
    linear
    * jnp.stack([jnp.ones_like(zoom), jnp.where(flip, -1.0, 1.0)], -1)[:, :, None]
  )
  offset = -jnp.einsum('bij,bj->bi', linear, shift)
  return jnp.concatenate([linear, offset[..., None]], axis=-1)


def warp(image: jax.Array, matrices: jax.Array) -> jax.Array:
  """Samples each image along its affine map, bilinear, border repeated.

  Args:
    image: uint8 [B, H, W, 3].
    matrices: float32 [B, 2, 3], see `affine_matrices`.

  Returns:
    float32 [B, H, W, 3], in [0, 255].
  """
  batch, height, width, _ = image.shape
  centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
  y = jnp.arange(height, dtype=jnp.float32)[None, :, None] - centre_y
  x = jnp.arange(width, dtype=jnp.float32)[None, None, :] - centre_x
  m = matrices[:, :, :, None, None]
  source_y = m[:, 0, 0] * y + m[:, 0, 1] * x + m[:, 0, 2] + centre_y
  source_x = m[:, 1, 0] * y + m[:, 1, 1] * x + m[:, 1, 2] + centre_x
  source_y = jnp.clip(source_y, 0, height - 1)
  source_x = jnp.clip(source_x, 0, width - 1)
  top, left = jnp.floor(source_y), jnp.floor(source_x)
  down, right = (source_y - top)[..., None], (source_x - left)[..., None]
  top, left = top.astype(jnp.int32), left.astype(jnp.int32)
  bottom = jnp.minimum(top + 1, height - 1)
  end = jnp.minimum(left + 1, width - 1)

  # One 32-bit word per pixel: a third of the gathers, which are what it costs.
  words = jnp.asarray(image, jnp.uint32)
  packed = words[..., 0] | words[..., 1] << 8 | words[..., 2] << 16
  packed = packed.reshape(-1)
  start = jnp.arange(batch)[:, None, None] * (height * width)

  def tap(row, column):
    place = start + row * width + column
    word = packed.at[place].get(mode='promise_in_bounds')[..., None]
    shifts = jnp.arange(0, 24, 8, dtype=jnp.uint32)[None, None, None]
    return (word >> shifts & 0xFF).astype(jnp.float32)

  upper = tap(top, left) * (1 - right) + tap(top, end) * right
  lower = tap(bottom, left) * (1 - right) + tap(bottom, end) * right
  return upper * (1 - down) + lower * down


def adjust(image: jax.Array, brightness: jax.Array, contrast: jax.Array) -> jax.Array:
  """Scales about the image's mean, adds an offset, clips to [0, 255].

  Args:
    image: float32 [B, H, W, 3], in [0, 255].
    brightness: float32 [B], offset as a fraction of 255.
    contrast: float32 [B], factor.

  Returns:
    float32 [B, H, W, 3].
  """
  mean = image.mean(axis=(1, 2, 3), keepdims=True)
  offset = mean + 255 * brightness[:, None, None, None]
  result = (image - mean) * contrast[:, None, None, None] + offset
  return jnp.clip(result, 0, 255)


def saturate(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Scales each pixel's distance from its luma, clips to [0, 255].

  Args:
    image: float32 [H, W, 3], in [0, 255].
    factor: float32 []; 0 leaves no colours.

  Returns:
    float32 [H, W, 3].
  """
  luma = (image @ np.array(LUMA, np.float32))[..., None]
  return jnp.clip(luma + (image - luma) * factor, 0, 255)


def blur_matrix(size: int, sigma: jax.Array) -> jax.Array:
  """Returns the Gaussian blur of a line of pixels, cut off at its ends.

  Args:
    size: pixels, N.
    sigma: float32 [], pixels; 0 for no blur.

  Returns:
    float32 [N, N]: blurred = M @ line.
  """
  distance = jnp.arange(size)[:, None] - jnp.arange(size)[None]
  return jax.nn.softmax(-0.5 * jnp.square(distance / jnp.maximum(sigma, 1e-3)))


def downscale_matrix(size: int, kept: jax.Array) -> jax.Array:
  """Returns the map that shrinks a line of pixels and enlarges it, bilinear.

  Shrinking averages over a triangle, as Pillow's BILINEAR does.

  Args:
    size: pixels, N.
    kept: float32 [], whole pixels in between, 1 to N.

  Returns:
    float32 [N, N]: result = M @ line.
  """
  small, large = jnp.arange(size)[:, None] + 0.5, jnp.arange(size)[None] + 0.5
  distance = jnp.abs(small - large * kept / size)  # In small pixels.
  weight = jnp.where(small < kept, jnp.maximum(1 - distance, 0), 0)
  down = weight / jnp.maximum(weight.sum(1, keepdims=True), 1e-6)
  up = weight / weight.sum(0, keepdims=True)
  return up.T @ down


def filter_lines(image: jax.Array, matrix: Callable) -> jax.Array:
  """Applies a map of lines of pixels to all columns and all rows.

  Args:
    image: float32 [H, W, 3].
    matrix: number of pixels N -> float32 [N, N].

  Returns:
    float32 [H, W, 3].
  """
  rows, columns = (matrix(size) for size in image.shape[:2])
  return jnp.einsum('ij,jkc,lk->ilc', rows, image, columns)


# ITU-T T.81, tables K.1 and K.2: the quantisation of luma and chroma.
_JPEG_TABLES = np.array([
  [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
   14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
   18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
   49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99],
  [17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
   24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99] + 32 * [99],
], np.float32)[[0, 1, 1]].reshape(3, 64)  # fmt: skip
_TO_YCC = np.array([
  LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)
], np.float32)  # fmt: skip


def _cosines():
  """Returns the cosine transform of 8 x 8 pixels, a matrix [64, 64]."""
  n = np.arange(8)
  line = np.cos(np.pi / 8 * (n + 0.5) * n[:, None]) / 2
  line[0] = 8**-0.5
  return np.kron(line, line).astype(np.float32)


def jpeg(image: jax.Array, quality: jax.Array) -> jax.Array:
  """Gives an image the losses of JPEG, without subsampling of colours.

  Args:
    image: float32 [H, W, 3], in [0, 255].
    quality: float32 [], 1 to 100, as the IJG library (and Pillow) scale it.

  Returns:
    float32 [H, W, 3], whole numbers in [0, 255].
  """
  height, width, _ = image.shape
  rows, columns = -(-height // 8), -(-width // 8)
  pads = (0, 8 * rows - height), (0, 8 * columns - width), (0, 0)
  ycc = jnp.round(jnp.pad(jnp.round(image), pads, 'edge') @ _TO_YCC.T)
  grid = (rows, 8, columns, 8, 3)
  blocks = ycc.reshape(grid).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 64)
  level = np.array([128, 0, 0], np.float32)[None, :, None]  # Of luma only.
  percent = jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality)
  steps = jnp.clip(jnp.floor((_JPEG_TABLES * percent + 50) / 100), 1, 255)[None]
  cosines = _cosines()
  found = jnp.round((blocks - level) @ cosines.T / steps) * steps
  blocks = jnp.round(found @ cosines) + level
  blocks = blocks.reshape(rows, columns, 3, 8, 8).transpose(0, 3, 1, 4, 2)
  ycc = blocks.reshape(8 * rows, 8 * columns, 3)[:height, :width]
  return jnp.clip(jnp.round(ycc @ np.linalg.inv(_TO_YCC).T), 0, 255)


def erase(image: jax.Array, box: jax.Array) -> jax.Array:
  """Replaces a rectangle by the image's mean colour.

  Args:
    image: float32 [B, H, W, 3].
    box: float32 [B, 4], top, left, bottom, right in pixels, ends excluded;
      an empty box erases nothing.

  Returns:
    float32 [B, H, W, 3].
  """
  y = jnp.arange(image.shape[1], dtype=jnp.float32)[None, :, None]
  x = jnp.arange(image.shape[2], dtype=jnp.float32)[None, None, :]
  top, left, bottom, right = (box[:, i, None, None] for i in range(4))
  inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
  colour = image.mean(axis=(1, 2), keepdims=True)
  return jnp.where(inside[..., None], colour, image)


def _draw_box(key, probability, height, width):
  keys = jax.random.split(key, 4)
  area = jax.random.uniform(keys[0], (), jnp.float32, *ERASE_AREA)
  low, high = map(jnp.log, ERASE_ASPECT)
  aspect = jnp.exp(jax.random.uniform(keys[1], (), jnp.float32, low, high))
  sides = jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)])
  size = jnp.minimum(sides, 1.0) * jnp.array([height, width])
  space = jnp.array([height, width]) - size
  corner = jax.random.uniform(keys[2], (2,)) * space
  hit = jax.random.bernoulli(keys[3], probability)
  return jnp.concatenate([corner, corner + jnp.where(hit, size, 0)])


def draw(key: jax.Array, strengths: Strengths, height: int, width: int):
  """Draws one example's parameters.

  Args:
    key: typed PRNG key of the example.
    strengths: see Strengths.
    height: pixels.
    width: pixels.

  Returns:
    A dict of flip, angle (radians), zoom, shift (pixels), brightness,
    contrast and box, as `affine_matrices`, `adjust` and `erase` take them.
  """
  keys = jax.random.split(key, 7)

  def either_way(row, limit, shape=()):
    return jax.random.uniform(keys[row], shape, minval=-limit, maxval=limit)

  return {
    'flip': jax.random.bernoulli(keys[0]) & strengths.flip,
    'angle': either_way(1, jnp.deg2rad(strengths.rotation)),
    'zoom': 1 + either_way(2, strengths.zoom),
    'shift': either_way(3, strengths.shift, (2,)) * jnp.array([height, width]),
    'brightness': either_way(4, strengths.brightness),
    'contrast': 1 + either_way(5, strengths.contrast),
    'box': _draw_box(keys[6], strengths.erase, height, width),
  }


def spoil(key: jax.Array, strengths: Strengths, image: jax.Array) -> jax.Array:
  """Gives one image the colours, blur and losses of poorer photos.

  Args:
    key: typed PRNG key of the example; `draw` and the crop have other numbers.
    strengths: see Strengths; parts that are off are not computed.
    image: float32 [H, W, 3], in [0, 255].

  Returns:
    float32 [H, W, 3], in [0, 255].
  """

  def uniform(number, low, high):
    key_of_number = jax.random.fold_in(key, number)
    return jax.random.uniform(key_of_number, (), minval=low, maxval=high)

  def hit(number, probability):
    return uniform(number, 0, 1) < probability

  if strengths.saturation or strengths.grey:
    change = uniform(8, -strengths.saturation, strengths.saturation)
    image = saturate(image, jnp.where(hit(9, strengths.grey), 0, 1 + change))
  if strengths.blur:
    sigma = uniform(11, BLUR_SIGMA / 5, BLUR_SIGMA)
    sigma = jnp.where(hit(10, strengths.blur), sigma, 0)
    image = filter_lines(image, lambda size: blur_matrix(size, size * sigma))
  if strengths.downscale:
    share = uniform(13, DOWNSCALE_LEAST, 1)
    share = jnp.where(hit(12, strengths.downscale), share, 1)
    image = filter_lines(
      image, lambda size: downscale_matrix(size, jnp.round(size * share))
    )
  if strengths.jpeg:
    quality = jnp.round(uniform(15, *JPEG_QUALITY))
    image = jnp.where(hit(14, strengths.jpeg), jpeg(image, quality), image)
  return image


def create_augment(strengths: Strengths, crop_size: int = 0) -> Callable:
  """Creates the augmentation of a run.

  Args:
    strengths: see Strengths; parts that are off cost nothing.
    crop_size: pixels, height and width, cut at random places; 0 = all.

  Returns:
    A pure function: keys [B] and image uint8 [B, H, W, 3] -> float32
    [B, h, w, 3] in [0, 255].
  """
  warps = strengths.rotation or strengths.zoom or strengths.shift

  def augment_fn(keys, image):
    if crop_size:
      space = jnp.array(image.shape[1:3]) - crop_size + 1
      crop_keys = jax.vmap(lambda key: jax.random.fold_in(key, 7))(keys)
      corner = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, space))(crop_keys)
      image = preprocessing.cut(image, corner, crop_size)
    height, width = image.shape[1:3]
    drawn = jax.vmap(lambda key: draw(key, strengths, height, width))(keys)
    if warps:
      names = ('flip', 'angle', 'zoom', 'shift')
      image = warp(image, affine_matrices(*(drawn[name] for name in names)))
    elif strengths.flip:
      image = jnp.where(drawn['flip'][:, None, None, None], image[:, :, ::-1], image)
    image = image.astype(jnp.float32)
    if strengths.brightness or strengths.contrast:
      image = adjust(image, drawn['brightness'], drawn['contrast'])
    image = jax.vmap(lambda key, one: spoil(key, strengths, one))(keys, image)
    if strengths.erase:
      image = erase(image, drawn['box'])
    return image

  return augment_fn
