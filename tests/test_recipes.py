"""Every recipe runs, a few steps of it, on faces drawn here."""

import csv
import json
import pathlib

import faces_on_disk
import jax
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, ops, recipes, schema
from agegender_jax.data.synthetic_faces import faces
from agegender_jax.evaluation import grad_cam
from agegender_jax.models import flops
from agegender_jax.runtime import checkpoint
from agegender_jax.studies import sweeps
from agegender_jax.training import trainer

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = ROOT / 'configs'
stand_in_folds = recipes.load(ROOT / 'scripts/stand_in_folds.py')
# Recipe, argument, parameters that train. Compiling is most of their time, so
# most are nightly; other tests train the multi-branch net and a ResNet.
RUNS = [
  pytest.param('utk_multibranch', 'runlocal', None, marks=pytest.mark.nightly),
  pytest.param('utk_multibranch', 'runlocal,protocol=full', None,
               marks=pytest.mark.nightly),
  pytest.param('utk_cnn', 'runlocal', None, marks=pytest.mark.nightly),
  pytest.param('utk_fourconv', 'runlocal', None, marks=pytest.mark.nightly),
  pytest.param('utk_resnet', 'runlocal,scratch,backbone=resnet18', None,
               marks=pytest.mark.nightly),
  pytest.param('utk_vgg', 'runlocal,scratch', 2 * 131_585,
               marks=pytest.mark.nightly),
  ('utk_vgg', 'runlocal,scratch,gender', 131_585),
  ('adience_levi_hassner', 'runlocal,fold=1', None),
  pytest.param('adience_resnet', 'runlocal,scratch,fold=4', None,
               marks=pytest.mark.nightly),
  pytest.param('fairface_resnet', 'runlocal', None, marks=pytest.mark.nightly),
  pytest.param('fairface_small', 'runlocal', None, marks=pytest.mark.nightly),
  pytest.param('utk_best', 'runlocal', None, marks=pytest.mark.nightly),
  pytest.param('fairface_best', 'runlocal', None, marks=pytest.mark.nightly),
]  # fmt: skip


def load(name, arg=''):
  return recipes.load(CONFIGS / f'{name}.py').get_config(arg)


@pytest.mark.parametrize(
  'name', [path.stem for path in sorted(CONFIGS.glob('utk_*.py'))]
)
def test_the_full_protocol_selects_on_validation(name):
  config = load(name, 'protocol=full')
  splits = [config.data[f'{key}_split'] for key in ('train', 'validation')]
  assert [*splits, config.data.test_split] == ['train', 'validation', 'test']
  assert config.data.eval_split == 'test' and config.train.select == 'best'


@pytest.fixture(scope='session')
def drawn(tmp_path_factory):
  """Drawn faces as UTKFace's, FairFace's and Adience's owners lay them out."""
  folder = tmp_path_factory.mktemp('drawn')
  (folder / 'utkface').mkdir()
  rows = {'train': [], 'val': []}
  for index in range(100):
    face = faces.draw_example(0, index)
    name = f'{round(face["age"])}_{face["gender"]}_0_2017{index:04d}.jpg'
    (folder / 'utkface' / f'{name}.chip.jpg').write_bytes(face['image'])
    part = 'val' if index % 5 == 0 else 'train'
    path = folder / 'fairface' / part / f'{index}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(face['image'])
    (group,) = schema.group_of_prediction(np.array([face['age']]), 'fairface')
    low, high = schema.AGE_GROUPS['fairface'][group]
    rows[part].append({
      'file': f'{part}/{index}.jpg',
      'age': 'more than 70' if low == 70 else f'{low}-{high}',
      'gender': ('Male', 'Female')[face['gender']],
    })  # fmt: skip
  for part, labels in rows.items():
    path = folder / 'fairface' / f'fairface_label_{part}.csv'
    with path.open('w', newline='') as file:
      writer = csv.DictWriter(file, ('file', 'age', 'gender'))
      writer.writeheader()
      writer.writerows(labels)
  stand_in_folds.write_folds(folder / 'fairface', folder / 'adience', 0)
  return folder


@pytest.fixture(autouse=True)
def no_more_than_the_recipe(monkeypatch, no_figures):
  """Leaves out what no recipe changes: saliency, figures, fast forms, peaks."""
  monkeypatch.setattr(grad_cam, 'write_saliency', lambda *args: None)
  monkeypatch.setattr(flops, 'matmul_peak', lambda dtype: 1e12)
  monkeypatch.setattr(ops, 'choose', lambda name: 'plain')


