"""Tests of models/pretrained.py and models/torch_pickle.py, without torch."""

import collections
import hashlib
import io
import json
import os
import pickle
import struct
import sys
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest

from agegender_jax import errors
from agegender_jax.models import pretrained, torch_pickle

_STORAGES = {v: k for k, v in torch_pickle._DTYPES.items()}


class _Global:
  """Pickles as a bare name, `module.name`, of a module that is absent."""

  def __init__(self, module, name):
    self.module, self.name = module, name


class _Rebuilt:
  """Pickles as torch pickles a tensor on a storage."""

  def __init__(self, key, storage, offset, shape, strides):
    self.pid = key, storage
    self.args = offset, shape, strides


class _Pickler(pickle._Pickler):
  """Writes what torch.save writes, by the pickle's own opcodes."""

  dispatch = dict(pickle._Pickler.dispatch)

  def save_global_name(self, value):
    self.write(f'c{value.module}\n{value.name}\n'.encode())

  def save_rebuilt(self, value):
    (key, storage), (offset, shape, strides) = value.pid, value.args
    self.save(_Global('torch._utils', '_rebuild_tensor_v2'))
    self.write(pickle.MARK)
    kind = _STORAGES[storage.dtype.type]
    pid = 'storage', _Global('torch', kind), key, 'cpu', storage.size
    if self.is_legacy:
      pid += (None,)
    self.save(pid)
    self.write(pickle.BINPERSID)
    for item in (offset, shape, strides, False, collections.OrderedDict()):
      self.save(item)
    self.write(pickle.TUPLE + pickle.REDUCE)

  dispatch[_Global] = save_global_name
  dispatch[_Rebuilt] = save_rebuilt


def _pickled(value, is_legacy=False):
  file = io.BytesIO()
  pickler = _Pickler(file, protocol=2)
  pickler.is_legacy = is_legacy
  pickler.dump(value)
  return file.getvalue()


def _write_zip(path, value, storages, data=None):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('net/data.pkl', data or _pickled(value))
    archive.writestr('net/byteorder', 'little')
    for key, storage in storages.items():
      archive.writestr(f'net/data/{key}', storage.tobytes())


def _write_stream(path, value, storages):
  with open(path, 'wb') as file:
    info = {'little_endian': True, 'protocol_version': 1001}
    for item in (0x1950A86A20F9469CFC6C, 1001, info):
      file.write(pickle.dumps(item, protocol=2))
    file.write(_pickled(value, is_legacy=True))
    file.write(pickle.dumps(list(storages), protocol=2))
    for storage in storages.values():
      file.write(struct.pack('<q', storage.size) + storage.tobytes())


def _example():
  """Returns an object of tensors, its storages, and the arrays it means."""
  storages = {
    '0': np.arange(6, dtype=np.float32),
    '1': np.array([1, 2.5, -3], ml_dtypes.bfloat16),
    '2': np.array([7], np.int64),
  }
  value = collections.OrderedDict(
    turned=_Rebuilt('0', storages['0'], 0, (3, 2), (1, 3)),
    tied=_Rebuilt('0', storages['0'], 2, (2,), (1,)),
    half=_Rebuilt('1', storages['1'], 0, (3,), (1,)),
    number=_Rebuilt('2', storages['2'], 0, (), ()),
    empty=_Rebuilt('2', storages['2'], 0, (0, 4), (4, 1)),
  )
  expected = {
    'turned': np.float32([[0, 3], [1, 4], [2, 5]]),
    'tied': np.float32([2, 3]),
    'half': storages['1'],
    'number': np.array(7),
    'empty': np.zeros((0, 4), np.int64),
  }
  return value, storages, expected


@pytest.mark.parametrize('write', [_write_zip, _write_stream])
def test_load_reads_strides_shared_storages_and_bfloat16(tmp_path, write):
  value, storages, expected = _example()
  path = tmp_path / 'net.pth'
  write(path, {'state_dict': value, 'epoch': 3}, storages)
  state = pretrained.load_state(str(path))
  assert list(state) == list(expected)
  for key, array in expected.items():
    assert state[key].dtype == array.dtype
    np.testing.assert_array_equal(state[key], array)


@pytest.mark.parametrize('write', [_write_zip, _write_stream])
@pytest.mark.parametrize('part', [0.1, 0.5, 0.97])
def test_load_refuses_a_truncated_file(tmp_path, write, part):
  value, storages, _ = _example()
  path = tmp_path / 'net.pth'
  write(path, value, storages)
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * part)])
  with pytest.raises(errors.UserError, match=r'truncated .*fetch it again$'):
    pretrained.load_state(str(path))


