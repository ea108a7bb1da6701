"""The wheel that is built holds the network, and answers with nothing else."""

import csv
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from PIL import Image

from agegender_jax import config
from agegender_jax.data.synthetic_faces import faces

ROOT = pathlib.Path(__file__).parents[2]
FILES = ('config.json', 'model.safetensors', 'calibration.json', 'README.md')


@pytest.mark.nightly
def test_the_wheel_answers(tmp_path):
  pytest.importorskip('setuptools')
  source = tmp_path / 'source'
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    (source / name).parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / name, source / name)
  leave = shutil.ignore_patterns('__pycache__')
  shutil.copytree(ROOT / 'agegender_jax', source / 'agegender_jax', ignore=leave)
  command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation']
  subprocess.run([*command, '--wheel-dir', tmp_path, source], check=True)
  (wheel,) = tmp_path.glob('*.whl')
  with zipfile.ZipFile(wheel) as archive:
    folder = f'agegender_jax/networks/{config.SHIPPED.name}'
    assert {f'{folder}/{name}' for name in FILES} <= set(archive.namelist())
    archive.extractall(tmp_path / 'installed')
  Image.fromarray(faces.draw_face(0, 0).image).save(tmp_path / 'a.png')
  command = [sys.executable, '-m', 'agegender_jax.main', 'predict', 'a.png']
  found = subprocess.run(
    [*command, '--faces=crop'],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(tmp_path / 'installed')},
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr
  assert f'network: {config.SHIPPED.name}' in found.stdout
  with (tmp_path / 'predictions.csv').open() as file:
    (row,) = csv.DictReader(file)
  assert 0 < float(row['age_low']) < float(row['age_pred']) < float(row['age_high'])
