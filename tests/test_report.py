"""The report: closed-form statistics, absent files, escaping."""

import json
import re
import subprocess
import sys

import fake_workdir
import numpy as np
import pytest
from PIL import Image

from agegender_jax import report, schema
from agegender_jax.report import (
  blocks,
  compare,
  panels,
  record,
  sections,
  stats,
)
from agegender_jax.report import run as run_lib

FIGURES = ('learning_curves', 'faces', 'age_histogram', 'predicted_vs_true',
           'error_by_age')  # fmt: skip


def write_minimal(folder, rows=None, **data):
  folder.mkdir(exist_ok=True)
  fake_workdir.write_json(
    folder / 'config.json',
    {'config': fake_workdir.config(**data), 'versions': {}},
  )
  if rows is not None:
    fake_workdir.write_rows(folder / 'predictions.csv', rows)
  return folder


@pytest.fixture(scope='module')
def full(tmp_path_factory):
  folder = fake_workdir.create(tmp_path_factory.mktemp('full') / 'a run')
  report.write_report(folder)
  return folder


def test_import_loads_neither_matplotlib_nor_jax():
  code = (
    'import sys; from agegender_jax import report; '
    'print({"matplotlib", "jax", "jinja2"} & set(sys.modules))'
  )
  output = subprocess.check_output([sys.executable, '-c', code], text=True)
  assert output.strip() == 'set()'


def test_full_run_writes_figures_and_sections(full):
  page = (full / 'report.html').read_text('utf-8')
  for name in FIGURES:
    with Image.open(full / 'figures' / f'{name}.png') as image:
      assert min(image.size) > 300
      assert np.asarray(image.convert('L')).std() > 5
  titles = re.findall(r'<h2>(.*?)</h2>', page)
  assert titles == ['Scores', 'Learning curves', 'Faces: predicted (actual)',
                    'Predicted against actual', 'By age', 'Data', 'Run',
                    'How to reproduce']  # fmt: skip
  assert 'trivial 15.30' in page
  assert '45 min 12 s' in page
  assert 'contradicting labels' in page
  assert 'UTKFace: non-commercial research only' in page
  assert page.count('<img') == 20


def test_page_loads_nothing_from_elsewhere(full):
  page = (full / 'report.html').read_text('utf-8')
  page = re.sub(r'xmlns(:\w+)?="[^"]*"', '', page)
  assert not re.search(r'(src|href)="(?!data:|#)', page)
  assert 'http' not in re.sub(r'http-equiv', '', page)
  assert len(page) < 5e6


def test_page_is_the_same_when_written_again(full):
  before = (full / 'report.html').read_bytes()
  assert report.write_report(full) == str(full / 'report.html')
  after = (full / 'report.html').read_bytes()
  # matplotlib numbers its clip paths anew.
  strip = re.compile(rb'(id="|url\(#|href="#)[^")]*')
  assert strip.sub(b'', before) == strip.sub(b'', after)


def test_config_alone_gives_a_page_that_says_so(tmp_path):
  page = open(report.write_report(write_minimal(tmp_path)), encoding='utf-8')
  with page:
    text = page.read()
  assert 'This run is not finished' in text
  assert 'Nothing is logged yet' in text
  assert 'No faces were kept' in text
  assert 'Licence of the data: not stated.' in text
  assert not list((tmp_path / 'figures').iterdir())


def test_unfinished_run_shows_the_last_validation(tmp_path):
  write_minimal(tmp_path)
  (tmp_path / 'metrics.jsonl').write_text(
    '{"step": 4, "epoch": 1, "validation/loss": 2, "validation/age_mae": 9.5}\n'
    '{"step": 8, "epo'
  )
  page = report.write_report(tmp_path)
  with open(page, encoding='utf-8') as file:
    assert 'Validation at step 4: Age error (MAE) 9.50 years.' in file.read()


def test_groups_without_years_or_gender(tmp_path):
  folder = fake_workdir.create(tmp_path / 'run', years=False, gender=False)
  report.write_report(folder)
  page = (folder / 'report.html').read_text('utf-8')
  assert 'Confusion of age groups' in page
  assert 'Gender accuracy' not in page
  assert (folder / 'figures' / 'predicted_vs_true.png').is_file()