class _Malicious:
  def __init__(self, marker):
    self.marker = marker

  def __reduce__(self):
    return os.mkdir, (self.marker,)


@pytest.mark.parametrize('is_zip', [True, False])
def test_load_refuses_a_malicious_pickle(tmp_path, is_zip):
  marker, path = tmp_path / 'marker', tmp_path / 'net.pth'
  data = pickle.dumps({'fc.weight': _Malicious(str(marker))}, protocol=2)
  if is_zip:
    _write_zip(path, None, {}, data)
  else:
    path.write_bytes(data)
  with pytest.raises(errors.UserError) as error:
    pretrained.load_state(str(path))
  assert 'is refused: its pickle asks for ' in str(error.value)
  assert '\n' not in str(error.value)
  assert not marker.exists()


@pytest.mark.parametrize(
  'module, name',
  [
    ('builtins', 'eval'),
    ('torch.nn.modules.conv', 'Conv2d'),
    ('torch', 'load'),
    ('collections', 'OrderedDict.fromkeys'),
  ],
)
def test_load_refuses_every_other_name(tmp_path, module, name):
  path = tmp_path / 'net.pth'
  _write_zip(path, [_Global(module, name)], {})
  with pytest.raises(errors.UserError, match=f'asks for {module}.{name}'):
    pretrained.load_state(str(path))


@pytest.mark.parametrize(
  'offset, shape, strides',
  [
    (0, (7,), (1,)),
    (5, (2,), (1,)),
    (0, (2,), (6,)),
    (-1, (2,), (1,)),
    (0, (10**12,), (0,)),
  ],
)
def test_load_never_reads_past_a_storage(tmp_path, offset, shape, strides):
  storage = np.arange(6, dtype=np.float32)
  path = tmp_path / 'net.pth'
  tensor = _Rebuilt('0', storage, offset, shape, strides)
  _write_zip(path, {'x': tensor}, {'0': storage})
  with pytest.raises(errors.UserError, match='truncated'):
    pretrained.load_state(str(path))


def test_load_state_reads_npz(tmp_path):
  path = tmp_path / 'net.npz'
  np.savez(path, **{'fc.bias': np.float32([1, 2])})
  state = pretrained.load_state(str(path))
  np.testing.assert_array_equal(state['fc.bias'], [1, 2])


def test_load_state_reads_safetensors_and_refuses_a_truncated_one(tmp_path):
  numpy = pytest.importorskip('safetensors.numpy')
  path = tmp_path / 'net.safetensors'
  half = np.array([1.5, 2], ml_dtypes.bfloat16)
  numpy.save_file({'fc.bias': half}, path)
  state = pretrained.load_state(str(path))
  np.testing.assert_array_equal(state['fc.bias'], half)
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(errors.UserError, match='truncated or damaged'):
    pretrained.load_state(str(path))


def test_load_state_refuses_types_that_numpy_lacks(tmp_path):
  pytest.importorskip('safetensors.numpy')
  tensor = {'dtype': 'F8_E4M3', 'shape': [2], 'data_offsets': [0, 2]}
  header = json.dumps({'fc.bias': tensor}).encode()
  path = tmp_path / 'net.safetensors'
  path.write_bytes(struct.pack('<Q', len(header)) + header + bytes(2))
  with pytest.raises(errors.UserError, match='save it again as float32') as error:
    pretrained.load_state(str(path))
  assert '\n' not in str(error.value)


def test_load_state_refuses_an_array_that_is_named_npz(tmp_path):
  np.save(tmp_path / 'net.npy', np.ones(3))
  path = (tmp_path / 'net.npy').rename(tmp_path / 'net.npz')
  with pytest.raises(errors.UserError, match='net.npz holds no state dict'):
    pretrained.load_state(str(path))


def test_load_state_refuses_a_bent_npz(tmp_path):
  path = tmp_path / 'net.npz'
  np.savez_compressed(path, **{'fc.bias': np.arange(4096.0)})
  data = bytearray(path.read_bytes())
  data[60:] = bytes(255 - byte for byte in data[60:400]) + data[400:]
  path.write_bytes(data)
  with pytest.raises(errors.UserError, match='truncated or damaged'):
    pretrained.load_state(str(path))


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('net.h5', b'x', 'weights are .pth'),
    ('net.npz', b'x', 'truncated or damaged'),
    ('net.pth', b'', 'truncated'),
    ('net.pth', b'<html>', 'truncated'),
  ],
)
def test_load_state_refuses_other_files(tmp_path, name, content, message):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match=message):
    pretrained.load_state(str(path))


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(errors.UserError, match='no such file of weights: .*x.pth'):
    pretrained.locate(str(tmp_path / 'x.pth'))


