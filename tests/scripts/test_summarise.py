"""Means, deviations and paired differences of a sweep's runs."""

import csv
import json
import pathlib

import fake_workdir
import numpy as np
import pytest

from agegender_jax import errors as errors_lib
from agegender_jax import recipes, schema
from agegender_jax.data.datasets import adience
from agegender_jax.studies import repeats, sweeps

ROOT = pathlib.Path(__file__).parents[2]
summarise = recipes.load(ROOT / 'scripts/summarise.py')


def write_run(folder, setting, fold, seed, ages, gender=None, **scores):
  """Writes a finished run and returns its sweeps.Run.

  Args:
    folder: of the sweep.
    setting: its name.
    fold: or None.
    seed: of the run.
    ages: image -> (true, predicted) years.
    gender: image -> (true code, P(female)).
    **scores: of scores.json.
  """
  name = f'{setting}_{fold}_{seed}'
  place = folder / name
  place.mkdir(parents=True)
  split = 'test' if fold is None else f'fold{fold}'
  rows = [
    {'name': image, 'age': true, 'age_pred': predicted}
    for image, (true, predicted) in ages.items()
  ]
  for row, (true, probability) in zip(rows, gender or (), strict=False):
    row |= {'gender': true, 'gender_prob': probability}
  fake_workdir.write_rows(place / 'predictions.csv', rows)
  config = fake_workdir.config(name='faces')
  config['train'] = config['train'] | {'batch_size': 20}
  fake_workdir.write_json(place / 'config.json', {'config': config})
  fake_workdir.write_json(place / 'scores.json', {'split': split, **scores})
  fake_workdir.write_json(
    place / 'run.json', {'finished': True, 'seconds': 90.0, 'device': '1 x cpu'}
  )
  # 100, 200 and 200 images/s; the first interval compiles.
  lines = [
    {'step': 10 * k, 'epoch': k / 2, 'train/images_per_second': rate}
    for k, rate in enumerate((100, 200, 200), 1)
  ]
  (place / 'metrics.jsonl').write_text(
    ''.join(f'{json.dumps(line)}\n' for line in lines)
  )
  return sweeps.Run(setting, fold, seed, name, ())


def write_sweep(folder, runs):
  head = sweeps.create_head('configs/a.py', '', 'b', ())
  sweeps.write_record(folder, head, runs)


def test_mean_and_deviation_of_each_setting(tmp_path, capsys):
  runs = [
    write_run(tmp_path, f'batch={size}', None, seed, {}, age_mae=mae,
              gender_accuracy=0.5)
    for size, maes in {4: (7.0, 8.0, 9.0), 8: (6.5,)}.items()
    for seed, mae in enumerate(maes)
  ]  # fmt: skip
  runs.append(sweeps.Run('batch=8', None, 1, 'batch=8_lost', (), 'no space left'))
  write_sweep(tmp_path, runs)
  text = summarise.summarise([tmp_path], tmp_path / 'out', '')
  assert 'batch=8_lost: no space left' in capsys.readouterr().err
  rows = [line for line in text.splitlines() if line.startswith('| ')]
  assert rows[0] == (
    '| setting | runs | Age error (MAE), years | Gender accuracy, % | batch, ms | '
    'epoch, s | training and evaluation, min |'
  )
  # A batch of 20 at 200 images/s is 100 ms, an epoch 20 of them.
  assert rows[2] == (
    '| batch=4 | 3 seeds | 8.00 ± 1.00 | 50.0 ± 0.0 | 100 ± 0 | 2.0 ± 0.0 | 1.5 ± 0.0 |'
  )
  assert rows[3] == (
    '| batch=8 | 1 seed (1 of 2 runs) | 6.50 | 50.0 | 100 | 2.0 | 1.5 |'
  )
  assert 'faces, test' in text and '1 x cpu' in text
  assert (tmp_path / 'out' / 'summary.md').read_text() == text
  with (tmp_path / 'out' / 'summary.csv').open() as file:
    table = list(csv.DictReader(file))
  assert [row['setting'] for row in table] == ['batch=4', 'batch=8']
  assert (table[0]['age_mae_mean'], table[0]['age_mae_std']) == ('8', '1')
  assert (table[1]['runs'], table[1]['age_mae_std']) == ('1', '')
  png = (tmp_path / 'out' / 'summary.png').read_bytes()
  assert png.startswith(b'\x89PNG')


