import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_api

import agegender_jax
from agegender_jax import errors
from agegender_jax.inference import crops, export, weights
from agegender_jax.inference.export import programs, torch_state

NETS = {
  'cnn': {},
  'cnn_views': {'data.crop_size': 12, 'data.oversample': True},
  'interval': {'tasks.age.kind': 'interval', 'data.age_groups': 'fairface'},
  'dex': {'tasks.age.kind': 'dex'},
  'coral': {'tasks.age.kind': 'coral'},
  'corn': {'tasks.age.kind': 'corn'},
  'group': {'tasks.age.kind': 'group', 'tasks.gender.kind': ''},
  'resnet18': {
    'model.backbone': 'resnet18', 'model.branch': 'gap', 'data.image_size': 32,
    'data.normalize': 'imagenet',
  },
  'levi_hassner': {
    'model.backbone': 'levi_hassner', 'model.branch': '', 'data.image_size': 64,
    'model.dense_features': (8, 8),
  },
}  # fmt: skip


def network_of(folder, **fields):
  folder.mkdir(exist_ok=True)
  fitted = test_api.FITTED | {
    'age': {'edges': [0.0, 0.5], 'counts': [300] * 3, 'levels': {
      '0.5': [1.0, 2.0, 3.0], '0.8': [4.0, 5.0, 6.0], '0.9': [7.0, 9.0, 12.0]}},
  }  # fmt: skip
  test_api.create_run(folder, crops.RECIPES['utkface'], fitted, **fields)
  return agegender_jax.load(folder, faces='crop')


@pytest.mark.parametrize('name', NETS)
def test_onnx_answers_as_the_predictor_for_any_batch(tmp_path, name):
  pytest.importorskip('onnx')
  onnxruntime = pytest.importorskip('onnxruntime')
  network = network_of(tmp_path / 'run', **NETS[name])
  path = tmp_path / 'a.onnx'
  line = export.export(network, path)
  assert 'differs by at most' in line
  session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
  names = [output.name for output in session.get_outputs()]
  size = network.config.data.image_size
  for count in (1, 5):
    images = test_api.image_of(count, size)
    found = session.run(names, {'image': images})
    expected = network.predict(images)
    assert set(names) == set(expected)
    for key, values in zip(names, found, strict=True):
      assert len(values) == count
      np.testing.assert_allclose(values, expected[key], rtol=1e-3, atol=1e-3)
  stored = session.get_modelmeta().custom_metadata_map['agegender_jax']
  stored = json.loads(stored)
  assert stored['crop']['alignment'] == 'utkface' and stored['step'] == 7


def test_onnx_stores_weights_in_half(tmp_path):
  pytest.importorskip('onnx')
  pytest.importorskip('onnxruntime')
  network = network_of(tmp_path / 'run', **NETS['resnet18'])
  sizes = {}
  for dtype in ('', 'float16'):
    path = tmp_path / f'a{dtype}.onnx'
    export.export(network, path, dtype=dtype)
    sizes[dtype] = path.stat().st_size
  assert sizes['float16'] < 0.55 * sizes['']


def test_onnx_stores_weights_once_for_all_views(tmp_path):
  pytest.importorskip('onnx')
  pytest.importorskip('onnxruntime')
  sizes = []
  for name in ('cnn', 'cnn_views'):
    network = network_of(tmp_path / name, **NETS[name])
    export.export(network, tmp_path / f'{name}.onnx')
    weights_size = 4 * network.info['num_parameters']
    sizes.append((tmp_path / f'{name}.onnx').stat().st_size - weights_size)
  assert sizes[1] < sizes[0] + 60_000


def test_onnx_refuses_what_it_lacks_and_keeps_nothing(tmp_path):
  onnx_writer = pytest.importorskip('agegender_jax.inference.export.onnx_writer')
  with pytest.raises(errors.UserError, match='the operation sort is not supported'):
    onnx_writer.convert(lambda x: {'a': jnp.sort(x, axis=1)}, (4,), {})
  network = network_of(tmp_path / 'run', **{'model.conv': 'fourier'})
  with pytest.raises(errors.UserError, match='ONNX: '):
    export.export(network, tmp_path / 'a.onnx')
  assert not (tmp_path / 'a.onnx').exists()


def test_a_program_that_differs_is_not_kept(tmp_path, monkeypatch):
  network = network_of(tmp_path / 'run')
  answer = programs.create_answer

  def wrong(network):
    right = answer(network)
    return lambda image: right(image) | {'age': right(image)['age'] + 1}

  monkeypatch.setattr(programs, 'create_answer', wrong)
  with pytest.raises(errors.UserError, match='differs from the predictor by 1 years'):
    export.export(network, tmp_path / 'a.stablehlo')
  assert not (tmp_path / 'a.stablehlo').exists()