def use(config, drawn):
  """Lets a configuration read the drawn faces."""
  config.data.source_dir = str(drawn / config.data.name)
  config.data.data_dir = str(drawn.parent / 'data')
  return config


@pytest.mark.parametrize('name, arg, trained', RUNS)
def test_a_recipe_runs(name, arg, trained, drawn, tmp_path, capsys):
  trainer.train_and_evaluate(use(load(name, arg), drawn), str(tmp_path))
  scores = json.loads((tmp_path / 'scores.json').read_text())
  assert scores['step'] == 3 and scores['num_examples'] > 0
  total = next(
    line for line in capsys.readouterr().out.splitlines()
    if line.startswith('total')
  )  # fmt: skip
  if trained:
    assert f'{trained:,}' in total and '14,714,688' in total


def test_absent_weights_name_both_ways_out(drawn, tmp_path):
  config = use(load('utk_resnet', 'runlocal,backbone=resnet18'), drawn)
  config.model.init_from = str(tmp_path / 'resnet18.pth')
  with pytest.raises(errors.UserError, match='init_from=PATH.*scratch'):
    trainer.train_and_evaluate(config, str(tmp_path / 'run'))


def read_params(workdir):
  checkpoints = checkpoint.Checkpoints(workdir, [('validation/loss', -1)])
  tree = checkpoints.restore_variables(checkpoints.latest_step())
  checkpoints.close()
  return tree['params']


@pytest.mark.nightly
def test_transfer_trains_a_new_last_layer_and_no_other(drawn, tmp_path):
  workdirs = [str(tmp_path / name) for name in ('first', 'second', 'third')]
  first = load('adience_transfer', 'runlocal,stage=pretrain,source=fairface')
  trainer.train_and_evaluate(use(first, drawn), workdirs[0])
  arg = f'runlocal,stage=frozen,data=utkface,init={workdirs[0]}'
  second = use(load('adience_transfer', arg), drawn)
  second.seed = 1  # Its new layers begin elsewhere than the first run's.
  # Without the excuse the other tasks' output layers do not fit.
  excuse, second.model.init_excuse = second.model.init_excuse, ''
  with pytest.raises(errors.UserError, match='branch_.*init_excuse'):
    trainer.train_and_evaluate(second, workdirs[1])
  second.model.init_excuse = excuse
  trainer.train_and_evaluate(second, workdirs[2])
  before, after = (read_params(workdirs[row]) for row in (0, 2))
  jax.tree.map(np.testing.assert_array_equal, before['backbone'], after['backbone'])
  assert before['branch_age']['logits']['kernel'].shape == (512, 9)
  assert after['branch_age']['logits']['kernel'].shape == (512, 101)
  assert set(after['branch_age']) == {'logits'}  # The branch is that layer.
  gender = [tree['branch_gender']['logits']['kernel']
            for tree in (before, after)]  # fmt: skip
  assert np.abs(gender[0] - gender[1]).max() > 0.05  # Three steps: 0.005.
  origin = json.loads((tmp_path / 'third' / 'init.json').read_text())
  data = json.loads((tmp_path / 'first' / 'data.json').read_text())
  assert origin == {
    'source': workdirs[0], 'step': 3, 'name': 'fairface',
    'licence': data['licence'], 'tensors': 14, 'loaded': 10, 'excused': 4,
  }  # fmt: skip


@pytest.mark.parametrize('name', ['utk_resnet', 'fairface_resnet'])
def test_a_resnet_that_no_recipe_has_is_refused(name):
  assert load(name, 'backbone=resnet34').model.backbone == 'resnet34'
  with pytest.raises(errors.UserError, match='known: resnet18, resnet34, res'):
    load(name, 'backbone=vgg16')


def test_the_best_network_of_utkface_is_searched_off_the_test_images():
  config = load('utk_best', 'protocol=seed5k,search')
  splits = {config.data[f'{key}_split'] for key in ('validation', 'test', 'eval')}
  assert config.data.train_split == 'seed5k_train' and splits == {'seed5k_validation'}
  config = load('utk_best', 'protocol=seed5k')
  assert config.data.test_split == 'seed5k_test' and config.train.select == 'last'
  tuned, scratch = load('utk_best', 'init=there'), load('utk_best')
  assert (tuned.model.init_from, scratch.model.init_from) == ('there', '')
  assert tuned.model.layers == load('fairface_best').model.layers
  assert tuned.optimizer.learning_rate < scratch.optimizer.learning_rate