def test_folds_share_a_table_and_other_data_do_not(tmp_path):
  runs = [
    write_run(tmp_path, 'net', fold, 0, {}, age_group_accuracy=0.1 * fold)
    for fold in range(5)
  ]
  runs.append(write_run(tmp_path, 'other', None, 0, {}, age_group_accuracy=0.3))
  write_sweep(tmp_path, runs)
  text = summarise.summarise([tmp_path], tmp_path, '')
  assert '| net | 5 folds | 20.0 ± 15.8 |' in text
  assert text.count('| setting |') == 2
  assert 'faces, folds' in text and 'faces, test' in text


@pytest.mark.parametrize('what', ['fingerprint', 'age_groups'])
def test_other_data_and_other_groups_are_kept_apart(tmp_path, capsys, what):
  runs = [
    write_run(tmp_path, setting, None, seed, {'a.jpg': (30, 31)}, age_mae=seed)
    for setting in ('one', 'two')
    for seed in range(3)
  ]
  for run in runs:
    value = 'old' if what == 'fingerprint' else 'adience'
    if run.seed == 2:
      value = 'new' if what == 'fingerprint' else 'fairface'
    facts = {'fingerprint': 'f', 'age_groups': 'adience'} | {what: value}
    place = tmp_path / run.folder
    config = fake_workdir.config(name='faces', age_groups=facts['age_groups'])
    fake_workdir.write_json(place / 'config.json', {'config': config})
    content = {'name': 'faces', 'fingerprint': facts['fingerprint']}
    fake_workdir.write_json(place / 'data.json', content)
  write_sweep(tmp_path, runs)
  text = summarise.summarise([tmp_path], tmp_path / 'out', 'one')
  assert '| one | 2 seeds (2 of 3 runs) | 0.50 ± 0.71 |' in text
  assert '| one | 1 seed (1 of 3 runs) | 2.00 |' in text
  names = {
    'fingerprint': ['data old', 'data new'],
    'age_groups': ['groups of adience', 'groups of fairface'],
  }[what]
  heads = [line for line in text.splitlines() if line.startswith('Scored on')]
  assert len(heads) == 2
  assert all(n in head for n, head in zip(names, heads, strict=True))
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('kept apart: faces, test: ')
  assert all(str(tmp_path / run.folder) in line for run in runs)
  # Paired within each table only: 2 of the first seeds, 1 of the last.
  assert text.count('| two | Age error (MAE), years | +0.00') == 2


def test_runs_on_the_same_data_need_no_fingerprint_in_the_name(tmp_path, capsys):
  runs = [write_run(tmp_path, 'a', None, k, {}, age_mae=1) for k in (0, 1)]
  for run in runs:
    content = {'name': 'faces', 'fingerprint': 'f'}
    fake_workdir.write_json(tmp_path / run.folder / 'data.json', content)
  write_sweep(tmp_path, runs)
  text = summarise.summarise([tmp_path], tmp_path, '')
  assert text.startswith('Scored on faces, test:')
  assert not capsys.readouterr().err


