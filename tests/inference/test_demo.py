import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import test_api
from PIL import Image

import agegender_jax
from agegender_jax.data.synthetic_faces import faces
from agegender_jax.inference import api, demo, detector

DRAWN = (0, 1)  # Drawn faces that the detector finds.


def test_rows_say_what_a_person_reads():
  found = [
    api.Face(31.2, 24.0, 38.4, '25-32', gender='male', gender_prob=0.07),
    api.Face(age_group='60+', gender='female', gender_prob=0.8),
    api.Face(error='no face found'),
  ]
  assert demo.rows_of(found) == [
    ['1', '31', '24 - 38', 'male', '93%'],
    ['2', '60+', '', 'female', '80%'],
    ['', 'no face found', '', '', ''],
  ]
  assert demo.figure_of(found[0]) is None
  known = api.Face(31.0, age_distribution=np.full(117, 1 / 117))
  assert len(demo.figure_of(known).axes[0].patches) == 117


def test_uploads_are_deleted(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'photo.jpg').write_bytes(b'x')
  (tmp_path / 'b').write_bytes(b'x')
  demo.empty_folder(tmp_path)
  assert list(tmp_path.iterdir()) == []
  assert tmp_path.stat().st_mode & 0o777 == 0o700  # mkdtemp's.


def test_a_program_asks_the_page_and_nothing_is_left(tmp_path):
  pytest.importorskip('gradio')
  client_lib = pytest.importorskip('gradio_client')
  run = tmp_path / 'run'
  run.mkdir()
  test_api.create_run(run)
  image = tmp_path / 'a.png'
  Image.fromarray(test_api.image_of(1)[0]).save(image)
  (tmp_path / 'tmp').mkdir()
  environment = {**os.environ, 'TMPDIR': str(tmp_path / 'tmp')}
  process = subprocess.Popen(
    [
      sys.executable,
      '-m',
      'agegender_jax.main',
      'demo',
      f'--workdir={run}',
      '--faces=crop',
      '--port=7893',
    ],
    stdout=subprocess.PIPE,
    env=environment,
    text=True,
  )
  timer = threading.Timer(120, process.kill)
  timer.start()
  try:
    lines = iter(process.stdout.readline, '')
    url = next(found[0] for line in lines if (found := re.search(r'http://\S+', line)))
    assert url.startswith('http://127.0.0.1:7893')
    client = client_lib.Client(url, verbose=False)
    (row,) = client.predict(client_lib.handle_file(str(image)), api_name='/predict')
    (face,) = agegender_jax.load(run)(image)
    assert row['age'] == f'{face.age:.0f}' and row['gender'] == face.gender
    (folder,) = (tmp_path / 'tmp').glob('agegender_demo_*')
    assert [path for path in pathlib.Path(folder).rglob('*') if path.is_file()] == []
  finally:
    timer.cancel()
    process.terminate()
    process.stdout.close()
    assert process.wait(30) == 128 + signal.SIGTERM
  assert list((tmp_path / 'tmp').glob('agegender_demo_*')) == []


@pytest.mark.nightly
def test_a_browser_without_a_network_shows_faces(tmp_path):
  pytest.importorskip('gradio')
  pytest.importorskip('selenium')
  if not all(map(shutil.which, ('chromium', 'chromedriver', 'ip', 'unshare'))):
    pytest.skip('no chromium, chromedriver, ip or unshare')
  if subprocess.run(['unshare', '-rn', 'true'], capture_output=True).returncode:
    pytest.skip('unshare -rn is not allowed here')
  if not detector.installed_path().is_file():
    pytest.skip('no face detector: agegender install-detector')
  scene = Image.new('RGB', (900, 600), (110, 130, 120))
  for place, index in enumerate(DRAWN):
    face = Image.fromarray(faces.draw_face(0, index, 256).image)
    scene.paste(face, (60 + 420 * place, 150))
  scene.save(tmp_path / 'scene.png')
  script = pathlib.Path(__file__).with_name('demo_in_browser.py')
  found = subprocess.run(
    ['unshare', '-rn', sys.executable, script, '', tmp_path / 'scene.png', tmp_path],
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert found.returncode == 0, found.stderr[-2000:]
  result = json.loads(found.stdout.splitlines()[-1])
  assert result['foreign'] == [] and result['failed'] == [] and result['count'] > 10
  assert result['faces'] == len(DRAWN) and result['plots'] == 1
  assert len(re.findall(r'\d+ - \d+', result['text'])) == len(DRAWN)
  assert result['too_wide_390'] <= 0 and result['too_wide_1280'] <= 0
  assert 'Do not use it to decide' in result['text']
  assert result['uploads'] == result['left'] == []
