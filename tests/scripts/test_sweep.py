"""Sweeps: settings to runs, and runs that finish, fail, go on and stop."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import faces_on_disk
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors as errors_lib
from agegender_jax import recipes
from agegender_jax.data import source
from agegender_jax.studies import sweeps

ROOT = pathlib.Path(__file__).parents[2]
sweep = recipes.load(ROOT / 'scripts/sweep.py')
summarise = recipes.load(ROOT / 'scripts/summarise.py')

# ml_collections loads a recipe by what Python 3.12 drops.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')

RECIPE = """
from agegender_jax import config as config_lib
from agegender_jax import recipes

def get_config(arg=''):
  arg = recipes.parse_arg(arg, fold=0, runlocal=False)
  config = config_lib.default_config()
  config.data.name = 'synthetic'
  config.data.synthetic_examples = 60
  config.model.layers = 'conv:2 pool'
  config.model.branch = 'gap'
  recipes.set_run_local(config)
  config.data.image_size = 16
  return config

def sweep(add):
  for layers in ('conv:2 pool', 'conv:4 pool', 'conf:4'):
    add('widths', **{'model.layers': layers, 'data.flip': True})
  for fold in range(2):
    add('folds', arg=f'fold={fold}')
"""


@pytest.fixture
def path(tmp_path):
  result = tmp_path / 'tiny.py'
  result.write_text(RECIPE)
  return str(result)


def runs_of(path, name, arg='', seeds=(0,), given=()):
  settings = sweeps.list_sweeps(recipes.load(path))[name]
  return sweeps.create_runs(path, arg, settings, list(seeds), list(given))


def test_settings_are_named_by_what_sets_them_apart(path):
  runs = runs_of(path, 'widths', 'runlocal', seeds=(3, 5))
  assert [run.setting for run in runs] == 2 * [
    'model.layers=conv:2 pool', 'model.layers=conv:4 pool',
    'model.layers=conf:4',
  ]  # fmt: skip
  assert [run.seed for run in runs] == [3, 3, 3, 5, 5, 5]
  assert runs[0].folder == 'model.layers=conv_2_pool_seed3'
  assert runs[4].flags == (
    f'--config={path}:runlocal', '--config.model.layers=conv:4 pool',
    '--config.data.flip=True', '--config.seed=5',
  )  # fmt: skip


def test_folds_repeat_one_setting(path):
  runs = runs_of(path, 'folds', 'fold=7,runlocal', given=['--config.seed.x=1'])
  assert {run.setting for run in runs} == {'tiny'}
  assert [run.fold for run in runs] == [0, 1]
  assert runs[1].folder == 'tiny_fold1_seed0'
  # The setting's own comes last, and so it counts.
  assert runs[1].flags[0] == f'--config={path}:fold=7,runlocal,fold=1'


def test_a_runs_flags_are_read_as_main_reads_them(path):
  run = runs_of(path, 'widths', given=['--config.train.batch_size=8'])[1]
  config = sweeps.resolve(run)
  assert (config.model.layers, config.data.flip) == ('conv:4 pool', True)
  assert config.train.batch_size == 8


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--sweep=width'], 'did you mean "widths"'),
    (['--sweep='], 'known: widths, folds'),
    (['--sweep=folds', '--config.train.batchsize=8'], 'batch_size'),
    (['--sweep=widths', '--config.data.flip=False'], 'the sweep sets it'),
    (['--sweep=widths', '--config.seed=1'], '--seeds sets it'),
    (['--sweep=widths', '--seeds=a'], 'such as 0,1,2'),
    (['--sweep=widths', '--sedes=1'], 'unknown flag'),
  ],
)
def test_a_wrong_flag_is_refused_before_any_run(path, tmp_path, flags, words):
  with pytest.raises(errors_lib.UserError, match=words):
    sweep.main([f'--config={path}', f'--workdir={tmp_path / "s"}', *flags])
  assert not (tmp_path / 's').exists()


def test_a_folder_without_a_sweep_is_named(tmp_path):
  with pytest.raises(errors_lib.UserError, match='no sweep in'):
    sweeps.read_record(tmp_path / 'none')


def test_time_left_is_that_of_runs_that_ended(path, tmp_path, capsys, monkeypatch):
  now, errors = [0.0], iter(['refused', '', ''])

  def train(run, folder, title):
    error = next(errors)
    now[0] += 1 if error else 100
    return error

  monkeypatch.setattr(sweep.time, 'monotonic', lambda: now[0])
  monkeypatch.setattr(sweep, 'train', train)
  monkeypatch.setattr(sweep, 'describe', lambda folder: 'done')
  head = sweeps.create_head(path, '', 'widths', ())
  sweep.run_all(runs_of(path, 'widths'), tmp_path, head)
  ends = [line for line in capsys.readouterr().out.splitlines() if '  ' in line]
  assert ends[0].endswith('failed: refused')
  assert ends[1].endswith('done  sweep left about 0:01:40')
  assert ends[2].endswith('done')


def test_damaged_scores_are_a_line(tmp_path):
  (tmp_path / 'scores.json').write_text('{"age_mae": ')
  with pytest.raises(errors_lib.UserError, match=r'scores\.json is damaged'):
    sweep.describe(tmp_path)


def test_a_finished_run_on_other_data_is_refused(path, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(sweep, 'train', lambda *args: pytest.fail('trained'))
  faces_on_disk.write_utkface(tmp_path / 'raw', 3)
  faces_on_disk.write_utkface(tmp_path / 'other', 4)
  given = ['--config.data.name=utkface', f'--config.data.data_dir={tmp_path}']
  here = f'--config.data.source_dir={tmp_path / "raw"}'
  for run in runs_of(path, 'folds', given=[*given, here]):
    place = tmp_path / 's' / run.folder
    config = sweeps.resolve(run)
    config_lib.save_config(config, str(place))
    (builder,) = source.create_builders(config.data)
    contents = {
      'data.json': {'fingerprint': builder.builder_config.name},
      'scores.json': {'age_mae': 1}, 'run.json': {}, 'report.html': '',
    }  # fmt: skip
    for name, content in contents.items():
      (place / name).write_text(json.dumps(content))
    (place / 'checkpoints' / '3').mkdir(parents=True)
  flags = [
    f'--config={path}', '--sweep=folds', f'--workdir={tmp_path / "s"}', *given
  ]  # fmt: skip
  assert sweep.main([*flags, here]) == 0
  shutil.copytree(tmp_path / 'raw', tmp_path / 'copy')
  copy = f'--config.data.source_dir={tmp_path / "copy"}'
  assert sweep.main([*flags, copy]) == 0
  assert (
    capsys.readouterr().out.count('finished before  Age error (MAE) 1.00 years') == 4
  )
  assert sweep.main([*flags, f'--config.data.source_dir={tmp_path}/other']) == 2
  errors = capsys.readouterr().err.splitlines()
  assert len(errors) == 2 and all('on other data' in line for line in errors)
  _, runs = sweeps.read_record(tmp_path / 's')
  assert all('on other data' in run.error for run in runs)


def test_a_sweep_goes_on_after_a_failure_and_is_summarised(path, tmp_path, capsys):
  flags = [
    f'--config={path}', '--sweep=widths', f'--workdir={tmp_path / "s"}',
    f'--config.data.data_dir={tmp_path / "data"}',
  ]  # fmt: skip
  assert sweep.main(flags) == 2
  shown = capsys.readouterr()
  assert 'unknown layer "conf:4"' in shown.err
  assert len(shown.err.strip().splitlines()) == 1
  assert '2 of 3 runs finished' in shown.out
  done = tmp_path / 's' / 'model.layers=conv_4_pool_seed0'
  before = {file: file.stat().st_mtime_ns for file in done.iterdir()}
  config = json.loads((done / 'config.json').read_text())['config']
  assert config['model']['layers'] == 'conv:4 pool'
  assert config['data']['image_size'] == 16
  summarise.main([f'--workdir={tmp_path / "s"}'])
  shown = capsys.readouterr()
  assert 'unknown layer "conf:4"' in shown.err  # Why it is left out.
  rows = [line for line in shown.out.splitlines() if line.startswith('| model')]
  assert len(rows) == 2 and all('1 seed' in row for row in rows)
  assert (tmp_path / 's' / 'summary.png').stat().st_size > 10_000
  # Again: what is finished stays, or is refused where it is another run.
  with pytest.raises(errors_lib.UserError, match='num_steps=4: choose another'):
    sweep.main([*flags, '--config.train.num_steps=4'])
  recipe = pathlib.Path(path)
  recipe.write_text(
    RECIPE.replace('synthetic_examples = 60', 'synthetic_examples = 70')
  )
  assert sweep.main(flags) == 2
  assert 'synthetic_examples was 60, is 70' in capsys.readouterr().err
  assert before == {file: file.stat().st_mtime_ns for file in done.iterdir()}
  # Another configuration's runs are not averaged with this one's.
  with pytest.raises(errors_lib.UserError, match='no run is finished'):
    summarise.main([f'--workdir={tmp_path / "s"}'])


def test_ctrl_c_stops_the_run_and_says_how_to_go_on(path, tmp_path):
  # A shell's background jobs, such as these tests may be, ignore Ctrl-C. No
  # preexec_fn undoes that here: it forks, of which JAX's threads warn.
  heed = (
    'import os, signal, sys; '
    'signal.signal(signal.SIGINT, signal.SIG_DFL); '
    'os.execv(sys.executable, [sys.executable, *sys.argv[1:]])'
  )
  process = subprocess.Popen(
    [
      sys.executable, '-c', heed, ROOT / 'scripts/sweep.py',
      f'--config={path}', '--sweep=folds', f'--workdir={tmp_path / "s"}',
      f'--config.data.data_dir={tmp_path / "data"}',
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )  # fmt: skip
  log = tmp_path / 's' / 'tiny_fold0_seed0' / 'log.txt'
  for _ in range(600):
    if log.exists():
      break
    time.sleep(0.1)
  children = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
  has_proc = children.exists()
  child = int(children.read_text().split()[0]) if has_proc else None
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 130
  assert errors.strip() == 'stopped; the same command goes on from there'
  assert not (tmp_path / 's' / 'tiny_fold1_seed0').exists()
  if child:
    with pytest.raises(ProcessLookupError):
      os.kill(child, 0)
