import concurrent.futures
import dataclasses
import json
import subprocess
import sys

import fake_detector
import jax
import numpy as np
import pytest
from PIL import Image

import agegender_jax
from agegender_jax import config as config_lib
from agegender_jax import errors, models
from agegender_jax.inference import api, crops, detector, predictor, weights
from agegender_jax.inference import hub as hub_lib

FITTED = {
  'num_examples': 1000,
  'step': 7,
  'split': 'validation',
  'fingerprint': 'f',
  'age': {'edges': [], 'counts': [1000], 'levels': {
    '0.5': [4.0], '0.8': [8.0], '0.9': [12.0]}},
  'gender': {'temperature': 2.0, 'count': 1000, 'nll_before': 1, 'nll_after': 1},
}  # fmt: skip


def create_run(folder, recipe=None, fitted=FITTED, **fields):
  """Writes what a finished run leaves for prediction."""
  config = config_lib.default_config()
  config.data.image_size = 16
  config.data.name = 'folder'
  config.model.layers = 'conv:4 norm pool'
  config.model.branch = 'flatten dense:8'
  config.update_from_flattened_dict(fields)
  config_lib.save_config(config, str(folder))
  network = predictor.Network(config)
  variables = models.init_variables(
    network.model, jax.random.key(3), network.input_size
  )
  weights.write(folder / weights.RUN_FILE, jax.device_get(variables), 7, recipe)
  if fitted:
    (folder / 'calibration.json').write_text(json.dumps(fitted))
  return folder


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return create_run(tmp_path_factory.mktemp('run'))


def image_of(count, size=16, seed=0):
  random = np.random.default_rng(seed)
  return random.integers(0, 256, (count, size, size, 3), np.uint8)


def test_importing_is_quick_and_loads_nothing():
  code = (
    'import sys, time; start = time.perf_counter(); import agegender_jax\n'
    'print(time.perf_counter() - start, "jax" in sys.modules)\n'
    'agegender_jax.load\n'
    'print([m for m in ("orbax", "grain", "tensorflow_datasets", "matplotlib")\n'
    '       if m in sys.modules])'
  )
  result = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  (seconds, has_jax), (loaded,) = (line.split() for line in result.stdout.splitlines())
  assert float(seconds) < 0.3 and has_jax == 'False' and loaded == '[]'


def test_any_number_of_crops_is_predicted(run):
  p = agegender_jax.load(run)
  images = image_of(11)
  found = p.predict(images)
  assert {name: len(column) for name, column in found.items()} == dict.fromkeys(
    ('age', 'age_low', 'age_high', 'age_group', 'gender_prob'), 11
  )
  alone = [p.predict(images[row : row + 1]) for row in range(11)]
  for name, column in found.items():
    np.testing.assert_allclose(
      column, [one[name][0] for one in alone], rtol=1e-4, atol=1e-5
    )
    assert len(p.predict(images[:0])[name]) == 0
  np.testing.assert_allclose(found['age_high'], np.maximum(found['age'] + 12, 0))
  with pytest.raises(ValueError, match='uint8'):
    p.predict(images.astype(np.float32))


def test_crops_of_another_size_are_resized_as_in_training(run):
  p = agegender_jax.load(run)
  large = image_of(1, 48)
  (face,) = p(large[0])
  assert face.age == pytest.approx(p.predict(large)['age'][0], rel=1e-5, abs=1e-5)


def test_faces_come_with_all_that_the_network_says(run, tmp_path):
  p = agegender_jax.load(str(run))
  Image.fromarray(image_of(1)[0]).save(tmp_path / 'a.png')
  (tmp_path / 'broken.png').write_bytes(b'x')
  found = p([tmp_path / 'a.png', tmp_path / 'broken.png', image_of(1)[0]])
  assert [len(faces) for faces in found] == [1, 1, 1]
  (face,), (broken,), (same,) = found
  assert dataclasses.replace(face, error='') is not face
  assert (face.age, face.gender_prob) == (same.age, same.gender_prob)
  assert face.box is None and face.error == '' and face.score is None
  assert face.age_low <= max(face.age, 0) <= face.age_high
  assert face.gender == ('female' if face.gender_prob > 0.5 else 'male')
  assert face.confidence == max(face.gender_prob, 1 - face.gender_prob)
  assert broken.age is None and 'UnidentifiedImageError' in broken.error
  with pytest.raises(dataclasses.FrozenInstanceError):
    face.age = 3
  assert p.info['step'] == 7 and p.info['faces'] == 'crop' and p.info['calibrated']


