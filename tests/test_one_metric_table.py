"""A metric that is added to the one table appears wherever people read scores."""

import json
import pathlib
import types

import fake_workdir
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import report, scoring
from agegender_jax.inference import predictor
from agegender_jax.scoring import metrics
from agegender_jax.studies import repeats
from agegender_jax.training import logging

NAME, TITLE = 'age_parity', 'Age parity of the added metric'


@pytest.fixture
def added(monkeypatch):
  metric = metrics.Metric(
    NAME, TITLE, '%', 1, metrics.AGE, headline=2, by_group=True,
    compute=metrics._mean_of(
      lambda true, predicted: (np.round(predicted) - true) % 2 == 0
    ),
  )  # fmt: skip
  monkeypatch.setitem(metrics.METRICS, NAME, metric)
  return metric


@pytest.fixture
def table():
  age = np.arange(60.0)
  return {
    'age': age, 'age_pred': age + np.arange(60) % 3, 'age_group': np.full(60, -1),
    'gender': np.arange(60) % 2,
  }  # fmt: skip


def test_it_is_scored_with_its_interval_and_by_group(added, table):
  scores = scoring.score(table, num_samples=20)
  assert scores[NAME] == pytest.approx(2 / 3)
  assert scores[f'{NAME}_low'] < 2 / 3 < scores[f'{NAME}_high']
  found = scoring.details(table, {}, ['all'], 0)
  assert all(NAME in row['scores'] for row in found['groups'])
  assert NAME in {row['metric'] for row in found['disparities']}
  assert scoring.paired_difference(table, table, NAME)['value'] == 0
  assert NAME in scoring.majority_baseline(table, table)


def test_it_can_choose_the_best_checkpoint(added):
  config = config_lib.default_config()
  age = [types.SimpleNamespace(name='age', label='age')]
  assert (f'validation/{NAME}', 1) in predictor.create_ranking(config, age)
  config.train.best_metric = NAME
  assert predictor.create_ranking(config, age) == [(f'validation/{NAME}', 1)]


def test_it_is_in_the_log_line(added, tmp_path, capsys):
  writer = logging.Logger(str(tmp_path), 0, 10)
  writer.write(5, 1.0, {f'validation/{NAME}': 0.625})
  writer.close()
  assert f'{TITLE} 62.5 %' in capsys.readouterr().out


def test_it_is_on_page_card_and_comparison_and_in_sweeps(added, table, tmp_path):
  pages = []
  for name in ('a', 'b'):
    folder = fake_workdir.create(tmp_path / name, count=60)
    path = pathlib.Path(folder) / 'scores.json'
    scores = json.loads(path.read_text()) | {NAME: 0.6217}
    path.write_text(json.dumps(scores))
    pages.append(pathlib.Path(report.write_report(str(folder))))
  assert TITLE in pages[0].read_text() and '62.2' in pages[0].read_text()
  card = (pages[0].parent / 'model_card.md').read_text()
  assert TITLE in card and '62.2' in card
  output = tmp_path / 'compare.html'
  report.write_comparison([str(page.parent) for page in pages], str(output))
  assert TITLE in output.read_text() and '62.2' in output.read_text()
  assert repeats.columns()[NAME].title == TITLE
  run = repeats.run_lib.Run(pages[0].parent)
  setting = repeats.Setting('net', 'all', {(None, 0): run})
  assert setting.values(NAME) == pytest.approx([62.17])
