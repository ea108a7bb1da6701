"""The model card: every figure from the files, absent ones not measured."""

import json
import pathlib
import re

import fake_workdir
import pytest

from agegender_jax import errors, report
from agegender_jax.report import model_card, record

# Mitchell et al. 2019, figure 1; then two more.
HEADINGS = [
  'Model details', 'Intended use', 'Factors', 'Metrics', 'Evaluation data',
  'Training data', 'Quantitative analyses', 'Ethical considerations',
  'Caveats and recommendations', 'How to reproduce', 'Citation',
]  # fmt: skip


def estimate(value, count, half=1.0):
  return {'value': value, 'low': value - half, 'high': value + half,
          'count': count}  # fmt: skip


def group(column, name, count, mae, right):
  scores = {
    'age_mae': estimate(mae, count),
    'gender_accuracy': estimate(right, count, 0.05),
  }
  return {'column': column, 'group': name, 'count': count, 'scores': scores}


DETAILS = {
  'groups': [
    group('gender', 'male', 519, 6.5, 0.9),
    group('gender', 'female', 489, 7.25, 0.875),
    group('age', '20-29', 304, 4.5, 0.96),
    group('age', '80+', 26, 17.0, 0.75),
    group('age', '90+', 3, 40.0, 0.0),  # Too few to be called the worst.
    group('camera', 'a|b', 30, 9.0, 0.8),
    group('camera', 'c', 30, 8.0, 0.9),
  ],
  'disparities': [
    {'column': 'gender', 'metric': 'gender_accuracy', 'group': 'female',
     'reference': 'male', 'value': -0.025, 'low': -0.07, 'high': 0.02},
  ],
}  # fmt: skip


def update(path, **fields):
  content = json.loads(path.read_text()) if path.exists() else {}
  fake_workdir.write_json(path, content | fields)


@pytest.fixture
def folder(tmp_path):
  folder = fake_workdir.create(tmp_path / 'a run')
  for name in ('calibration.json', 'layers.json'):
    (folder / name).unlink(missing_ok=True)
  fake_workdir.write_json(folder / 'details.json', DETAILS)
  update(
    folder / 'scores.json',
    age_mae=6.79, age_mae_low=6.41, age_mae_high=7.17, gender_accuracy=0.913,
    num_near_duplicates=97, age_mae_without_near_duplicates=6.88, gender_ece=0.0321,
    age_coverage90=0.91, age_coverage90_low=0.89, age_coverage90_high=0.925,
    age_width90=27.5,
  )  # fmt: skip
  return folder


def write(folder):
  return pathlib.Path(model_card.write_card(folder)).read_text('utf-8')


def section(text, title):
  return re.search(rf'^## {title}\n(.*?)(?=^## |\Z)', text, re.M | re.S)[1]


def test_headings_are_those_of_the_paper(folder):
  assert re.findall(r'^## (.*)$', write(folder), re.M) == HEADINGS


def test_scores_stand_beside_the_majority_baseline(folder):
  text = section(write(folder), 'Quantitative analyses')
  assert '| 6.79 years [6.41 to 7.17] | 15.30 years |' in text
  assert '| 0.61 years | not measured |' in text.replace('+', '')


def test_groups_disparity_and_calibration_are_listed(folder):
  text = section(write(folder), 'Quantitative analyses')
  assert '| age: 80+ | 26 | 17.00 years [16.00 to 18.00] | 75.0 %' in text
  assert '| age: 90+ | 3 |' in text
  assert '| gender: female minus male | Gender accuracy | -2.5 points' in text
  assert '| Coverage of 90 % age intervals | 91.0 % [89.0 to 92.5] |' in text
  assert '| Width of 90 % age intervals | 27.50 years |' in text
  assert '(ECE) | 3.2 % |' in text
  assert 'Temperature of gender: not measured' in text
  # That of what the scores were computed with, not of a later one.
  update(folder / 'calibration.json', gender={'temperature': 1.3456})
  assert 'Temperature of gender: not measured' in write(folder)
  fitted = {'gender': {'temperature': 1.3456}}
  update(folder / 'details.json', calibration={'fitted': fitted})
  assert 'Temperature of gender: 1.35' in write(folder)


def test_the_worst_groups_are_named(folder):
  text = section(write(folder), 'Caveats and recommendations')
  lines = [line for line in text.splitlines() if line.startswith('- ')]
  assert len(lines) == 6  # Three columns by two scores.
  assert (
    '- Age error (MAE) by age is worst for 80+: 17.00 years [16.00 to 18.00], '
    '26 images; 6.79 years overall.'
  ) in lines
  worst = [line for line in lines if 'by gender is worst' in line]
  assert all('female' in line for line in worst) and len(worst) == 2


