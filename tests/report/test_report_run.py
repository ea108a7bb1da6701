"""What is read of a workdir: damaged files, old runs, later evaluations."""

import json
import re

import fake_workdir
import numpy as np
import pytest

from agegender_jax import errors, report, schema
from agegender_jax.report import evaluations, panels
from agegender_jax.report import run as run_lib


def test_evaluating_an_old_run_again_fills_its_page(tmp_path):
  folder = fake_workdir.create(tmp_path / 'old', old=True)
  again = fake_workdir.create(tmp_path / 'new')
  scores = json.loads((folder / 'scores.json').read_text())
  target = folder / 'eval' / 'utkface_seed5k_test_11000'
  target.parent.mkdir()
  again.rename(target)
  written = {'data': 'utkface', **scores, 'gender_auc': 0.97}
  fake_workdir.write_json(target / 'scores.json', written)
  config = fake_workdir.config(name='utkface', train_split='seed5k_trainval')
  fake_workdir.write_json(folder / 'config.json', {'config': config})
  run = run_lib.read_run(folder)
  assert run.scores['gender_auc'] == 0.97
  assert len(run.worst) == len(run.contradictory) == 20
  assert run.details.intervals
  # Other views of the same pictures are another evaluation.
  fake_workdir.write_json(target / 'scores.json',
                          written | {'age_mae': 1.5})  # fmt: skip
  run = run_lib.read_run(folder)
  assert (run.worst, run.details.intervals) == ([], [])
  titles = [cell['text'] for cell in evaluations.others(run)['blocks'][0][
    'rows'][1]]  # fmt: skip
  assert titles[:2] == ['utkface', 'seed5k_test'] and titles[4] == '1.50'


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
  scores |= {'data': 'utkface', 'gender_ece': gender_ece}
  fake_workdir.write_json(folder / 'scores.json', scores)
  return folder


@pytest.mark.parametrize('own, again, shown, gender_ece', [
  (RAW, None, RAW, 0.1), (RAW, SINCE, SINCE, 0.2), (FIRST, SINCE, SINCE, 0.2),
  (FIRST, None, FIRST, 0.1), (FIRST, FIRST, FIRST, 0.1),
  (SINCE, SINCE, SINCE, 0.1),
])  # fmt: skip
def test_a_calibration_is_shown_beside_the_scores_computed_with_it(
  tmp_path, no_figures, own, again, shown, gender_ece
):
  folder = create_calibrated(tmp_path / 'run', own, 0.1)
  if again is not None:
    other = create_calibrated(tmp_path / 'again', again, 0.2)
    other.rename(folder / 'eval' / 'utkface_seed5k_test_11000')
  fake_workdir.write_json(folder / 'calibration.json', SINCE)
  run = run_lib.read_run(folder)
  assert run.calibration == shown and run.scores['gender_ece'] == gender_ece
  report.write_report(folder)
  temperature = shown['gender']['temperature'] if shown else None
  said = re.findall(r'temperature of ([0-9.]+\d)',
                    (folder / 'report.html').read_text('utf-8'))  # fmt: skip
  assert said == ([f'{temperature:.2f}'] if shown else [])
  card = (folder / 'model_card.md').read_text('utf-8')
  assert f'Temperature of gender: {temperature or "not measured"}' in card


def test_older_details_were_computed_with_the_stored_calibration_or_none(
  tmp_path,
):
  folder = create_calibrated(tmp_path / 'run', SINCE, 0.1)
  fake_workdir.write_json(folder / 'calibration.json', SINCE)
  details = json.loads((folder / 'details.json').read_text())
  del details['calibration']['fitted']
  fake_workdir.write_json(folder / 'details.json', details)
  assert run_lib.read_run(folder).calibration == SINCE
  del details['calibration']['intervals']
  del details['calibration']['gender']['calibrated']
  fake_workdir.write_json(folder / 'details.json', details)
  assert run_lib.read_run(folder).calibration == RAW


@pytest.mark.parametrize('name, content', [
  ('scores.json', '{"a": '), ('scores.json', '[]'), ('faces.npz', 'PK'),
  ('predictions.csv', 'name,age\na,old\n'), ('details.json', '{"groups": [1]}'),
  ('layers.json', '[3]'), ('layers.json', '{}'), ('saliency.npz', 'PK'),
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
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  run = run_lib.read_run(tmp_path)
  assert run.metrics == [rows[2], rows[1]]


def test_read_run_codes_unknowns(tmp_path):
  rows = [
    {'name': 'a', 'age': -1, 'gender': '', 'age_group': '60+'},
    {'name': 'b', 'age': 3.5, 'gender': 'female', 'age_group': 2, 'race': 4},
  ]
  predictions = run_lib.read_run(
    fake_workdir.create_minimal(tmp_path, rows)
  ).predictions
  np.testing.assert_array_equal(predictions.age, [np.nan, 3.5])
  assert predictions.gender.tolist() == [schema.UNKNOWN, schema.FEMALE]
  assert predictions.age_group.tolist() == [7, 2]
  assert predictions.gender_pred.tolist() == [schema.UNKNOWN] * 2
  assert predictions.extra == {'race': ['', '4']}


def test_series_averages_many_points(tmp_path):
  run = run_lib.read_run(fake_workdir.create(tmp_path / 'run'))
  epochs, values = panels.series(run, 'validation', 'loss')
  assert len(epochs) == len(values) == 60
  assert epochs[-1] == 60
  assert panels.scored_epoch(run) == 55