def test_stages_of_transfer():
  config = load('adience_transfer', 'stage=finetune,init=there,fold=3')
  assert (config.model.init_from, config.optimizer.freeze) == ('there', '')
  assert config.data.train_split == 'fold3_train'
  config = load('adience_transfer', 'stage=scratch,init=there,data=utkface')
  assert (config.model.init_from, config.tasks.age.kind) == ('', 'dex')
  config = load('adience_transfer', 'stage=pretrain,source=celeb_a')
  assert (config.data.name, config.tasks.age.kind) == ('celeb_a', '')
  with pytest.raises(errors.UserError, match='needs init='):
    load('adience_transfer', 'stage=frozen')
  with pytest.raises(errors.UserError, match='did you mean "celeb_a"'):
    load('adience_transfer', 'source=celeba')


@pytest.mark.parametrize('name', ['adience_levi_hassner', 'adience_resnet'])
def test_a_fold_is_scored_and_the_other_four_teach(name):
  config = load(name, 'fold=2')
  assert config.data.name == config.data.age_groups == 'adience'
  assert config.data.train_split == 'fold2_train'
  assert config.data.validation_split == 'fold2_validation'
  assert config.data.test_split == config.data.eval_split == 'fold2'
  with pytest.raises(errors.UserError, match='0 to 4'):
    load(name, 'fold=5')


def test_levi_hassner_stops_early_and_scores_the_best():
  config = load('adience_levi_hassner')
  assert config.train.patience_evaluations == 10
  assert config.train.select == 'best'


# ml_collections loads a recipe by what Python 3.12 drops.
@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')
@pytest.mark.parametrize(
  'path', sorted(CONFIGS.glob('*.py')), ids=lambda path: path.stem
)
def test_every_setting_of_every_sweep_is_a_configuration(path):
  base = f'init={CONFIGS}' if path.stem == 'adience_transfer' else ''
  for name, settings in sweeps.list_sweeps(recipes.load(path)).items():
    runs = sweeps.create_runs(str(path), base, settings, [0, 1], [])
    assert len({run.folder for run in runs}) == len(runs) > 1
    assert not any(',' in run.folder for run in runs)
    found = {str(config_lib.flatten(sweeps.resolve(run)).items()) for run in runs}
    assert len(found) == len(runs), name
    assert f'`{name}`' in recipes.load(path).__doc__


def test_stand_in_folds_are_adiences_layout(drawn, tmp_path):
  lines, subjects, users = 0, set(), []
  for fold in range(5):
    path = drawn / 'adience' / f'fold_{fold}_data.txt'
    with path.open(newline='') as file:
      rows = list(csv.DictReader(file, delimiter='\t'))
    lines += len(rows)
    subjects |= {row['face_id'] for row in rows}
    users.append({row['user_id'] for row in rows})
  assert lines == len(subjects) == 100
  assert len(set.union(*users)) == sum(map(len, users))  # Albums stay whole.
  assert 'not Adience' in (drawn / 'adience' / 'STAND_IN.txt').read_text()
  known = {}
  for groups in ('adience', 'fairface'):
    source = faces_on_disk.open_source(
      'adience', 'all', source_dir=str(drawn / 'adience'),
      data_dir=str(drawn.parent / 'data'), image_size=8, age_groups=groups,
    )  # fmt: skip
    known[groups] = set(source.labels['age_group']) - {schema.UNKNOWN}
    assert source.licence.startswith(schema.STAND_IN)
  assert known['adience'] <= {0, 3, 4, 7}
  assert (source.labels['age_group'] != schema.UNKNOWN).all()
  with pytest.raises(errors.UserError, match='not empty'):
    stand_in_folds.write_folds(drawn / 'fairface', drawn / 'adience', 0)
  with pytest.raises(errors.UserError, match='no FairFace'):
    stand_in_folds.write_folds(drawn / 'utkface', tmp_path / 'out', 0)
  count = stand_in_folds.write_folds(drawn / 'fairface', tmp_path / 'few', 7)
  assert count == len(list(tmp_path.glob('few/faces/*/coarse_tilt_*'))) == 7
