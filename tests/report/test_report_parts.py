"""The parts of the report: closed-form texts and numbers of each section."""

import json

import fake_workdir
import numpy as np
import pytest
from PIL import Image

from agegender_jax import report
from agegender_jax.report import blocks, faces, record, sections
from agegender_jax.report import run as run_lib


@pytest.fixture(scope='module')
def full(tmp_path_factory):
  return fake_workdir.create(tmp_path_factory.mktemp('full') / 'a run')


def test_details_with_nulls_and_missing_parts(tmp_path):
  folder = fake_workdir.create_minimal(tmp_path)
  fake_workdir.write_json(folder / 'details.json', {
    'groups': [{'column': 'race', 'group': 1, 'count': 3, 'scores': {
      'age_mae': {'value': None, 'low': None, 'high': None, 'count': 3}}}],
    'disparities': [{'column': 'race', 'metric': 'age_mae', 'group': '1',
              'reference': 'White', 'value': None, 'low': None, 'high': None}],
    'calibration': {'gender': {'raw': [
      {'low': 0.0, 'high': 0.1, 'count': 0, 'mean_prob': None, 'share': None}]}}
  })  # fmt: skip
  run = run_lib.Run(folder)
  assert sections.estimates(run.groups_of('race'), 'age_mae') == []
  assert sections.groups(run) == sections.reliability(run) == {}
  report.write_report(folder)


def test_bare_codes_are_named_by_their_column():
  assert sections.group_name('race', 1) == 'race 1'
  assert sections.group_name('race', 'White') == 'White'


def test_disparity_is_clear_where_its_interval_excludes_zero(tmp_path):
  folder = fake_workdir.create_minimal(tmp_path)
  fake_workdir.write_json(folder / 'details.json', {'disparities': [
    {'column': 'gender', 'metric': metric, 'group': 'female',
     'reference': 'male', 'value': value, 'low': low, 'high': high}
    for metric, value, low, high in (
      ('age_mae', 1.5, 0.5, 2.5), ('gender_accuracy', -0.031, -0.07, 0.01))
  ]})  # fmt: skip
  run = run_lib.Run(folder)
  table = sections.groups(run)['blocks'][1]
  texts = [[cell['text'] for cell in row] for row in table['rows']]
  assert texts == [
    ['female minus male', 'Age error (MAE), years', '+1.50', 'yes'],
    ['female minus male', 'Gender accuracy, % points', '-3.1', 'no'],
  ]
  assert table['rows'][1][2]['small'] == '-7.0 to +1.0'


def test_intervals_table(full):
  run = run_lib.Run(full)
  found = sections.intervals(run)['blocks']
  cells = [cell['text'] for cell in found[1]['rows'][0]]
  assert cells == ['all', '1,000', '49.0', '20.00', '79.0', '32.00', '89.0',
                   '36.00']  # fmt: skip
  folds = [block['summary'] for block in found if block['kind'] == 'fold']
  assert folds == ['By gender (2 groups)', 'By age (2 groups)']


def test_reliability_names_both_kinds(full):
  found = sections.reliability(run_lib.Run(full))['blocks']
  rows = [[cell['text'] for cell in row] for row in found[1]['rows']]
  assert rows == [
    ['as predicted', '4.3', '0.110', '0.310'],
    ['after temperature scaling', '0.0', '0.100', '0.300'],
  ]
  assert 'temperature of 1.31' in found[2]['text']


@pytest.mark.parametrize('name, block', [
  ('backbone/conv1', 'backbone'),
  ('backbone/layer3_35/conv2', 'backbone/layer3'),
  ('backbone/features_28', 'backbone/features'),
  ('branch_age/dense1', 'branch_age'),
  ('dense', 'dense'),
])  # fmt: skip
def test_block_of_a_layer(name, block):
  assert record.block_of(name) == block


def test_deep_network_is_summed_by_block(tmp_path):
  folder = fake_workdir.create_minimal(tmp_path)
  layers = [
    {'name': f'backbone/layer1_{i}/conv1', 'kind': 'Conv',
     'output': [8, 8, 64], 'parameters': 10, 'flops': 1000}
    for i in range(60)
  ] + [{'name': 'branch_age/logits', 'kind': 'Dense', 'output': [1],
        'parameters': 400, 'flops': 0}]  # fmt: skip
  fake_workdir.write_json(folder / 'layers.json', layers)
  table, fold, _ = record.network(run_lib.Run(folder))['blocks']
  texts = [[cell['text'] for cell in row] for row in table['rows']]
  assert texts[0][:2] == ['backbone/layer1', '60 layers']
  assert texts[0][3:] == ['600', '60 k'] and table['rows'][0][3]['small'] == (
    '60.0 %')  # fmt: skip
  assert [cell['text'] for cell in table['total']][3:] == ['1,000', '60 k']
  assert fold['summary'] == 'All 61 layers'
  assert len(fold['blocks'][0]['rows']) == 61


def test_overlay_keeps_the_grey_values_where_there_is_no_heat():
  image = np.full((4, 4, 3), (10, 200, 90), np.uint8)
  grey = int(Image.fromarray(image).convert('L').getpixel((0, 0)))
  cold = faces.overlay(image, np.zeros((2, 2), np.float16))
  assert (cold == grey).all()
  warm = faces.overlay(image, np.ones((2, 2), np.float16)).astype(int)
  assert warm.shape == image.shape
  # The hot end is a light yellow: red and green well above blue.
  assert (warm[..., 0] > 200).all() and (warm[..., 0] - warm[..., 2] > 40).all()
  assert np.isfinite(faces.overlay(image, np.full((2, 2), np.nan))).all()