@pytest.mark.parametrize('name', ['cnn', 'interval', 'resnet18'])
def test_stablehlo_is_read_by_jax_alone(tmp_path, name):
  network = network_of(tmp_path / 'run', **NETS[name])
  path = tmp_path / 'a.stablehlo'
  export.export(network, path)
  exported = jax.export.deserialize(bytearray(path.read_bytes()))
  assert set(exported.platforms) == {'cpu', 'cuda', 'tpu'}
  images = test_api.image_of(3, network.config.data.image_size)
  found, expected = exported.call(images), network.predict(images)
  for key, values in expected.items():
    np.testing.assert_allclose(found[key], values, rtol=1e-3, atol=1e-3)
  assert json.loads((tmp_path / 'a.stablehlo.json').read_text())['calibrated']


def test_torchs_names_are_torchvisions(tmp_path):
  network = network_of(tmp_path / 'run', **NETS['resnet18'])
  path = tmp_path / 'a.safetensors'
  assert 'the same bits' in export.export(network, path, 'torch')
  backbone = {key: tree['backbone'] for key, tree in network.variables.items()}
  state = torch_state.state_dict(backbone)
  assert state['layer2.0.downsample.1.running_var'].shape == (128,)
  assert state['conv1.weight'].shape == (64, 3, 7, 7)
  try:
    import torchvision
  except (ImportError, RuntimeError):  # RuntimeError: built for another torch.
    pytest.skip('no torchvision that fits the torch here')
  expected = torchvision.models.resnet18().state_dict()
  shapes = {key: tuple(v.shape) for key, v in expected.items() if key[:3] != 'fc.'}
  assert {key: value.shape for key, value in state.items()} == shapes


def test_torch_refuses_a_net_that_it_lacks(tmp_path):
  with pytest.raises(errors.UserError, match='cnn has no counterpart'):
    export.export(network_of(tmp_path / 'cnn'), tmp_path / 'b', 'torch')


@pytest.mark.parametrize('dtype', ['', 'float16'])
def test_a_folder_is_read_back(tmp_path, dtype):
  network = network_of(tmp_path / 'run', **NETS['interval'])
  (tmp_path / 'run' / 'scores.json').write_text('{"split": "test", "age_mae": 6.5}')
  (tmp_path / 'run' / 'model_card.md').write_text('# The card\n')
  folder = network.save(tmp_path / 'folder', dtype)
  found = agegender_jax.load(folder, faces='crop')
  images = test_api.image_of(9)
  for key, values in network.predict(images).items():
    if dtype:
      np.testing.assert_allclose(found.predict(images)[key], values, atol=0.5)
    else:
      np.testing.assert_array_equal(found.predict(images)[key], values)
  assert found.known_recipe == crops.RECIPES['utkface'] and found.step == 7
  names = {path.name for path in (tmp_path / 'folder').iterdir()}
  assert names >= {'config.json', weights.FOLDER_FILE, 'calibration.json', 'README.md'}
  card = (tmp_path / 'folder' / 'README.md').read_text()
  _, front, text = card.split('---', 2)
  assert 'library_name: agegender_jax' in front and 'value: 6.5000' in front
  assert '# The card' in text
  with pytest.raises(errors.UserError, match='not an empty folder'):
    network.save(tmp_path / 'folder')


def test_formats_are_named_and_checked(tmp_path):
  network = network_of(tmp_path / 'run')
  with pytest.raises(errors.UserError, match='unknown format "onx", did you mean'):
    export.export(network, format='onx')
  with pytest.raises(errors.UserError, match='--format=onnx'):
    export.export(network)
  with pytest.raises(errors.UserError, match='float16'):
    export.export(network, tmp_path / 'a', 'torch', 'float16')
  with pytest.raises(errors.UserError, match='--format=folder'):
    export.export(network, tmp_path / 'a.onnx', push='owner/name')


def test_a_folder_is_uploaded(tmp_path, monkeypatch):
  hub = pytest.importorskip('huggingface_hub')
  calls = []

  class Client:
    def create_repo(self, repo, exist_ok):
      calls.append(repo)

    def upload_folder(self, repo_id, folder_path):
      if repo_id == 'owner/broken':
        raise OSError('no token')
      calls.append(folder_path)

  monkeypatch.setattr(hub, 'HfApi', Client)
  network = network_of(tmp_path / 'run')
  line = export.export(network, tmp_path / 'a', 'folder', push='owner/name')
  assert calls == ['owner/name', str(tmp_path / 'a')] and 'owner/name' in line
  with pytest.raises(errors.UserError, match=r'is written, but not.*no token'):
    export.export(network, tmp_path / 'b', 'folder', push='owner/broken')