def test_all_labels_unknown(tmp_path):
  rows = [{'name': f'{i}.jpg', 'age_pred': 30 + i, 'gender_prob': 0.3}
          for i in range(3)]  # fmt: skip
  write_minimal(tmp_path, rows)
  report.write_report(tmp_path)
  text = (tmp_path / 'report.html').read_text('utf-8')
  assert 'has no labels to compare with' in text


def test_one_example(tmp_path):
  rows = [{'name': 'a', 'age': 5, 'age_pred': 7, 'gender': 1,
           'gender_prob': 0.5}]  # fmt: skip
  write_minimal(tmp_path, rows)
  report.write_report(tmp_path)
  text = (tmp_path / 'report.html').read_text('utf-8')
  assert '2.00 to 2.00' in text


def test_text_is_escaped(tmp_path):
  evil = '<script>alert(1)</script> $x$'
  folder = write_minimal(tmp_path / 'run')
  fake_workdir.write_json(folder / 'data.json', {
    'name': evil, 'licence': evil, 'preparation': {evil: 1},
    'splits': {evil: {'num_examples': 1, 'age_counts': {'3': 1},
                      'gender_counts': {'male': 1}}},
  })  # fmt: skip
  fake_workdir.write_json(
    folder / 'scores.json', {'split': evil, 'age_mae': 3.0}
  )
  report.write_report(folder)
  text = (folder / 'report.html').read_text('utf-8')
  assert '<script>alert' not in text
  assert text.count('&lt;script&gt;alert(1)&lt;/script&gt;') >= 5


@pytest.mark.parametrize('write', [
  report.write_report, lambda folder: report.write_comparison([folder])
])  # fmt: skip
def test_wrong_workdir_is_one_line(tmp_path, write):
  with pytest.raises(schema.UserError, match='no config.json') as caught:
    write(tmp_path)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name, content', [
  ('scores.json', '{"a": '), ('scores.json', '[]'), ('faces.npz', 'PK'),
  ('predictions.csv', 'name,age\na,old\n'),
])  # fmt: skip
def test_damaged_file_is_named(tmp_path, name, content):
  write_minimal(tmp_path, [{'name': 'a', 'age': 3}])
  (tmp_path / name).write_text(content)
  with pytest.raises(schema.UserError, match=name) as caught:
    report.write_report(tmp_path)
  assert '\n' not in str(caught.value)


def test_read_run_merges_rows_of_a_step(tmp_path):
  write_minimal(tmp_path)
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
  predictions = run_lib.read_run(write_minimal(tmp_path, rows)).predictions
  np.testing.assert_array_equal(predictions.age, [np.nan, 3.5])
  assert predictions.gender.tolist() == [schema.UNKNOWN, schema.FEMALE]
  assert predictions.age_group.tolist() == [7, 2]
  assert predictions.gender_pred.tolist() == [schema.UNKNOWN] * 2
  assert predictions.extra == {'race': ['', '4']}


def test_errors_by_age_closed_form(tmp_path):
  rows = [
    {'name': 'a', 'age': 9, 'age_pred': 12, 'gender': 0, 'gender_prob': 0.4},
    {'name': 'b', 'age': 1, 'age_pred': 0, 'gender': 1, 'gender_prob': 0.4},
    {'name': 'c', 'age': 80, 'age_pred': 70},
    {'name': 'd', 'age': '', 'age_pred': 70},
  ]
  run = run_lib.read_run(write_minimal(tmp_path, rows))
  found = stats.errors_by_age(run.predictions, run.group_names)
  assert [row['name'] for row in found] == ['0-9', '80+']
  assert [row['count'] for row in found] == [2, 1]
  assert found[0]['age_mae']['value'] == 2
  assert found[0]['age_bias']['value'] == 1
  assert found[0]['gender_accuracy']['value'] == 0.5
  assert found[1]['age_mae'] == {
    'value': 10, 'low': 10, 'high': 10, 'count': 1
  }  # fmt: skip
  assert found[1]['gender_accuracy']['count'] == 0


def test_bootstrap_interval_of_a_coin():
  values = np.tile([0.0, 1.0], 200)
  low, high = stats.bootstrap_interval(values)
  # Normal approximation: 0.5 -+ 1.96 * 0.5 / sqrt(400).
  np.testing.assert_allclose([low, high], [0.451, 0.549], atol=0.006)
  assert np.isnan(stats.bootstrap_interval(np.zeros(0))).all()


def test_confusion_leaves_out_unknown():
  counts = stats.confusion(
    np.array([0, 0, 1, -1]), np.array([0, 1, 1, 0]), size=2
  )
  np.testing.assert_array_equal(counts, [[1, 1], [0, 1]])


