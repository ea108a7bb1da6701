import dataclasses

import numpy as np
import pytest

from agegender_jax import errors
from agegender_jax.inference import crops, weights


def variables():
  random = np.random.default_rng(0)
  return {
    'params': {
      'conv': {
        'kernel': random.normal(size=(3, 3, 3, 4)).astype(np.float32),
        'bias': np.zeros(4, np.float32),
      }
    },
    'batch_stats': {},
  }


def test_what_is_written_is_read(tmp_path):
  path = tmp_path / weights.RUN_FILE
  weights.write(path, variables(), 12, crops.RECIPES['utkface'])
  found, step, recipe = weights.read(path, variables())
  np.testing.assert_array_equal(
    found['params']['conv']['kernel'], variables()['params']['conv']['kernel']
  )
  assert found['batch_stats'] == {} and step == 12
  assert recipe == crops.RECIPES['utkface']
  weights.write(path, variables(), 12)
  assert weights.read(path, variables())[2] is None
  assert weights.find(tmp_path) == path and weights.find(tmp_path / 'no') is None


def test_half_precision_is_half_the_file_and_comes_back_as_float32(tmp_path):
  wide, half = tmp_path / 'a.safetensors', tmp_path / 'b.safetensors'
  big = {'params': {'kernel': np.ones((100, 100), np.float32) / 3}, 'batch_stats': {}}
  weights.write(wide, big, 1)
  weights.write(half, big, 1, dtype='float16')
  assert half.stat().st_size < 0.55 * wide.stat().st_size
  found = weights.read(half, big)[0]['params']['kernel']
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, 1 / 3, rtol=1e-3)


def test_a_damaged_file_is_refused(tmp_path):
  path = tmp_path / weights.RUN_FILE
  weights.write(path, variables(), 12)
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[-5] ^= 1
  for content in (bytes(flipped), whole[:-5], b'no network'):
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match='damaged'):
      weights.read(path, variables())


def test_hostile_contents_with_a_true_digest_are_refused(tmp_path):
  path = tmp_path / weights.RUN_FILE
  bad = variables()
  bad['params']['conv']['bias'][1] = np.nan
  weights.write(path, bad, 12)
  with pytest.raises(errors.UserError, match='params/conv/bias holds values'):
    weights.read(path, variables())
  recipe = crops.RECIPES['utkface']
  for change in (
    {'size': 10**9},
    {'landmarks': recipe.landmarks[:3]},
    {'landmarks': ((float('inf'), 0.0),) * 5},
  ):
    weights.write(path, variables(), 12, dataclasses.replace(recipe, **change))
    with pytest.raises(errors.UserError, match='damaged'):
      weights.read(path, variables())


def test_another_network_is_refused(tmp_path):
  path = tmp_path / weights.RUN_FILE
  weights.write(path, variables(), 12)
  other = variables()
  other['params']['conv']['bias'] = np.zeros(5, np.float32)
  with pytest.raises(errors.UserError, match=r'another network.*conv/bias is \(4,\)'):
    weights.read(path, other)