def test_load_state_refuses_an_object_that_is_no_state_dict(tmp_path):
  _write_zip(tmp_path / 'net.pth', {'epoch': 3}, {})
  with pytest.raises(errors.UserError, match="'epoch' is no tensor"):
    pretrained.load_state(str(tmp_path / 'net.pth'))


def test_locate_records_the_digest_of_a_local_file(tmp_path):
  path = tmp_path / 'net.npz'
  path.write_bytes(b'weights')
  origin = pretrained.locate(str(path))
  assert origin.sha256 == hashlib.sha256(b'weights').hexdigest()
  assert origin.revision == '' and origin.path == str(path)


def test_a_package_that_is_absent_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(errors.UserError, match=r'needs huggingface_hub: .*\[hub\]'):
    pretrained.locate('hf:here/net')


@pytest.fixture
def hub(monkeypatch, tmp_path):
  """Stands in for the hub; returns the folder of `here/net`'s files."""
  hub = pytest.importorskip('huggingface_hub')
  commit = 'ab' * 20
  folder = tmp_path / 'snapshots' / commit
  folder.mkdir(parents=True)

  def download(repo, file, revision=None, local_files_only=False):
    assert local_files_only  # Nothing answers.
    if repo == 'away/net':
      raise hub.errors.LocalEntryNotFoundError('no network')
    if repo != 'here/net':
      raise hub.errors.HFValidationError('bad\nname')
    if file not in {path.name for path in folder.iterdir()}:
      raise hub.errors.EntryNotFoundError('404')
    return str(folder / file)

  monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', 'http://127.0.0.1:9')
  monkeypatch.setattr(hub, 'hf_hub_download', download)
  return folder


def test_locate_records_the_commit_of_a_repository(hub):
  (hub / 'pytorch_model.bin').write_bytes(b'weights')
  origin = pretrained.locate('hf:here/net@main')
  assert origin.revision == 'ab' * 20
  assert origin.path == str(hub / 'pytorch_model.bin')
  assert origin.sha256 == hashlib.sha256(b'weights').hexdigest()


@pytest.mark.parametrize(
  'source, message',
  [
    ('hf:away/net', 'cannot be reached and is not in the cache'),
    ('hf:here/net', 'has none of model.safetensors, pytorch_model.bin'),
    ('hf:a b', 'HFValidationError: bad name'),
  ],
)
def test_locate_explains_a_failed_download_in_one_line(hub, source, message):
  with pytest.raises(errors.UserError, match=message) as error:
    pretrained.locate(source)
  assert '\n' not in str(error.value)


def _variables():
  def zeros(*shape):
    return np.zeros(shape, np.float32)

  return {
    'params': {
      'conv1': {'kernel': zeros(1, 2, 3, 4)},
      'layer1_0': {
        'bn1': {'scale': zeros(4), 'bias': zeros(4)},
        'downsample_0': {'kernel': zeros(1, 1, 4, 2)},
      },
      'fc': {'kernel': zeros(2, 5), 'bias': zeros(5)},
    },
    'batch_stats': {'layer1_0': {'bn1': {'mean': zeros(4), 'var': zeros(4)}}},
  }


def _state():
  shapes = {
    'conv1.weight': (4, 3, 1, 2),
    'layer1.0.bn1.weight': (4,),
    'layer1.0.bn1.bias': (4,),
    'layer1.0.bn1.running_mean': (4,),
    'layer1.0.bn1.running_var': (4,),
    'layer1.0.downsample.0.weight': (2, 4, 1, 1),
    'fc.weight': (5, 2),
    'fc.bias': (5,),
  }
  random = np.random.RandomState(0)
  state = {k: random.standard_normal(v) for k, v in shapes.items()}
  return state | {'layer1.0.bn1.num_batches_tracked': np.array(3)}


def test_port_turns_names_axes_and_dtypes():
  state = _state()
  ported = pretrained.port(state, _variables())
  params, stats = ported['params'], ported['batch_stats']['layer1_0']['bn1']
  kernel = params['conv1']['kernel']
  assert kernel.shape == (1, 2, 3, 4) and kernel.dtype == np.float32
  np.testing.assert_allclose(
    kernel[0, 1, 2, 3], state['conv1.weight'][3, 2, 0, 1], rtol=1e-6
  )
  pairs = (
    (params['fc']['kernel'], state['fc.weight'].T),
    (params['layer1_0']['bn1']['scale'], state['layer1.0.bn1.weight']),
    (stats['mean'], state['layer1.0.bn1.running_mean']),
    (stats['var'], state['layer1.0.bn1.running_var']),
  )
  for ours, theirs in pairs:
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
  assert jax.tree.structure(ported) == jax.tree.structure(_variables())