def test_paired_difference_closed_form(tmp_path):
  def read(name, rows):
    return run_lib.read_run(write_minimal(tmp_path / name, rows)).predictions

  def row(name, age, age_pred, prob):
    return {'name': name, 'age': age, 'age_pred': age_pred, 'gender': 1,
            'gender_prob': prob}  # fmt: skip

  first = read('a', [row('x', 20, 24, 0.9), row('y', 30, 30, 0.1),
                     row('twice', 9, 9, 0.9), row('twice', 9, 9, 0.9),
                     row('label', 5, 5, 0.9), row('only', 9, 9, 0.9)],
  )  # fmt: skip
  second = read('b', [row('y', 30, 29, 0.9), row('x', 20, 19, 0.8),
                      row('twice', 9, 99, 0.1), row('label', 6, 5, 0.9)],
  )  # fmt: skip
  found = stats.paired_difference(first, second)
  # x: 1 - 4, y: 1 - 0; `label` has another age but the same gender.
  assert found['age_error']['value'] == -1
  assert found['age_error']['count'] == 2
  assert found['gender_correct']['value'] == pytest.approx(1 / 3)
  assert found['gender_correct']['count'] == 3


def test_series_averages_many_points(full):
  run = run_lib.read_run(full)
  epochs, values = panels.series(run, 'validation', 'loss')
  assert len(epochs) == len(values) == 60
  assert epochs[-1] == 60
  assert panels.scored_epoch(run) == 55


def test_face_text_falls_back_to_groups(tmp_path):
  rows = [
    {'name': 'a', 'age': 28, 'age_pred': 31.2, 'gender': 1, 'gender_prob': 0.8},
    {'name': 'b', 'age_group': 2, 'age_group_pred': 7, 'gender_prob': 0.1},
  ]
  run = run_lib.read_run(write_minimal(tmp_path, rows))
  assert sections.face_texts(run, 0) == ('31 F', '28 F')
  assert sections.face_texts(run, 1) == ('60+ M', '8-12')


def test_card_places_on_its_scale():
  scores = {'age_mae': 5.0, 'age_mae_low': 4.0, 'age_mae_high': 6.0}
  card = blocks.card(blocks.HEADLINES[0], scores, {'age_mae': 10.0})
  places = {'value': 5 / 11, 'low': 4 / 11, 'high': 6 / 11, 'trivial': 10 / 11}
  assert card['places'] == pytest.approx(
    {key: 100 * place for key, place in places.items()}, abs=0.01
  )
  assert (card['value'], card['interval']) == ('5.00', '4.00 to 6.00')


@pytest.mark.parametrize('seconds, text', [
  (41.2, '41 s'), (250, '4 min 10 s'), (7500, '2 h 05 min')
])  # fmt: skip
def test_duration(seconds, text):
  assert record.duration(seconds) == text


def test_comparison(tmp_path, full):
  other = fake_workdir.create(tmp_path / 'better', seed=1, error=3)
  output = tmp_path / 'compare.html'
  assert report.write_comparison([full, other], output) == str(output)
  text = output.read_text('utf-8')
  assert re.findall(r'<h2>(.*?)</h2>', text) == [
    'Scores', 'Paired differences', 'Validation curves', 'Runs'
  ]  # fmt: skip
  assert 'B minus A' in text
  runs = [run_lib.read_run(folder) for folder in (full, other)]
  table = compare.differences(runs)['blocks'][0]
  assert table['rows'][0][4]['text'] == 'B'
  assert table['rows'][0][2]['sort'] < -1


def test_comparison_separates_protocols(tmp_path, full):
  other = fake_workdir.create(tmp_path / 'smaller', count=200)
  unfinished = write_minimal(tmp_path / 'unfinished')
  runs = [run_lib.read_run(path) for path in (full, other, unfinished)]
  found = compare.scores(runs)['blocks']
  assert [part['kind'] for part in found] == ['table', 'table', 'note',
                                              'warning']  # fmt: skip
  assert 'C unfinished' in found[3]['text']


def test_comparison_into_missing_folder(tmp_path, full):
  with pytest.raises(schema.UserError, match='create it first'):
    report.write_comparison([full], tmp_path / 'none' / 'compare.html')
  with pytest.raises(schema.UserError, match='nothing to compare'):
    report.write_comparison([])
