"""What is read of a workdir: its own scores, damaged files."""

import json
import re

import fake_workdir
import numpy as np
import pytest

from agegender_jax import errors, report, schema
from agegender_jax.report import run as run_lib
from agegender_jax.report import sections

RAW = {}
FIRST, SINCE = (
  {'step': 11000, 'split': split, 'gender': {'temperature': temperature}}
  for split, temperature in (('validation', 1.31), ('rest', 2.04))
)


def create_calibrated(folder, fitted, gender_ece):
  """Writes a run whose scores were computed with a calibration, or raw."""
  fake_workdir.create(folder)
  details = json.loads((folder / 'details.json').read_text())
  details['calibration']['fitted'] = fitted
  fake_workdir.write_json(folder / 'details.json', details)
  scores = json.loads((folder / 'scores.json').read_text())
  fake_workdir.write_json(folder / 'scores.json', scores | {'gender_ece': gender_ece})
  return folder


@pytest.mark.parametrize('own', [RAW, FIRST, SINCE])
def test_a_page_shows_its_own_scores_and_no_other_evaluation(tmp_path, no_figures, own):
  folder = create_calibrated(tmp_path / 'run', own, 0.1)
  # The same step on the same images, with a calibration fitted since.
  other = create_calibrated(tmp_path / 'again', SINCE, 0.2)
  other.rename(folder / 'eval' / 'utkface_seed5k_test_11000')
  fake_workdir.write_json(folder / 'calibration.json', SINCE)
  run = run_lib.Run(folder)
  assert run.scores == json.loads((folder / 'scores.json').read_text())
  assert run.details == json.loads((folder / 'details.json').read_text())
  assert run.calibration == own and run.scores['gender_ece'] == 0.1
  report.write_report(folder)
  temperature = own['gender']['temperature'] if own else None
  page = (folder / 'report.html').read_text('utf-8')
  shown = re.findall(r'temperature of ([0-9.]+\d)', page)
  assert shown == ([f'{temperature:.2f}'] if own else [])
  card = (folder / 'model_card.md').read_text('utf-8')
  assert f'Temperature of gender: {temperature or "not measured"}' in card
  assert '10.0 %' in card and '20.0 %' not in card


@pytest.mark.parametrize('name, content', [
  ('scores.json', '{"a": '), ('scores.json', '[]'), ('faces.npz', 'PK'),
  ('predictions.csv', 'name,age\na,old\n'), ('details.json', '{"groups": [1}'),
  ('layers.json', '{}'), ('saliency.npz', 'PK'),
])  # fmt: skip
def test_damaged_file_is_named(tmp_path, name, content):
  fake_workdir.create_minimal(tmp_path, [{'name': 'a', 'age': 3}])
  (tmp_path / name).write_text(content)
  with pytest.raises(errors.UserError, match=name) as caught:
    report.write_report(tmp_path)
  assert '\n' not in str(caught.value)


def test_read_run_merges_rows_of_a_step(tmp_path):
  fake_workdir.create_minimal(tmp_path)
  rows = [{'step': 2, 'train/loss': 5}, {'step': 4, 'train/loss': 4},
          {'step': 2, 'train/loss': 3, 'validation/loss': 1}]  # fmt: skip
  (tmp_path / 'metrics.jsonl').write_text(
    ''.join(f'{json.dumps(row)}\n' for row in rows)
  )
  run = run_lib.Run(tmp_path)
  assert run.metrics == [rows[2], rows[1]]


def test_read_run_knows_unknowns(tmp_path):
  rows = [
    {'name': 'a', 'age': '', 'gender': '', 'age_group': '7'},
    {'name': 'b', 'age': 3.5, 'gender': 1, 'age_group': 2, 'gender_prob': 0.7},
  ]
  folder = fake_workdir.create_minimal(tmp_path, rows)
  predictions = run_lib.Run(folder).predictions
  np.testing.assert_array_equal(predictions['age'], [np.nan, 3.5])
  np.testing.assert_array_equal(predictions['gender'], [np.nan, schema.FEMALE])
  np.testing.assert_array_equal(predictions['age_group'], [7, 2])
  np.testing.assert_array_equal(predictions['gender_pred'], [np.nan, schema.FEMALE])


def test_series_is_the_mean_since_the_last_evaluation(tmp_path):
  run = run_lib.Run(fake_workdir.create(tmp_path / 'run'))
  epochs, values = sections.series(run, 'train', 'loss')
  assert len(epochs) == len(values) == 60
  assert epochs[-1] == 60
  assert sections.scored_epoch(run) == 55
