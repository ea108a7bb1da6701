import types

import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, files
from agegender_jax.evaluation import evaluate
from agegender_jax.scoring import calibration


class Source(types.SimpleNamespace):
  def __len__(self):
    return len(self.names)


def source(*names, fingerprint='f'):
  return Source(names=list(names), fingerprint=fingerprint)


SPLITS = {
  'train': source('a', 'b'),
  'validation': source('c', 'd'),
  'validation_part': source('d'),
  'test': source('e', 'f'),
  'rest': source('g'),
}


def open_split(split):
  if split == 'empty':
    raise errors.EmptySplitError('no example')
  return SPLITS[split]


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A config, its workdir, and which splits were calibrated on."""
  config = config_lib.default_config()
  config_lib.save_config(config, str(tmp_path))

  fits = []

  def fit(table):
    fits.append(table['split'])
    return {'number': len(fits), 'age': None, 'gender': None}

  # The source of a split stands for what is predicted on it.
  monkeypatch.setattr(
    evaluate, 'predict_split', lambda network, variables, source, groups: {
      'split': next(k for k, v in SPLITS.items() if v is source)
    },
  )  # fmt: skip
  monkeypatch.setattr(calibration, 'fit', fit)
  monkeypatch.setattr(calibration, 'describe', lambda *args: 'calibrated')
  return types.SimpleNamespace(config=config, workdir=str(tmp_path), fits=fits)


def find(run, step, scored, train='train'):
  train = SPLITS[train] if train else None
  return evaluate._find_calibration(
    run.config, run.workdir, None, None, step, open_split, train, scored
  )


def open_set(run, scored=SPLITS['test']):
  train = SPLITS['train']
  return evaluate.open_calibration_set(run.config, open_split, train, scored)


def test_the_validation_split_calibrates_unless_it_is_scored(run, capsys):
  found = open_set(run)
  assert found == (SPLITS['validation'], 'validation')
  assert capsys.readouterr().out == ''
  # Also where it is but a part of what is scored.
  scored = source('d', 'e')
  assert open_set(run, scored)[0] is None
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 1 and 'data.calibration_split' in lines[0]


def test_a_split_asked_for_must_be_neither_trained_on_nor_scored(run):
  for split, word in [('train', 'trained on'), ('test', 'scored')]:
    run.config.data.calibration_split = split
    with pytest.raises(errors.UserError, match=f'"{split}".* are {word}'):
      open_set(run)
  run.config.data.calibration_split = 'rest'
  found = open_set(run)
  assert found == (SPLITS['rest'], 'rest')


def test_an_empty_split_calibrates_nothing(run, capsys):
  run.config.data.calibration_split = 'empty'
  found = open_set(run)
  assert found == (None, 'empty')
  assert '"empty" holds no image' in capsys.readouterr().out


def test_images_of_other_data_may_have_the_same_names():
  assert evaluate._share_images(source('a'), source('a', 'b'))
  assert not evaluate._share_images(source('a'), source('a', fingerprint='g'))


def train(run):
  """What training does at its end."""
  found = open_set(run)
  return evaluate.calibrate(run.config, run.workdir, None, None, 7, *found)


def test_the_stored_calibration_is_used(run):
  first = train(run)
  assert first['number'] == 1 and run.fits == ['validation']
  assert files.read_json(f'{run.workdir}/calibration.json') == first
  assert find(run, 7, SPLITS['test']) == first
  # It holds for other data, which could not calibrate.
  other = source('c', fingerprint='other')
  assert find(run, 7, other, train=None) == first
  assert run.fits == ['validation']


def test_another_split_is_fitted_and_then_used(run):
  train(run)
  run.config.data.calibration_split = 'rest'
  assert find(run, 7, SPLITS['test'])['split'] == 'rest'
  run.config.data.calibration_split = ''
  assert find(run, 7, SPLITS['test'])['split'] == 'rest'
  assert run.fits == ['validation', 'rest']


def test_another_step_has_none_unless_a_split_is_asked_for(run, capsys):
  stored = train(run)
  run.config.train.restore_step = 5
  assert find(run, 5, SPLITS['test']) is None
  assert 'of another step' in capsys.readouterr().out
  run.config.data.calibration_split = 'rest'
  assert find(run, 5, SPLITS['test'])['step'] == 5
  assert files.read_json(f'{run.workdir}/calibration.json') == stored


def test_over_sampling_has_a_calibration_of_its_own(run, capsys):
  plain = train(run)
  run.config.data.oversample = True
  assert calibration.variant(run.config, run.workdir) == '_oversample'
  assert find(run, 7, SPLITS['test']) is None
  assert 'calibration_oversample.json is absent' in capsys.readouterr().out
  run.config.data.calibration_split = 'rest'
  assert find(run, 7, SPLITS['test'])['number'] == 2
  assert find(run, 7, SPLITS['test'])['number'] == 2
  run.config.data.update({'oversample': False, 'calibration_split': ''})
  assert find(run, 7, SPLITS['test']) == plain


def test_images_that_calibrated_are_not_scored_with_it(run, capsys):
  train(run)
  assert find(run, 7, SPLITS['validation_part']) is None
  out = capsys.readouterr().out
  assert 'calibration.json' in out and 'are scored now' in out


def test_other_data_without_a_stored_calibration_get_none(run, capsys):
  assert find(run, 7, source('z', fingerprint='other'), train=None) is None
  assert 'is absent' in capsys.readouterr().out and not run.fits


def test_a_split_asked_for_on_other_data_is_refused(run):
  other = source('z', fingerprint='other')
  stored = train(run)
  # Also one that the run's data and these may both have.
  for split in ('rest', 'validation'):
    run.config.data.calibration_split = split
    with pytest.raises(errors.UserError, match=f'"{split}".*leave it out'):
      find(run, 7, other, train=None)
  # The run's own field names a split of the run's own data.
  config_lib.save_config(run.config, run.workdir)
  assert find(run, 7, other, train=None) == stored
  assert run.fits == ['validation']


@pytest.mark.parametrize(
  'columns, words',
  [
    ({'age_pred'}, 'too few known ages'),
    ({'age_group_pred'}, 'gives no years'),
    ({'gender_prob'}, 'none or all of them are wrong'),
  ],
)
def test_what_could_not_be_fitted_is_said(columns, words):
  fitted = {'num_examples': 4, 'split': 'x', 'age': None, 'gender': None}
  line = calibration.describe(fitted, dict.fromkeys(columns, np.zeros(4)))
  assert words in line and '\n' not in line