@pytest.mark.parametrize(
  'prefix',
  ['module.', 'model.', '_orig_mod.module.', 'net.backbone.', 'module.module.'],
)
def test_port_takes_the_prefixes_of_wrappers_off(prefix):
  state = {prefix + key: value for key, value in _state().items()}
  state['loss.weight'] = np.zeros(2)
  before = _variables()
  ported = pretrained.port(state, before, excuse=['loss'])
  plain = pretrained.port(_state(), before)
  jax.tree.map(np.testing.assert_array_equal, ported, plain)
  counts = pretrained.count_loaded(state, before, ported)
  assert counts == {'tensors': 8, 'loaded': 8, 'excused': 1}


def test_port_refuses_two_tensors_of_one_name():
  state = _state() | {'module.fc.bias': np.zeros(5)}
  with pytest.raises(errors.UserError, match='the same name but for its prefix'):
    pretrained.port(state, _variables())


def test_port_refuses_values_that_are_not_finite():
  state = _state()
  state['fc.bias'] = np.full(5, np.nan)
  with pytest.raises(errors.UserError, match='fc.bias holds values that are not fi'):
    pretrained.port(state, _variables())


def test_port_refuses_to_load_nothing():
  state = {f'encoder.{key}': value for key, value in _state().items()}
  excuse = ['conv1', 'layer1_0', 'fc', 'encoder']
  with pytest.raises(errors.UserError, match='no tensor of the weights fits'):
    pretrained.port(state, _variables(), excuse=excuse)


@pytest.mark.parametrize('key', ['state_dict', 'model_state_dict', 'model', 'net'])
def test_load_state_looks_within_checkpoints(key):
  state = {'fc.bias': np.zeros(2)}
  assert pretrained._checked({'epoch': 3, key: state}, 'x.pth') == state


def test_port_names_the_first_offending_key_and_both_shapes():
  state = _state()
  state['layer1.0.downsample.0.weight'] = np.zeros((8, 4, 1, 1))
  state['fc.weight'] = np.zeros((9, 2))
  with pytest.raises(errors.UserError) as error:
    pretrained.port(state, _variables())
  assert str(error.value).startswith(
    'layer1.0.downsample.0.weight has shape (8, 4, 1, 1), but the net wants '
    '(2, 4, 1, 1)'
  )


def test_port_lists_modules_to_excuse():
  kept = [key for key in _state() if key.startswith('fc')]
  state = {key: _state()[key] for key in kept}
  for name in ('aux.0.weight', 'aux.0.bias', 'aux.1.weight', 'head.weight'):
    state[name] = np.zeros((2, 2))
  with pytest.raises(errors.UserError) as error:
    pretrained.port(state, _variables())
  missing, extra = 'conv1, layer1_0', 'aux_0, aux_1, head'
  message = f'missing {missing}; left over {extra}; excuse those by model.init'
  assert message in str(error.value)
  names = f'{missing}, {extra}'.split(', ')
  ported = pretrained.port(state, _variables(), excuse=names)
  np.testing.assert_array_equal(ported['params']['conv1']['kernel'], 0)


def test_port_excuses_by_name_and_by_prefix_of_whole_names():
  state, variables = _state(), _variables()
  variables['params']['fc']['bias'] += 7
  state['aux.0.weight'] = np.zeros((2, 2))
  del state['fc.bias']
  ported = pretrained.port(state, variables, excuse=('aux_0', 'fc.bias'))
  np.testing.assert_array_equal(ported['params']['fc']['bias'], 7)
  with pytest.raises(errors.UserError, match='missing fc; left over none'):
    pretrained.port(state, variables, excuse=('aux_0', 'fc/b'))


def test_port_keeps_an_excused_value_of_another_shape():
  state, variables = _state(), _variables()
  state['fc.weight'], state['fc.bias'] = np.ones((9, 2)), np.ones(9)
  ported = pretrained.port(state, variables, excuse=('fc',))
  np.testing.assert_array_equal(ported['params']['fc']['bias'], np.zeros(5))


def test_port_leaves_its_arguments_alone():
  variables = _variables()
  pretrained.port(_state(), variables)
  np.testing.assert_array_equal(variables['params']['conv1']['kernel'], 0)
