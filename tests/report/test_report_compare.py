"""The page that compares runs."""

import re

import fake_workdir
import pytest

from agegender_jax import errors, report
from agegender_jax.report import comparison
from agegender_jax.report import run as run_lib


@pytest.fixture(scope='module')
def full(tmp_path_factory):
  return fake_workdir.create(tmp_path_factory.mktemp('full') / 'a run')


def test_comparison(tmp_path, full):
  other = fake_workdir.create(tmp_path / 'better', seed=1, error=3)
  output = tmp_path / 'compare.html'
  assert report.write_comparison([full, other], output) == str(output)
  text = output.read_text('utf-8')
  assert re.findall(r'<h2>(.*?)</h2>', text) == [
    'Scores', 'Validation curves', 'Paired differences', 'By age', 'Runs'
  ]  # fmt: skip
  assert 'B minus A' in text
  runs = [run_lib.Run(folder) for folder in (full, other)]
  table = comparison.differences(runs)['blocks'][0]
  assert table['rows'][0][4]['text'] == 'B'
  assert table['rows'][0][2]['sort'] < -1


def test_comparison_separates_protocols(tmp_path, full):
  other = fake_workdir.create(tmp_path / 'smaller', count=200)
  unfinished = fake_workdir.create_minimal(tmp_path / 'unfinished')
  runs = [run_lib.Run(path) for path in (full, other, unfinished)]
  found = comparison.scores(runs)['blocks']
  assert [part['kind'] for part in found] == ['table', 'table', 'note',
                                              'warning']  # fmt: skip
  assert 'C unfinished' in found[3]['text']


def test_losses_of_other_weights_share_no_axis(full):
  one = run_lib.Run(full)
  tasks = {'age': {'weight': 2.0}}
  other = run_lib.Run(full)
  other.config = one.config | {'tasks': tasks}
  labels = [
    [item.title for item in comparison.curves(pair)['blocks'][0]['items']]
    for pair in ([one, one], [one, other])
  ]
  assert 'Loss on validation per epoch' in labels[0]
  assert labels[1] == labels[0][1:]


def test_comparison_into_missing_folder(tmp_path, full):
  with pytest.raises(errors.UserError, match='create it first'):
    report.write_comparison([full], tmp_path / 'none' / 'compare.html')
  with pytest.raises(errors.UserError, match='nothing to compare'):
    report.write_comparison([])
