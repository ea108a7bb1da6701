"""The peer in PyTorch: trained on the recipe's images, scored like any CSV."""

import csv
import importlib.util
import os
import subprocess
import sys

import pytest


@pytest.mark.nightly
@pytest.mark.skipif(
  not importlib.util.find_spec('torchvision'), reason='torchvision is not installed'
)
def test_the_peer_trains_and_predicts_every_image(tmp_path):
  done = subprocess.run(
    [
      sys.executable, 'scripts/peers/pytorch.py', f'--output={tmp_path}',
      '--config=configs/quickstart.py:runlocal',
      '--config.data.synthetic_examples=160', '--config.data.image_size=32',
      f'--config.data.data_dir={tmp_path}/prepared', '--config.train.batch_size=16',
      '--config.train.num_epochs=0', '--config.train.num_steps=60',
      '--score=synthetic:test:',
    ],
    capture_output=True, text=True, check=False,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  losses = [float(line.split()[3]) for line in done.stdout.splitlines()
            if line.startswith('step')]  # fmt: skip
  assert losses[-1] < 0.8 * losses[0]
  with (tmp_path / 'synthetic_test.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert len({row['name'] for row in rows}) == len(rows) > 10
  assert all(0 <= float(row['gender_prob']) <= 1 for row in rows)
  assert max(float(row['age_pred']) for row in rows) > 5


@pytest.mark.nightly
@pytest.mark.skipif(
  not importlib.util.find_spec('torchvision'), reason='torchvision is not installed'
)
def test_what_the_peer_does_not_do_is_refused(tmp_path):
  done = subprocess.run(
    [
      sys.executable, 'scripts/peers/pytorch.py', f'--output={tmp_path}',
      '--config=configs/utk_resnet.py', '--config.data.erase=0.1',
    ],
    capture_output=True, text=True, check=False,
  )  # fmt: skip
  (line,) = done.stderr.strip().splitlines()
  assert done.returncode == 2 and 'knows no data.erase, init_from' in line


@pytest.mark.skipif(
  not importlib.util.find_spec('torchvision'), reason='torchvision is not installed'
)
@pytest.mark.parametrize(
  'flag, words',
  [
    ('--score=utkface:seed5k_test', 'give NAME:SPLIT:FOLDER'),
    ('--config.data.source_dir=absent', 'susanqq.github.io/UTKFace'),
    ('--config.optimizer.layer_decay=0.7', 'knows no layer_decay'),
  ],
)
def test_what_the_user_can_fix_is_a_line(tmp_path, flag, words):
  done = subprocess.run(
    [
      sys.executable, 'scripts/peers/pytorch.py', f'--output={tmp_path}',
      '--config=configs/utk_multibranch.py', f'--config.data.data_dir={tmp_path}', flag,
    ],
    capture_output=True, text=True, check=False,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )  # fmt: skip
  (line,) = done.stderr.strip().splitlines()
  assert done.returncode == 2 and words in line