def test_the_group_that_the_intervals_miss_is_named(folder):
  rows = [('', '', 0.91, 1008), ('age', '20-29', 0.95, 304),
          ('age', '80+', 0.5, 26), ('age', '90+', 0.0, 3)]  # fmt: skip
  intervals = [
    {'level': 0.9, 'column': column, 'group': name, 'coverage': coverage,
     'low': coverage - 0.1, 'high': coverage + 0.1, 'width': 25.0, 'count': n}
    for column, name, coverage, n in rows
  ]  # fmt: skip
  fake_workdir.write_json(
    folder / 'details.json', DETAILS | {'calibration': {'intervals': intervals}}
  )
  text = section(write(folder), 'Caveats and recommendations')
  assert (
    '- The 90 % age interval holds the true age least often by age for 80+: '
    '50.0 % [40.0 to 60.0], 26 images.'
  ) in text


def test_a_name_cannot_break_the_table(folder):
  row = next(row for row in write(folder).splitlines() if 'a\\|b' in row)
  assert len(re.findall(r'(?<!\\)\|', row)) == 5


def test_near_duplicates_are_counted(folder):
  text = write(folder)
  assert 'near-duplicate in train: 97' in section(text, 'Evaluation data')
  results = section(text, 'Quantitative analyses')
  assert 'without near-duplicates | 6.88 years |' in results


def test_the_licence_of_the_data_is_named_beside_the_weights(folder):
  text = write(folder)
  terms = 'UTKFace: non-commercial research only'
  for title in ('Model details', 'Training data', 'Ethical considerations'):
    assert terms in section(text, title)


def test_first_weights_are_named_without_their_place(folder):
  assert '- First weights: random' in write(folder)
  fake_workdir.write_json(
    folder / 'init.json',
    {'source': 'hf:timm/resnet18', 'path': '/home/me/x', 'sha256': 'abc'},
  )
  text = write(folder)
  assert '- First weights: source hf:timm/resnet18, sha256 abc\n' in text
  assert '/home/me' not in text


def test_flops_come_from_the_layers(folder):
  layer = {'name': 'c', 'kind': 'Conv', 'output': [1], 'parameters': 1}
  fake_workdir.write_json(
    folder / 'layers.json', [layer | {'flops': n} for n in (10**9, 5 * 10**8)]
  )
  assert '- FLOPs per image, forward: 1.5 G' in write(folder)


@pytest.mark.parametrize(
  'backbone, there, not_there',
  [('cnn', 'multi-branch report', 'He, Zhang'), ('resnet50', 'He, Zhang', 'Simonyan')],
)
def test_sources_are_cited(folder, backbone, there, not_there):
  path = folder / 'config.json'
  content = json.loads(path.read_text())
  content['config']['model']['backbone'] = backbone
  fake_workdir.write_json(path, content)
  text = section(write(folder), 'Citation')
  assert there in text and not_there not in text
  assert 'Zhang, Song & Qi 2017' in text


def test_absent_files_are_not_measured(tmp_path):
  folder = tmp_path / 'bare'
  folder.mkdir()
  fake_workdir.write_json(
    folder / 'config.json', {'config': fake_workdir.config(), 'versions': {}}
  )
  text = write(folder)
  assert re.findall(r'^## (.*)$', text, re.M) == HEADINGS
  assert not re.search(r'\b(nan|None)\b', text)
  for title in ('Model details', 'Factors', 'Evaluation data', 'Training data',
                'Quantitative analyses', 'Caveats'):  # fmt: skip
    assert 'not measured' in section(text, f'{title}.*?')
  assert 'not stated in the files' in section(text, 'Ethical considerations')


def test_the_configuration_alone_gives_no_figure(tmp_path):
  folder = tmp_path / 'bare'
  folder.mkdir()
  fake_workdir.write_json(
    folder / 'config.json', {'config': fake_workdir.config(), 'versions': {}}
  )
  text = section(write(folder), 'Quantitative analyses')
  assert not re.search(r'\d', text)


def test_the_report_finds_its_card(folder, monkeypatch):
  (folder / 'model_card.md').unlink()
  monkeypatch.setattr(report.page, 'SECTIONS', (record.reproduce,))
  page = pathlib.Path(report.write_report(folder)).read_text('utf-8')
  assert '<a href="model_card.md">' in page


def test_a_damaged_file_is_named(folder):
  (folder / 'details.json').write_text('{"groups": [')
  with pytest.raises(errors.UserError, match='details.json is damaged'):
    model_card.write_card(folder)
