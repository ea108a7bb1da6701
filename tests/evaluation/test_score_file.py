"""Anybody's predictions scored on a split."""

import csv
import json
import pathlib

import faces_on_disk
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, report
from agegender_jax.data import source as source_lib
from agegender_jax.evaluation import score_file

NAMES = [f'faces/{row}.jpg' for row in range(200)]
LABELS = {
  'age': np.arange(200.0) % 90,
  'age_group': np.full(200, -1),
  'gender': np.arange(200) % 2,
}


def write(path, rows, header='name,age_pred,gender_prob'):
  lines = [header, *(','.join(map(str, row)) for row in rows)]
  path.write_text('\n'.join(lines) + '\n')
  return str(path)


def rows():
  return [(name, row % 90 + 2, row % 2) for row, name in enumerate(NAMES)]


def table(path):
  return score_file.create_table(path, NAMES, LABELS, 'adience')


@pytest.mark.parametrize('prefix', ['faces/', '', '/home/me/', 'C:\\faces\\'])
def test_predictions_are_matched_by_name_in_any_order(tmp_path, prefix):
  given = [(prefix + name.split('/')[1], *rest) for name, *rest in rows()[::-1]]
  found, counts = table(write(tmp_path / 'p.csv', given))
  np.testing.assert_array_equal(found['age_pred'], LABELS['age'] + 2)
  assert found['age_group_pred'][30] == 4  # 32 years: group 25-32.
  assert not any(counts.values())


def test_little_is_left_out_and_counted(tmp_path):
  given = rows()
  del given[7]
  given += [('faces/none.jpg', 3, 1), (NAMES[5], 50, 1)]
  found, counts = table(write(tmp_path / 'p.csv', given))
  assert counts['missing'] == 2 and counts['unknown'] == counts['duplicate'] == 1
  assert np.isnan(found['age_pred'][[5, 7]]).all()
  assert np.isnan(found['age_group_pred'][5])


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda given: given[:190], '10 are missing .*"faces/190.jpg"'),
    (lambda given: given + [(f'x{row}', 1, 1) for row in range(3)], '3 are unknown'),
    (lambda given: given + given[:3], '6 are missing|3 are duplicate'),
    (
      lambda given: [(n, '', g) for n, _, g in given[:9]] + given[9:],
      r'9 are without age_pred \(such as "faces/0.jpg"\)',
    ),
    (lambda given: [(NAMES[0], 'old', 1), *given[1:]], 'old'),
    (lambda given: [(NAMES[0], 3, 1.5), *given[1:]], 'gender_prob "1.5" of row 2'),
    (lambda given: [(NAMES[0], 'nan', 1), *given[1:]], 'age_pred "nan"'),
    (lambda given: [(n, '', '') for n, *_ in given], 'holds no prediction'),
  ],
)
def test_what_is_refused(tmp_path, change, words):
  with pytest.raises(errors.UserError, match=words):
    table(write(tmp_path / 'p.csv', change(rows())))


def test_an_interval_that_ends_before_it_begins_is_refused(tmp_path):
  given = [(name, 30, 20, 40) for name in NAMES]
  given[3] = (NAMES[3], 30, 40, 20)
  path = write(tmp_path / 'p.csv', given, 'name,age_pred,age_low,age_high')
  with pytest.raises(errors.UserError, match='age_low of "faces/3.jpg" is above'):
    table(path)


def test_the_users_folder_may_be_a_tilde(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  write(tmp_path / 'p.csv', rows())
  assert score_file.read_predictions('~/p.csv')[0] == NAMES


def test_the_file_must_name_its_images(tmp_path):
  with pytest.raises(errors.UserError, match='no column "name"'):
    table(write(tmp_path / 'p.csv', rows(), 'file,age_pred,gender_prob'))
  with pytest.raises(errors.UserError, match='two columns "age_pred"'):
    table(write(tmp_path / 'p.csv', rows(), 'name,age_pred,age_pred'))
  with pytest.raises(errors.UserError, match='no such file'):
    table(str(tmp_path / 'nowhere.csv'))


def test_groups_by_name_or_row(tmp_path):
  given = [(name, '25-32' if row % 2 else 4) for row, name in enumerate(NAMES)]
  found, _ = table(write(tmp_path / 'p.csv', given, 'name,age_group_pred'))
  assert (found['age_group_pred'] == 4).all() and 'age_pred' not in found


def test_scores_predictions_and_report_are_written(tmp_path):
  faces_on_disk.write_utkface(tmp_path / 'faces', 60)
  config = config_lib.default_config()
  config.data.update({
    'source_dir': str(tmp_path / 'faces'), 'data_dir': str(tmp_path / 'data'),
    'image_size': 16, 'cache': 'none', 'eval_split': 'all', 'train_split': 'all',
  })  # fmt: skip
  config.train.bootstrap_samples = 20
  source = source_lib.create_source(config.data, 'all')
  given = [
    (name, age + 3, 0.9 if gender else 0.2)
    for name, age, gender in zip(
      source.names, source.labels['age'], source.labels['gender'], strict=True
    )
  ]
  workdir = tmp_path / 'peer'
  path = write(tmp_path / 'p.csv', given)
  scores = score_file.score_file(config, str(workdir), path)
  assert scores['age_mae'] == pytest.approx(3) and scores['gender_accuracy'] == 1
  assert json.loads((workdir / 'scores.json').read_text()) == scores
  with (workdir / 'predictions.csv').open() as file:
    assert len(list(csv.DictReader(file))) == 60
  page = pathlib.Path(report.write_report(str(workdir))).read_text()
  assert 'Age error' in page and 'p.csv' in page and 'Scored on all, 60 images.' in page
  for word in (
    'Trained on',
    'How to reproduce',
    'at step',
    'Learning curves',
    'Backbone',
  ):
    assert word not in page
  data = json.loads((workdir / 'data.json').read_text())
  assert 'age_mae' in data['majority'] and 'age_coverage90' not in data['majority']
  (workdir / 'checkpoints').mkdir()
  with pytest.raises(errors.UserError, match='holds a training run'):
    score_file.score_file(config, str(workdir), path)
