import itertools

import numpy as np
import pytest
from PIL import Image

from agegender_jax.data import duplicates


def test_near_pairs_counts_differing_bits():
  hashes = np.array([0, 0b111, 2**63, 0b1111, 0], np.uint64)
  pairs, distances = duplicates.near_pairs(hashes, bits=3)
  assert pairs.tolist() == [[0, 1], [0, 2], [0, 4], [1, 3], [1, 4], [2, 4]]
  assert distances.tolist() == [3, 1, 0, 1, 3, 1]
  assert len(duplicates.near_pairs(hashes, bits=4)[0]) == 9


@pytest.mark.parametrize('bits', [0, 3, 5])
def test_near_pairs_misses_none_across_blocks(bits):
  random = np.random.default_rng(0)
  hashes = random.integers(0, 2**64, 150, np.uint64)
  for row in range(60):  # Neighbours at 0 to 6 bits, far apart in the list.
    flips = random.choice(64, row % 7, replace=False)
    change = sum(1 << int(bit) for bit in flips)
    hashes[149 - row] = hashes[row] ^ np.uint64(change)
  expected = [
    (i, j, (int(hashes[i]) ^ int(hashes[j])).bit_count())
    for i, j in itertools.combinations(range(150), 2)
  ]
  expected = [row for row in expected if row[2] <= bits]
  pairs, distances = duplicates.near_pairs(hashes, bits)
  found = sorted((*pair, d) for pair, d in zip(pairs.tolist(), distances,
                                               strict=True))  # fmt: skip
  assert found == expected
  assert len(found) >= 8


def test_near_pairs_of_nothing():
  pairs, distances = duplicates.near_pairs(np.zeros(0, np.uint64))
  assert pairs.shape == (0, 2)
  assert distances.shape == (0,)


def test_likeness_is_the_correlation_whatever_the_contrast():
  grey = np.array([[10, 20], [30, 40]], np.uint8)
  other = np.array([[10, 30], [20, 40]], np.uint8)
  thumbnails = np.stack([
    grey, 2 * grey + 7, 100 - grey, other, np.full_like(grey, 9),
  ])  # fmt: skip
  pairs = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [4, 4]])
  found = duplicates.likeness(thumbnails, pairs)
  np.testing.assert_allclose(found, [1, -1, 0.8, 0, 0], atol=1e-6)


def test_thumbnail_leaves_out_the_edges():
  image = np.full((32, 32, 3), 255, np.uint8)
  image[6:-6, 6:-6] = 40
  found = duplicates.thumbnail(Image.fromarray(image))
  assert found.shape == (20, 20)
  assert found[2:-2, 2:-2].max() == 40


def test_has_duplicate_counts_differing_bits():
  hashes = np.array([0, 0b1111, 2**63 + 0b1000], np.uint64)
  others = np.array([2**64 - 1, 0b111], np.uint64)
  found = duplicates.has_duplicate(hashes, others)  # 3, 1 and 5 bits apart.
  np.testing.assert_array_equal(found, [True, True, False])
  found = duplicates.has_duplicate(hashes, others, bits=1)
  np.testing.assert_array_equal(found, [False, True, False])
