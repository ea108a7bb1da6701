"""What can be mended is one line, whatever a script was given."""

import pathlib
import subprocess
import sys

import pytest

from agegender_jax import cli, errors, recipes

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def places(tmp_path):
  """A file, a FairFace without its images, and a place not yet there."""
  (tmp_path / 'file').write_text('a file')
  (tmp_path / 'bare').mkdir()
  for part in ('train', 'val'):
    path = tmp_path / 'bare' / f'fairface_label_{part}.csv'
    path.write_text(f'file,age,gender\n{part}/1.jpg,3-9,Male\n')
  return {
    'FILE': tmp_path / 'file', 'BARE': tmp_path / 'bare', 'NEW': tmp_path / 'n'
  }  # fmt: skip


@pytest.mark.parametrize(
  'command, words',
  [
    ('summarise.py', 'required: --workdir; see --help'),
    ('summarise.py --workdir=', '--workdir=A or A,B,... of sweeps is needed'),
    ('summarise.py --workdir=NEW', 'name the --workdir of scripts/sweep.py'),
    ('summarise.py --workdir=NEW --pared=x', 'unrecognized arguments: --pared'),
    ('sweep.py --seeds', 'argument --seeds: expected one argument'),
    ('sweep.py --config=FILE --workdir=NEW', 'a recipe is a .py file'),
    ('sweep.py --config=NEW --workdir=NEW', 'no such recipe; see configs/'),
    (
      'sweep.py --config=configs/adience_resnet.py --sweep=folds --workdir=FILE/x',
      'cannot be written (Not a directory): name another folder',
    ),
    ('stand_in_folds.py --output=NEW', 'required: --source_dir'),
    (
      'stand_in_folds.py --source_dir=BARE --output=NEW',
      'holds none of the 2 images of its label files',
    ),
  ],
)
def test_bad_input_is_one_line(places, command, words):
  for name, place in places.items():
    command = command.replace(name, str(place))
  script, *flags = command.split(' ')
  done = subprocess.run(
    [sys.executable, f'scripts/{script}', *flags],
    cwd=ROOT, capture_output=True, text=True,
  )  # fmt: skip
  assert (done.returncode, done.stdout) == (2, '')
  (line,) = done.stderr.splitlines()
  assert line.startswith('error: ') and words in line
  assert not places['NEW'].exists()


def test_a_folder_is_created_or_refused(tmp_path):
  folder = tmp_path / 'a' / 'b'
  assert cli.create_folder('--output', str(folder)) == folder
  assert cli.create_folder('--output', folder).is_dir()
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.UserError, match='--output=.*file cannot be writ'):
    cli.create_folder('--output', tmp_path / 'file')


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
  # As anyone but root sees it.
  monkeypatch.setattr(cli.os, 'access', lambda path, mode: False)
  with pytest.raises(errors.UserError, match='no permission'):
    cli.create_folder('--output', tmp_path)


def test_what_main_returns_is_the_status(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['x', 'a'])
  for result, status in ((None, None), (2, 2)):
    with pytest.raises(SystemExit) as end:
      cli.run(lambda argv, result=result: result)
    assert end.value.code == status
  with pytest.raises(SystemExit):
    cli.run(lambda argv: pathlib.Path('/nowhere/x').read_text())
  expected = 'error: /nowhere/x: No such file or directory\n'
  assert capsys.readouterr().err == expected
  with pytest.raises(TypeError):  # A defect of the package keeps its traceback.
    cli.run(int)


@pytest.mark.parametrize('name', ['utk_cnn.txt', 'utk_cnn', 'utk_cnn.py/'])
def test_a_recipe_is_a_py_file(tmp_path, name):
  (tmp_path / name).mkdir() if name.endswith('/') else (
    (tmp_path / name).write_text('x = 1')
  )
  with pytest.raises(errors.UserError, match='see configs/'):
    recipes.load(tmp_path / name)


def test_a_folder_may_be_in_the_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert cli.create_folder('--output', '~/here') == tmp_path / 'here'
  assert (tmp_path / 'here').is_dir()