def test_a_stand_in_is_labelled(tmp_path, monkeypatch):
  titles = []
  runs = [write_run(tmp_path, 'a', fold, 0, {}, age_mae=1) for fold in (0, 1)]
  for run in runs:
    content = {'name': 'adience', 'licence': f'{schema.STAND_IN} of other images'}
    fake_workdir.write_json(tmp_path / run.folder / 'data.json', content)
  write_sweep(tmp_path, runs)
  monkeypatch.setattr(summarise.plots, 'save_png', lambda path, panels, *_: [
    titles.append(panel.keywords['scored']) for panel in panels
  ])  # fmt: skip
  text = summarise.summarise([tmp_path], tmp_path, '')
  assert text.startswith('Scored on A STAND-IN FOR adience (other images)')
  assert titles and all('A STAND-IN FOR adience' in title for title in titles)
  with (tmp_path / 'summary.csv').open() as file:
    assert 'A STAND-IN' in next(csv.DictReader(file))['protocol']
  owners = {'name': 'adience', 'licence': adience.Adience.LICENCE}
  for run in runs:
    fake_workdir.write_json(tmp_path / run.folder / 'data.json', owners)
  assert 'STAND-IN' not in summarise.summarise([tmp_path], tmp_path, '')


def test_paired_differences_are_of_the_same_images(tmp_path):
  # Over two seeds b's errors are less by 1 and 3 (a: 2), by 0 (b: 0).
  runs = []
  for seed, shifts in enumerate([(1.0, 0.0), (3.0, 0.0)]):
    first = {'a.jpg': (30, 35), 'b.jpg': (50, 50), 'only_first.jpg': (9, 1)}
    second = {'a.jpg': (30, 35 - shifts[0]), 'b.jpg': (50, 50), 'x.jpg': (8, 1)}
    runs += [
      write_run(tmp_path, 'one', None, seed, first, [(1, 0.4), (0, 0.1)]),
      write_run(tmp_path, 'two', None, seed, second, [(1, 0.6), (0, 0.2)]),
    ]
  write_sweep(tmp_path, runs)
  one, two = repeats.read_settings([tmp_path])
  found = {row[0].name: row[1:] for row in repeats.paired(one, two)}
  value, low, high, count = found['age_mae']
  assert (value, count) == (-1.0, 2)
  # A resample of two images has a mean of -2, -1 or 0.
  assert (low, high) == (-2.0, 0.0)
  assert found['gender_accuracy'][0] == 50.0
  text = summarise.summarise([tmp_path], tmp_path, 'one')
  assert '| two | Age error (MAE), years | -1.00 [-2.00, +0.00] | 2 |' in text
  with pytest.raises(errors_lib.UserError, match='known: one, two'):
    summarise.summarise([tmp_path], tmp_path, 'three')


def test_a_certain_difference_leaves_out_zero(tmp_path):
  random = np.random.default_rng(0)
  ages = random.integers(10, 70, 200)
  runs = []
  for setting, error in [('near', 2.0), ('far', 5.0)]:
    for fold in (0, 1):
      images = {
        f'{fold}_{row}.jpg': (age, age + error + random.normal(0, 1))
        for row, age in enumerate(ages)
      }
      runs.append(write_run(tmp_path, setting, fold, 0, images))
  write_sweep(tmp_path, runs)
  near, far = repeats.read_settings([tmp_path])
  row = next(row for row in repeats.paired(near, far) if row[0].name == 'age_mae')
  assert row[4] == 400
  assert 2.7 < row[2] < row[1] < row[3] < 3.3
  # About 1.96 times the standard error of a difference of two N(0, 1).
  assert row[3] - row[2] == pytest.approx(2 * 1.96 * (2 / 400) ** 0.5, rel=0.15)


def test_two_runs_of_one_kind_are_refused(tmp_path):
  for name in ('a', 'b'):
    run = write_run(tmp_path / name, 'net', 0, 0, {}, age_mae=1.0)
    write_sweep(tmp_path / name, [run])
  with pytest.raises(errors_lib.UserError, match='two runs of "net"'):
    repeats.read_settings([tmp_path / 'a', tmp_path / 'b'])


def test_nothing_finished_is_refused(tmp_path):
  write_sweep(tmp_path, [sweeps.Run('a', None, 0, 'a', ())])
  with pytest.raises(errors_lib.UserError, match='no run is finished'):
    repeats.read_settings([tmp_path])