def test_contradicted_tag_is_the_confidence_in_the_other_gender(tmp_path):
  rows = [
    {'name': 'a', 'age': 28, 'age_pred': 31, 'gender': 0,
     'gender_prob': 0.9996},
    {'name': 'b', 'age': 60, 'age_pred': 20, 'gender': 1, 'gender_prob': 0.7},
  ]  # fmt: skip
  folder = fake_workdir.create_minimal(tmp_path, rows)
  images = np.zeros((2, 8, 8, 3), np.uint8)
  np.savez(folder / 'faces.npz', images=images, row=[0, 1],
           contradictory_images=images, contradictory_row=[0, 1])  # fmt: skip
  run = run_lib.Run(folder)
  items = faces.contradictory(run)['blocks'][0]['items']
  assert [item['tag'] for item in items] == ['99 %', '-40']
  assert faces.worst(run) == {}


def test_as_many_faces_as_the_run_kept_are_shown(tmp_path):
  rows = [{'name': f'{row}', 'age': 30, 'age_pred': 31} for row in range(30)]
  folder = fake_workdir.create_minimal(tmp_path, rows)
  images = np.zeros((30, 8, 8, 3), np.uint8)
  np.savez(folder / 'faces.npz', images=images, row=np.arange(30))
  assert len(faces.faces(run_lib.Run(folder))['blocks'][0]['items']) == 30


def test_other_data_lists_each_evaluation_once(tmp_path, full):
  folder = fake_workdir.create(tmp_path / 'run', count=50)
  own = json.loads((folder / 'scores.json').read_text())
  twice = folder / 'eval' / 'same'
  twice.mkdir()
  fake_workdir.write_json(twice / 'scores.json', {'data': 'utkface', **own})
  table = sections.others(run_lib.Run(folder))['blocks'][0]
  texts = [[cell['text'] for cell in row] for row in table['rows']]
  assert [row[0] for row in texts] == ['utkface', 'adience']
  assert texts[1][4:] == [blocks.MISSING] * 2 + ['41.2'] + [blocks.MISSING] * 3


@pytest.mark.parametrize('key, value, pair', [
  ('peak_memory_bytes', 2**30, ('Peak memory', '1.00 GiB')),
  ('input_wait_seconds', 0.0123, ('Waiting for input per step', '12.3 ms')),
  ('mfu', 0.412, ('Model FLOPs utilization (MFU)', '41.2 %')),
  ('images_per_second', 1234.5, ('Training speed', '1,234 images/s')),
  ('train_flops_per_step', 123456, ('Train flops per step', '123,456')),
  ('paused', True, ('Paused', 'yes')),
  ('tflops', float('nan'), ('Arithmetic (TFLOP/s)', '')),
])  # fmt: skip
def test_fact_of_run_json(key, value, pair):
  assert record.fact(key, value) == pair


@pytest.mark.parametrize('key, name, unit', [
  ('age_mae', 'Age error (MAE)', 'years'),
  ('age_cs1', 'Age within 1 year (CS@1)', '%'),
  ('age_coverage90', 'Coverage of 90 % age intervals', '%'),
  ('age_width50', 'Width of 50 % age intervals', 'years'),
  ('gender_auc', 'Gender AUC', ''),
  ('age_mae_without_near_duplicates',
   'Age error (MAE), without near-duplicates', 'years'),
  ('anything_new', 'Anything new', ''),
])  # fmt: skip
def test_names_and_units_of_scores(key, name, unit):
  assert (blocks.title(key), blocks.unit_of(key)) == (name, unit)


def test_face_text_falls_back_to_groups(tmp_path):
  rows = [
    {'name': 'a', 'age': 28, 'age_pred': 31.2, 'gender': 1, 'gender_prob': 0.8},
    {'name': 'b', 'age_group': 2, 'age_group_pred': 7, 'gender_prob': 0.1},
  ]
  run = run_lib.Run(fake_workdir.create_minimal(tmp_path, rows))
  assert faces.texts(run, 0) == ('31 F', '28 F')
  assert faces.texts(run, 1) == ('60+ M', '8-12')


def test_card_places_on_its_scale(tmp_path):
  folder = fake_workdir.create_minimal(tmp_path)
  scores = {'age_mae': 5.0, 'age_mae_low': 4.0, 'age_mae_high': 6.0}
  fake_workdir.write_json(folder / 'scores.json', scores)
  fake_workdir.write_json(folder / 'data.json', {'majority': {'age_mae': 10.0}})
  cards, *_ = sections.headlines(run_lib.Run(folder))['blocks']
  (card,) = cards['items']
  places = {'value': 5 / 11, 'low': 4 / 11, 'high': 6 / 11, 'baseline': 10 / 11}
  assert card['places'] == pytest.approx(
    {key: 100 * place for key, place in places.items()}, abs=0.01
  )
  assert (card['value'], card['interval']) == ('5.00', '4.00 to 6.00')


@pytest.mark.parametrize('seconds, text', [
  (41.2, '41 s'), (250, '4 min 10 s'), (7500, '2 h 05 min')
])  # fmt: skip
def test_duration(seconds, text):
  assert record.duration(seconds) == text
