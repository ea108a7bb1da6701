"""The page of a run: its sections, absent files, escaping."""

import base64
import pathlib
import re
import subprocess
import sys

import fake_workdir
import numpy as np
import pytest
from PIL import Image

from agegender_jax import errors, report
from agegender_jax.report import plots

TITLES = ['Scores', 'Learning curves', 'Faces: predicted (actual)',
          'Predicted against actual', 'By age', 'By group',
          'How far to trust an age', 'How far to trust a gender', 'Other data',
          'Largest age errors', 'Most contradicted labels',
          'Where the network looks', 'Data', 'Network', 'Run',
          'Limits and licence', 'How to reproduce']  # fmt: skip
SHEETS = ('faces', 'worst', 'contradictory', 'saliency')


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
  # Each figure of the page is the file, drawn once; sheets are files alone.
  shown = re.findall(r'<figure><img src="data:image/png;base64,(.*?)"', page)
  paths = [path for path in (full / 'figures').iterdir() if path.stem not in SHEETS]
  contents = {base64.b64encode(path.read_bytes()).decode() for path in paths}
  assert contents == set(shown) and len(shown) == len(paths) == 19
  for path in (*paths, *(full / 'figures' / f'{name}.png' for name in SHEETS)):
    with Image.open(path) as image:
      assert min(image.size) > 300
      assert np.asarray(image.convert('L')).std() > 5
  assert all(re.findall('<figure><img src="[^"]*" alt="(.*?)"', page))
  assert re.findall(r'<h2>(.*?)</h2>', page) == TITLES
  assert 'majority baseline 15.30' in page
  assert '45 min 12 s' in page
  assert 'contradicting labels' in page
  assert 'UTKFace: non-commercial research only' in page
  # 20 faces, errors and contradictions; four explained, with two maps each.
  assert page.count('<img') == 19 + 3 * 20 + 4 * 3
  assert 'Peak memory' in page and '3.00 GiB' in page
  assert 'seed5k_trainval (3,992)' in page
  assert '<a href="model_card.md">' in page


def test_figures_of_an_earlier_report_go(tmp_path, no_figures):
  folder = fake_workdir.create_minimal(tmp_path / 'run')
  (folder / 'figures').mkdir()
  plots.save_png(folder / 'figures' / 'age_error.png', [lambda axes: None])
  (folder / 'figures' / 'my_own.png').write_bytes(b'a PNG of somebody else')
  report.write_report(folder)
  assert [path.name for path in (folder / 'figures').iterdir()] == ['my_own.png']


def test_page_loads_nothing_from_elsewhere(full):
  page = (full / 'report.html').read_text('utf-8')
  assert not re.search(r'(src|href)="(?!data:|#|model_card.md")', page)
  assert 'http' not in re.sub(r'http-equiv', '', page)
  assert len(page) < 5e6


def test_page_is_the_same_when_written_again(full):
  before = (full / 'report.html').read_bytes()
  assert report.write_report(full) == str(full / 'report.html')
  assert (full / 'report.html').read_bytes() == before


def test_config_alone_gives_a_page_that_says_so(tmp_path):
  page = report.write_report(fake_workdir.create_minimal(tmp_path))
  text = pathlib.Path(page).read_text('utf-8')
  assert 'This run is not finished' in text
  assert 'Nothing is logged yet' in text
  assert 'No faces were kept' in text
  assert 'Licence of the data: not stated.' in text
  assert not list((tmp_path / 'figures').iterdir())


def test_unfinished_run_shows_the_last_validation(tmp_path, no_figures):
  fake_workdir.create_minimal(tmp_path)
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
  assert (folder / 'figures' / 'confusion_of_age_groups.png').is_file()


def test_all_labels_unknown(tmp_path, no_figures):
  rows = [{'name': f'{i}.jpg', 'age_pred': 30 + i, 'gender_prob': 0.3}
          for i in range(3)]  # fmt: skip
  fake_workdir.create_minimal(tmp_path, rows)
  report.write_report(tmp_path)
  text = (tmp_path / 'report.html').read_text('utf-8')
  assert 'no predictions with labels to compare with' in text


def test_text_is_escaped(tmp_path, no_figures):
  evil = '<script>alert(1)</script> $x$'
  folder = fake_workdir.create_minimal(tmp_path / 'run')
  fake_workdir.write_json(folder / 'data.json', {
    'name': evil, 'licence': evil, 'preparation': {evil: 1},
    'splits': {evil: {'num_examples': 1, 'age_counts': {'3': 1},
                      'gender_counts': {'male': 1}}},
  })  # fmt: skip
  fake_workdir.write_json(folder / 'scores.json', {'split': evil, 'age_mae': 3.0})
  report.write_report(folder)
  text = (folder / 'report.html').read_text('utf-8')
  assert '<script>alert' not in text
  assert text.count('&lt;script&gt;alert(1)&lt;/script&gt;') >= 5


@pytest.mark.parametrize('write', [
  report.write_report, lambda folder: report.write_comparison([folder])
])  # fmt: skip
def test_wrong_workdir_is_one_line(tmp_path, write):
  with pytest.raises(errors.UserError, match='no config.json') as caught:
    write(tmp_path)
  assert '\n' not in str(caught.value)
