import csv
import json

import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors, schema
from agegender_jax.evaluation import artifacts
from agegender_jax.scoring import calibration


def table():
  return {
    'age': np.array([10.0, 20, 30, 40, -1], np.float32),
    'age_pred': np.array([11.0, 18, 60, 40, 99], np.float32),
    'age_low': np.array([0.0, 8, 50, 30, 89]),
    'age_high': np.array([21.0, 28, 70, 50, 109]),
    'age_group': np.array([2, 3, 4, 5, -1], np.int32),
    'age_group_pred': np.array([2, 3, 7, 5, 7], np.int32),
    'gender': np.array([0, 0, 0, 1, -1], np.int32),
    'gender_prob': np.array([0.1, 0.6, 0.9, 0.8, 0.5]),
  }


def test_worst_are_the_largest_known_errors():
  assert artifacts.worst_rows(table(), 2).tolist() == [2, 1]
  assert artifacts.worst_rows(table(), 9).tolist() == [2, 1, 0]
  groups = {k: v for k, v in table().items() if k.startswith('age_group')}
  assert artifacts.worst_rows(groups, 9).tolist() == [2]
  assert artifacts.worst_rows({}, 9).tolist() == []


def test_contradictory_are_sure_wrong_genders_then_ages_outside():
  columns = table()
  columns['age'][0] = 23  # Two years beyond an interval of 21: less than 20/20.
  assert artifacts.contradictory_rows(columns, 9).tolist() == [2, 1, 0]
  assert artifacts.contradictory_rows(columns, 1).tolist() == [2]
  del columns['gender_prob']
  assert artifacts.contradictory_rows(columns, 9).tolist() == [2, 0]
  del columns['age_low']
  assert artifacts.contradictory_rows(columns, 9).tolist() == []


def many(count=400):
  random = np.random.default_rng(0)
  logit = random.normal(0, 4, count)
  gender = (random.uniform(size=count) < 1 / (1 + np.exp(-logit / 2))).astype(int)
  age = random.integers(1, 80, count).astype(np.float32)
  predicted = (age + random.normal(0, 5, count)).astype(np.float32)
  return {
    'age': age, 'age_pred': predicted, 'gender': gender,
    'age_group': np.zeros(count, int), 'age_group_pred': np.zeros(count, int),
    'gender_logit': logit, 'gender_prob': 1 / (1 + np.exp(-logit)),
  }  # fmt: skip


def calibrated(columns):
  fitted = calibration.fit(columns)
  columns['gender_raw'] = columns['gender_prob']
  return fitted, columns | calibration.apply(fitted, columns)


def test_details_hold_reliability_before_and_after_and_every_interval():
  fitted, columns = calibrated(many())
  extras = {'race': (np.arange(400) % 2).tolist()}
  found = artifacts.details(columns, extras, 'adience', 0, fitted)['calibration']
  assert found['fitted'] == fitted
  for kind, name in (('raw', 'gender_raw'), ('calibrated', 'gender_prob')):
    bins = found['gender'][kind]
    assert [b['count'] for b in bins] == np.histogram(
      columns[name], np.linspace(0, 1, 11)
    )[0].tolist()
  scores = found['gender_scores']
  assert scores['calibrated']['gender_nll'] < scores['raw']['gender_nll']
  for kind, key in (('raw', 'nll_before'), ('calibrated', 'nll_after')):
    nll = fitted['gender'][key]
    assert scores[kind]['gender_nll'] == pytest.approx(nll, rel=1e-3)
  ways = {row['column'] for row in found['intervals']}
  assert ways == {
    '',
    'gender',
    'age',
    'gender x age',
    'race',
    'predicted age',
    'predicted decade',
  }
  overall = {r['level']: r for r in found['intervals'] if not r['column']}
  # Fitted on the very examples: the quantile's rank, over their number.
  bins = len(fitted['age']['counts'])
  for level, row in overall.items():
    assert level <= row['coverage'] <= level + bins / 400


def test_details_without_a_calibration_claim_none():
  found = artifacts.details(many(), {}, 'adience', 0)['calibration']
  assert 'intervals' not in found and 'calibrated' not in found['gender']
  assert found['fitted'] == {}


class Source:
  """Of 400 images, each of its row's colour."""

  names = [f'{row}.jpg' for row in range(400)]
  extras = {'race': [row % 3 - 1 for row in range(400)]}

  def __len__(self):
    return 400

  def gather(self, rows):
    colour = np.asarray(rows, np.uint8)[:, None, None, None]
    return np.tile(colour, (1, 2, 2, 3))


def test_files_hold_the_columns_and_faces(tmp_path):
  fitted, columns = calibrated(many())
  config = config_lib.default_config()
  config.train.bootstrap_samples = 0
  artifacts.write_results(tmp_path, {'step': 1}, columns, Source(), config, fitted)
  assert json.loads((tmp_path / 'scores.json').read_text()) == {'step': 1}
  assert 'groups' in json.loads((tmp_path / 'details.json').read_text())
  with (tmp_path / 'predictions.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert tuple(rows[0]) == (*schema.PREDICTION_COLUMNS, 'race')
  assert [row['race'] for row in rows[:3]] == ['', '0', '1']
  for name in ('age_low', 'age_high', 'gender_prob'):
    values = [float(row[name]) for row in rows]
    np.testing.assert_allclose(values, columns[name], rtol=1e-5, atol=1e-5)
  faces = np.load(tmp_path / 'faces.npz')
  for kind in ('', 'worst_', 'contradictory_'):
    images, picked = faces[f'{kind}images'], faces[f'{kind}row']
    assert images.shape == (20, 2, 2, 3)
    np.testing.assert_array_equal(images[:, 0, 0, 0], picked.astype(np.uint8))
  error = np.abs(columns['age_pred'] - columns['age'])
  np.testing.assert_allclose(error[faces['worst_row']], np.sort(error)[:-21:-1])


def test_only_a_last_half_line_of_the_metrics_is_dropped(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  assert artifacts.read_metrics(str(tmp_path)) == []
  path.write_text('{"step": 1}\n{"step": 2}\n{"st')
  assert artifacts.read_metrics(str(tmp_path)) == [{'step': 1}, {'step': 2}]


@pytest.mark.parametrize('line', ['{"st', '[]', '{}', ''])
def test_another_bad_line_of_the_metrics_is_named(tmp_path, line):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
  with pytest.raises(errors.UserError, match=r'metrics.jsonl, line 2'):
    artifacts.read_metrics(str(tmp_path))