def test_the_callers_jax_is_left_alone_and_nothing_is_printed(run, capsys):
  before = dict(jax.config.values)
  agegender_jax.load(run).predict(image_of(3))
  assert dict(jax.config.values) == before
  assert capsys.readouterr() == ('', '')


def test_threads_share_a_predictor(run):
  p = agegender_jax.load(run)
  batches = [image_of(count, seed=count) for count in range(1, 20)]
  expected = [p.predict(batch)['age'] for batch in batches]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    found = [output['age'] for output in pool.map(p.predict, batches)]
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_calibration_of_another_step_is_not_used(tmp_path):
  run = create_run(tmp_path / 'run', fitted=FITTED | {'step': 6})
  p = agegender_jax.load(run)
  assert not p.info['calibrated'] and 'age_low' not in p.predict(image_of(1))


def test_another_step_than_the_chosen_one_is_read_from_the_checkpoints(run):
  config = config_lib.load_config(str(run))
  config.train.select = 'last'
  with pytest.raises(errors.UserError, match='no checkpoint'):
    api.Predictor(config, str(run))


def test_without_a_network_the_error_says_what_to_name(tmp_path, monkeypatch):
  monkeypatch.setattr(config_lib, 'SHIPPED', tmp_path / 'none')
  with pytest.raises(errors.UserError, match='no run in workdir'):
    agegender_jax.load()
  with pytest.raises(errors.UserError, match='no run in workdir'):
    agegender_jax.load(tmp_path / 'none')
  monkeypatch.setattr(config_lib, 'SHIPPED', create_run(tmp_path / 'fairface_small'))
  assert agegender_jax.load().info['name'] == 'fairface_small'


def test_faces_are_looked_for_where_the_crops_recipe_is_known(tmp_path, monkeypatch):
  pytest.importorskip('onnx')
  pytest.importorskip('onnxruntime')
  run = create_run(tmp_path / 'run', crops.RECIPES['utkface'])
  monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path))
  detector.shared_detector.cache_clear()
  with pytest.raises(errors.UserError, match='install-detector'):
    agegender_jax.load(run)
  assert agegender_jax.load(run, faces='crop').faces == 'crop'
  with pytest.raises(errors.UserError, match='unknown faces "all"'):
    agegender_jax.load(run, faces='all')
  path = tmp_path / 'stand_in.onnx'
  fake_detector.write(path)
  p = agegender_jax.load(run, detector_path=str(path))
  assert p.faces == 'detect' and p.info['crop']['alignment'] == 'utkface'
  image = Image.new('RGB', (320, 320))
  (none,) = p(image)
  assert none.error == 'no face found' and none.age is None
  image.paste('white', (100, 100, 124, 124))
  faces = p(image)
  assert faces and all(face.age is not None for face in faces)
  left, top, right, bottom = faces[0].box
  assert left < 112 < right and top < 112 < bottom
  assert len(faces[0].landmarks) == 5 and faces[0].score > 0.5
  assert len(p(image, largest_face=True)) == 1


def test_a_hub_repository_is_downloaded_and_read(run, monkeypatch):
  hub = pytest.importorskip('huggingface_hub')
  asked = []

  def download(repo, revision, allow_patterns):
    asked.append((repo, revision))
    return str(run)

  monkeypatch.setattr(hub, 'snapshot_download', download)
  hub_lib.local.cache_clear()
  p = api.load('hf:owner/name@abc')
  assert asked == [('owner/name', 'abc')] and p.info['name'] == 'hf:owner/name@abc'

  def broken(*_, **__):
    raise OSError('no network')

  monkeypatch.setattr(hub, 'snapshot_download', broken)
  with pytest.raises(errors.UserError, match=r'hf:owner/name cannot.*no network'):
    api.load('hf:owner/name')


def test_an_answer_that_is_not_finite_is_an_error(tmp_path):
  network = api.load(create_run(tmp_path))
  network._variables = jax.tree.map(lambda x: x * np.nan, network._variables)
  faces = network(list(image_of(2)))
  assert [face.error for (face,) in faces] == [api.NOT_FINITE] * 2
  assert faces[0][0].age is None and faces[0][0].gender is None
