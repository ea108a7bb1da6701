"""End to end on drawn faces: trains, resumes, scores, predicts, reports."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / 'configs' / 'quickstart.py'


def command(workdir, *flags, config=RECIPE):
  recipe = [f'--config={config}'] if config else []
  return [
    sys.executable, '-m', 'agegender_jax.main', *recipe,
    f'--workdir={workdir}', *map(str, flags),
  ]  # fmt: skip


def main(workdir, *flags, config=RECIPE, status=0):
  result = subprocess.run(
    command(workdir, *flags, config=config),
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == status, result.stdout + result.stderr
  return result


@pytest.fixture(scope='session')
def data_flags(tmp_path_factory, worker_id):
  # One prepared set for all workers: preparing is safe to race for.
  root = tmp_path_factory.getbasetemp()
  root = root if worker_id == 'master' else root.parent
  return (
    f'--config.data.data_dir={root / "data"}',
    '--config.data.synthetic_examples=1200',
    '--config.data.image_size=48',
    '--config.train.batch_size=32',
    '--config.train.bootstrap_samples=50',
  )


@pytest.fixture(scope='session')
def finished(tmp_path_factory, data_flags):
  """A run of a few epochs."""
  workdir = tmp_path_factory.mktemp('finished')
  main(workdir, *data_flags, '--config.train.num_epochs=8')
  return workdir


def scores_of(workdir):
  return json.loads((workdir / 'scores.json').read_text())


def test_a_run_writes_what_the_contract_lists(finished):
  for name in ('config.json', 'metrics.jsonl', 'scores.json', 'data.json',
               'details.json', 'calibration.json', 'predictions.csv',
               'report.html', 'faces.npz', 'run.json',
               'figures/loss_per_epoch.png', 'figures/faces.png',
               'figures/ages_per_split.png',
               'figures/predicted_against_actual_age.png'):  # fmt: skip
    assert (finished / name).stat().st_size > 0, name
  assert list((finished / 'tensorboard').iterdir())
  scores = scores_of(finished)
  for name in ('split', 'num_examples', 'step', 'age_mae', 'age_cs5',
               'age_bias', 'age_group_accuracy', 'age_group_one_off',
               'gender_accuracy', 'gender_balanced_accuracy'):  # fmt: skip
    assert name in scores
  assert scores['age_mae_low'] < scores['age_mae'] < scores['age_mae_high']
  records = [json.loads(line) for line in
             (finished / 'metrics.jsonl').read_text().splitlines()]  # fmt: skip
  evaluated = [row for row in records if 'validation/age_mae' in row]
  assert len(evaluated) == 8
  assert {'step', 'epoch', 'train/loss', 'validation/loss'} <= set(evaluated[0])
  assert scores['num_near_duplicates'] + 1 < scores['num_examples']
  assert scores['age_mae_without_near_duplicates'] > 0
  best = min(evaluated, key=lambda row: row['validation/age_mae'])
  assert scores['step'] == best['step']


def test_a_run_beats_the_majority_baseline(finished):
  majority = json.loads((finished / 'data.json').read_text())['majority']
  scores = scores_of(finished)
  assert scores['age_mae'] < 0.8 * majority['age_mae']
  assert scores['gender_accuracy'] > 0.5 * (1 + majority['gender_accuracy'])


def test_predictions_score_as_scores_json_says(finished):
  with (finished / 'predictions.csv').open() as file:
    rows = list(csv.DictReader(file))
  scores = scores_of(finished)
  assert len(rows) == scores['num_examples']
  error = [abs(float(row['age']) - float(row['age_pred'])) for row in rows]
  assert np.mean(error) == pytest.approx(scores['age_mae'], rel=1e-4)
  kept = [row['near_duplicate'] == '0' for row in rows]
  assert sum(kept) == len(rows) - scores['num_near_duplicates']
  without = scores['age_mae_without_near_duplicates']
  assert np.mean(np.array(error)[kept]) == pytest.approx(without, rel=1e-4)
  hits = [(float(row['gender_prob']) > 0.5) == (row['gender'] == '1')
          for row in rows]  # fmt: skip
  assert np.mean(hits) == pytest.approx(scores['gender_accuracy'])


def test_evaluate_restores_and_reproduces_the_scores(finished):
  main(finished, '--mode=evaluate', config=None)
  scores = scores_of(finished)
  folder = finished / 'eval' / f'synthetic_test_{scores["step"]}'
  assert json.loads((folder / 'scores.json').read_text()) == scores
  for name in ('predictions.csv', 'details.json'):
    assert (folder / name).read_text() == (finished / name).read_text()


def test_intervals_and_probabilities_are_calibrated(finished):
  stored = json.loads((finished / 'calibration.json').read_text())
  scores = scores_of(finished)
  assert stored['step'] == scores['step']
  assert stored['split'] == 'validation' and stored['num_examples'] > 80
  for level in (50, 80, 90):
    # Of some 120 held-out and 240 scored faces: sd 5.6 points at 50 %.
    assert abs(scores[f'age_coverage{level}'] - level / 100) < 0.17
  with (finished / 'predictions.csv').open() as file:
    rows = list(csv.DictReader(file))
  inside = [float(row['age_low']) <= float(row['age'])
            <= float(row['age_high']) for row in rows]  # fmt: skip
  assert np.mean(inside) == pytest.approx(scores['age_coverage90'], abs=0.01)
  found = json.loads((finished / 'details.json').read_text())['calibration']
  assert {'raw', 'calibrated'} == set(found['gender'])
  overall = [row for row in found['intervals'] if not row['column']]
  assert [row['coverage'] for row in overall] == [
    scores[f'age_coverage{level}'] for level in (50, 80, 90)
  ]


def test_images_that_calibrated_are_scored_without(finished):
  flag = '--config.data.eval_split=validation'
  result = main(finished, '--mode=evaluate', flag, config=None)
  assert 'no calibration' in result.stdout
  (folder,) = (finished / 'eval').glob('synthetic_validation_*')
  scores = json.loads((folder / 'scores.json').read_text())
  assert 'age_mae' in scores and 'age_coverage90' not in scores


def test_a_split_that_is_trained_on_does_not_calibrate(tmp_path, data_flags):
  flag = '--config.data.calibration_split=train'
  result = main(tmp_path, *data_flags, flag, status=2)
  lines = result.stderr.strip().splitlines()
  assert len(lines) == 1 and 'calibration_split' in lines[0]
  assert not (tmp_path / 'metrics.jsonl').exists()


@pytest.mark.nightly
def test_over_sampling_is_a_matter_of_configuration(finished, tmp_path):
  flag = '--config.data.oversample=true'
  # The run's calibration is of single views: this one is asked for.
  split = '--config.data.calibration_split=validation'
  main(finished, '--mode=evaluate', flag, split, config=None)
  (folder,) = (finished / 'eval').glob('synthetic_test_*_oversample')
  found, plain = scores_of(folder), scores_of(finished)
  assert found['age_mae'] != plain['age_mae']
  assert found['age_mae'] == pytest.approx(plain['age_mae'], rel=0.3)
  assert (finished / 'calibration_oversample.json').exists()
  faces = np.load(finished / 'faces.npz')
  from PIL import Image

  Image.fromarray(faces['images'][0]).save(tmp_path / 'face.png')
  main(finished, '--mode=predict', flag, f'--images={tmp_path / "face.png"}',
       f'--output={tmp_path / "ages.csv"}', config=None)  # fmt: skip
  rows = []
  for path in (tmp_path / 'ages.csv', folder / 'predictions.csv'):
    with path.open() as file:
      rows.append(list(csv.DictReader(file)))
  face, expected = rows[0][0], rows[1][faces['row'][0]]
  for name in ('age_pred', 'age_low', 'age_high'):
    assert float(face[name]) == pytest.approx(float(expected[name]), abs=0.06)


def test_other_data_are_scored_by_their_own_groups(finished, tmp_path):
  from agegender_jax.data.synthetic_faces import faces as faces_lib

  folder = tmp_path / 'faces'
  folder.mkdir()
  for index in range(60):
    face = faces_lib.draw_example(7, index)
    name = f'{face["age"]:.0f}_{face["gender"]}_0_{index:017d}.png'
    (folder / name).write_bytes(face['image'])
  main(
    finished,
    '--mode=evaluate',
    '--config.data.name=folder',
    f'--config.data.source_dir={folder}',
    f'--config.data.data_dir={tmp_path / "data"}',
    '--config.data.age_groups=fairface',
    config=None,
  )
  (folder,) = (finished / 'eval').glob('folder_test_*')
  scores = scores_of(folder)
  assert scores['data'] == 'folder' and 'age_coverage90' in scores
  with (folder / 'predictions.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == scores['num_examples'] > 3
  hits = []
  for row in rows:
    # FairFace's groups: 0-2, 3-9, then decades, 70 and over; of predictions
    # the nearest, so that 29.6 is 30.
    for age in ('age', 'age_pred'):
      years = round(float(row[age]))
      expected = 0 if years < 3 else min(1 + years // 10, 8)
      assert int(row[age.replace('age', 'age_group', 1)]) == expected
    hits.append(row['age_group'] == row['age_group_pred'])
  assert np.mean(hits) == pytest.approx(scores['age_group_accuracy'])


def test_a_finished_run_says_so(finished):
  config = json.loads((finished / 'config.json').read_text())['config']
  flags = [
    f'--config.{block}.{name}={value}'
    for block, name in [('data', 'data_dir'), ('data', 'synthetic_examples'),
                        ('data', 'image_size'), ('train', 'batch_size'),
                        ('train', 'bootstrap_samples'),
                        ('train', 'num_epochs')]
    for value in [config[block][name]]
  ]  # fmt: skip
  result = main(finished, *flags)
  assert 'finished' in result.stdout


def test_predict_reads_images_and_reports_broken_ones(finished, tmp_path):
  from PIL import Image

  faces = np.load(finished / 'faces.npz')['images']
  folder = tmp_path / 'images'
  folder.mkdir()
  for row, face in enumerate(faces[:5]):
    Image.fromarray(face).save(folder / f'{row}.png')
  Image.fromarray(faces[5]).convert('L').save(folder / '5.jpg')
  Image.fromarray(faces[6]).convert('CMYK').save(folder / '6.jpg')
  (folder / 'broken.jpg').write_bytes(b'not an image')
  output = tmp_path / 'out' / 'predictions.csv'
  result = main(finished, '--mode=predict', f'--images={folder}',
                f'--output={output}', config=None)  # fmt: skip
  with output.open() as file:
    rows = list(csv.DictReader(file))
  assert [pathlib.Path(row['name']).name for row in rows] == [
    '0.png', '1.png', '2.png', '3.png', '4.png', '5.jpg', '6.jpg', 'broken.jpg'
  ]  # fmt: skip
  assert rows[-1]['error'] and not rows[-1]['age_pred']
  assert '1 of them with an error' in result.stdout
  # The same image gets the same answer as in training's evaluation.
  rows_of_faces = np.load(finished / 'faces.npz')['row']
  with (finished / 'predictions.csv').open() as file:
    known = list(csv.DictReader(file))
  for row, line in zip(rows_of_faces[:5], rows, strict=False):
    for name in ('age_pred', 'age_low', 'age_high'):
      assert float(line[name]) == pytest.approx(float(known[row][name]), abs=0.06)
    assert float(line['gender_prob']) == pytest.approx(
      float(known[row]['gender_prob']), abs=1e-3
    )
    probability = float(line['gender_prob'])
    confidence = max(probability, 1 - probability)
    assert float(line['confidence']) == pytest.approx(confidence)


def test_reports_compare_runs(finished, tmp_path):
  output = tmp_path / 'compare.html'
  main(f'{finished},{finished}', '--mode=report', f'--output={output}',
       config=None)  # fmt: skip
  assert output.stat().st_size > 10_000


@pytest.mark.nightly
def test_steps_a_call_change_no_number(tmp_path, data_flags):
  runs = []
  for steps in (1, 4):
    workdir = tmp_path / str(steps)
    main(workdir, *data_flags, '--config.train.num_epochs=2',
         f'--config.train.steps_per_call={steps}')  # fmt: skip
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    rows = map(json.loads, lines)  # Steps are logged between evaluations too.
    runs.append([row for row in rows if 'validation/loss' in row])
    assert len(runs[-1]) == 2
  for found, expected in zip(*runs, strict=True):
    assert found['step'] == expected['step']
    for name in ('train/loss', 'validation/loss', 'validation/age_mae'):
      assert found[name] == pytest.approx(expected[name], rel=1e-4)
    assert 0 <= found['train/input_wait_seconds'] < found['train/step_seconds']


@pytest.mark.nightly
def test_patience_stops_a_run_that_no_longer_improves(tmp_path, data_flags):
  flags = (*data_flags, '--config.train.num_epochs=8',
           '--config.train.patience_evaluations=1',
           '--config.optimizer.learning_rate=1e-9')  # fmt: skip
  flags += ('--config.train.best_metric=gender_accuracy',)
  result = main(tmp_path, *flags)
  assert 'early stopping after step' in result.stdout
  records = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  rows = [row for row in map(json.loads, records) if 'validation/loss' in row]
  assert len(rows) == 2
  accuracy = {row['step']: row['validation/gender_accuracy'] for row in rows}
  assert accuracy[scores_of(tmp_path)['step']] == max(accuracy.values())


def parameters(workdir):
  from agegender_jax.runtime import checkpoint

  checkpoints = checkpoint.Checkpoints(str(workdir), [('validation/age_mae', -1)])
  step = checkpoints.latest_step()
  folder = workdir / 'checkpoints' / str(step)
  checkpoints.close()
  import orbax.checkpoint as ocp

  with ocp.StandardCheckpointer() as reader:
    tree = reader.restore(folder / 'variables')
  import jax

  return step, jax.tree.map(np.asarray, tree)


def test_killed_and_resumed_equals_never_killed(finished, tmp_path, data_flags):
  flags = (*data_flags, '--config.train.num_epochs=8')
  process = subprocess.Popen(
    command(tmp_path, *flags), cwd=ROOT, stdout=subprocess.DEVNULL
  )
  records = tmp_path / 'metrics.jsonl'
  deadline = time.monotonic() + 120
  while time.monotonic() < deadline:
    text = records.read_text() if records.exists() else ''
    if text.count('validation/age_mae') >= 3:
      break
    time.sleep(0.02)
  os.kill(process.pid, signal.SIGKILL)
  process.wait()
  assert not (tmp_path / 'run.json').exists()
  # Where the images lie may change meanwhile.
  result = main(tmp_path, *flags, '--config.data.cache=device')
  assert 'resumed at step' in result.stdout
  import jax

  step, resumed = parameters(tmp_path)
  last, straight = parameters(finished)
  assert step == last
  jax.tree.map(np.testing.assert_array_equal, resumed, straight)

  def numbers(workdir):
    rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return [
      {k: v for k, v in row.items() if 'second' not in k and 'tflops' not in k}
      for row in rows
    ]

  assert numbers(tmp_path) == numbers(finished)
  assert scores_of(tmp_path) == scores_of(finished)
