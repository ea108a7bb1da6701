"""Finds images that are nearly the same."""

import numpy as np
from PIL import Image

from agegender_jax.data import images

THUMBNAIL = 20  # Pixels, height and width.
MARGIN = 0.1875  # Fraction of the side that it leaves out at each edge.
# Rows compared at once with all others: the block stays in the cache.
_BLOCK = 32


def has_duplicate(hashes: np.ndarray, others: np.ndarray, bits: int = 3) -> np.ndarray:
  """Finds images with a near-duplicate elsewhere.

  Args:
    hashes: uint64 [N], see splits.difference_hash.
    others: uint64 [M], those of the images to compare with.
    bits: the most in which near-duplicates differ.

  Returns:
    bool [N].
  """
  others, result = np.unique(others), np.zeros(len(hashes), bool)
  for start in range(0, len(hashes), _BLOCK):
    block = hashes[start : start + _BLOCK, None]
    result[start : start + _BLOCK] = (
      np.bitwise_count(block ^ others[None]) <= bits
    ).any(1)
  return result


def near_pairs(hashes: np.ndarray, bits: int = 3) -> tuple[np.ndarray, np.ndarray]:
  """Finds all pairs of hashes that differ in few bits, by comparing them all.

  Args:
    hashes: uint64 [N], see splits.difference_hash.
    bits: the most in which a pair differs.

  Returns:
    int64 [K, 2], rows, the lower one first, in ascending order; int64 [K], in
    how many bits they differ.
  """
  pairs, distances = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
  for start in range(0, len(hashes), _BLOCK):
    block, others = hashes[start : start + _BLOCK], hashes[start:]
    distance = np.bitwise_count(block[:, None] ^ others[None])
    first, second = np.nonzero(distance <= bits)
    is_pair = first < second
    first, second = first[is_pair], second[is_pair]
    pairs.append(start + np.stack([first, second], axis=1))
    distances.append(distance[first, second].astype(np.int64))
  return np.concatenate(pairs), np.concatenate(distances)


def thumbnail(image: Image.Image) -> np.ndarray:
  """Returns the grey levels, uint8 [20, 20], of an upright RGB image's middle.

  Corners that turning a face upright has left black, captions and the
  background say little about whether two images are the same.
  """
  small = images.prepare(image, THUMBNAIL, MARGIN)
  return np.asarray(Image.fromarray(small).convert('L'))


def likeness(thumbnails: np.ndarray, pairs: np.ndarray) -> np.ndarray:
  """Correlates thumbnails, whatever their brightness and contrast.

  Args:
    thumbnails: uint8 [N, H, W].
    pairs: int [K, 2], rows of them.

  Returns:
    float32 [K], 1 for the same image; 0 where one has no contrast at all.
  """
  flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
  flat -= flat.mean(axis=1, keepdims=True)
  flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
  # In parts: 100,000 pairs at once would fill the memory.
  parts = np.array_split(pairs, 1 + len(pairs) // 10_000)
  return np.concatenate(
    [np.einsum('kd,kd->k', flat[part[:, 0]], flat[part[:, 1]]) for part in parts]
  )
