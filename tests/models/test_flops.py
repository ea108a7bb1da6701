"""The layer table against published counts and hand-made ones."""

import json

import jax
import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import models
from agegender_jax.evaluation import summary
from agegender_jax.inference import predictor
from agegender_jax.models import flops, levi_hassner, parameter_groups, resnet, vgg

GIGA = 10**9


def create(layers, branch, freeze='', **outputs):
  config = config_lib.default_config().model
  config.update({'layers': layers, 'branch': branch})
  is_frozen = parameter_groups.create_is_frozen(freeze)
  outputs = outputs or {'age': 1, 'gender': 1}
  model = models.create_model(config, outputs, is_frozen=is_frozen)
  return model, is_frozen


def total(rows, key):
  return sum(row[key] for row in rows)


# torchvision's own table of its nets: 10^9 multiplications with additions.
@pytest.mark.parametrize(
  'constructor, giga, parameters',
  [
    (resnet.ResNet18, 1.814, 11_689_512),
    (resnet.ResNet34, 3.664, 21_797_672),
    (resnet.ResNet50, 4.089, 25_557_032),
    (vgg.VGG16, 15.470, 138_357_544),
    (vgg.VGG16BN, 15.470, 138_365_992),
  ],
)
def test_counts_are_those_of_torchvision(constructor, giga, parameters):
  rows = flops.layer_table(constructor(num_classes=1000), 224)
  assert total(rows, 'flops') == pytest.approx(2 * giga * GIGA, rel=1e-3)
  assert total(rows, 'parameters') == parameters


# Counted independently for the measurements of CPU speed, at 128 pixels.
def test_counts_of_the_multi_branch_net():
  model, _ = create(
    'conv:32 pool conv:64 pool drop:0.25',
    'conv:128 pool flatten dense:128 drop:0.5',
  )
  rows = flops.layer_table(model, 128)
  assert total(rows, 'flops') == pytest.approx(0.498 * GIGA, abs=GIGA / 2000)
  assert total(rows, 'train_flops') == pytest.approx(1.466 * GIGA, rel=1e-3)


def test_counts_of_features_only():
  rows = flops.layer_table(resnet.ResNet50(), 128)
  assert total(rows, 'flops') == pytest.approx(2.669 * GIGA, rel=1e-3)
  assert total(rows, 'train_flops') == pytest.approx(7.930 * GIGA, rel=1e-3)
  rows = flops.layer_table(vgg.VGG16(), 128)
  assert total(rows, 'flops') == pytest.approx(10.02 * GIGA, rel=1e-3)


def test_every_layer_is_listed_once_in_order():
  model, _ = create('conv:2 norm pool', 'gap dense:3 drop:0.5', age=5)
  rows = flops.layer_table(model, 8)
  assert [tuple(row.values()) for row in rows] == [
    ('backbone/conv1', 'Conv', [8, 8, 2], 56, 6912, 13824),
    ('backbone/norm1', 'BatchNorm', [8, 8, 2], 4, 0, 0),
    ('branch_age/dense1', 'Dense', [3], 9, 12, 36),
    ('branch_age/drop1', 'Dropout', [3], 0, 0, 0),
    ('branch_age/logits', 'Dense', [5], 20, 30, 90),
  ]


@pytest.mark.parametrize('name', models.BACKBONES)
def test_parameters_are_all_of_the_tree(name):
  config = config_lib.default_config().model
  config.backbone = name
  if name == 'levi_hassner':
    config.branch = ''
  model = models.create_model(config, {'age': 1, 'gender': 1})
  shapes = jax.eval_shape(
    lambda key: model.init(key, np.zeros((1, 64, 64, 3)), train=False),
    jax.random.key(0),
  )
  rows = flops.layer_table(model, 64)
  paths = parameter_groups.flatten(shapes['params'])
  sizes = {}
  for path, leaf in paths.items():
    layer = path.rpartition('/')[0]
    sizes[layer] = sizes.get(layer, 0) + leaf.size
  found = {row['name']: row['parameters'] for row in rows if row['parameters']}
  assert found == sizes


def test_a_strided_convolution_counts_its_outputs():
  rows = flops.layer_table(levi_hassner.LeviHassner(dense_features=()), 227)
  assert rows[0]['output'] == [56, 56, 96]
  assert rows[0]['flops'] == 2 * 56 * 56 * 96 * 7 * 7 * 3


@pytest.mark.parametrize(
  'freeze, passes',
  [
    # Passes of conv1, conv2, age's dense and logits, gender's likewise.
    ('', (2, 3, 3, 3, 3, 3)),
    ('backbone', (1, 1, 2, 3, 2, 3)),
    ('backbone/conv1', (1, 2, 3, 3, 3, 3)),
    # What lies before a frozen kernel learns through it.
    ('backbone/conv2', (2, 2, 3, 3, 3, 3)),
    ('backbone branch_age', (1, 1, 1, 1, 2, 3)),
    # A branch feeds no other one.
    ('backbone branch_gender', (1, 1, 2, 3, 1, 1)),
    ('backbone */kernel', (1, 1, 1, 2, 1, 2)),
  ],
)
def test_what_is_frozen_needs_fewer_passes(freeze, passes):
  model, is_frozen = create('conv:4 conv:4', 'gap dense:3', freeze)
  rows = flops.layer_table(model, 8, is_frozen)
  found = [row['train_flops'] / row['flops'] for row in rows if row['flops']]
  assert tuple(found) == passes


def test_no_work_is_done_for_the_table(monkeypatch):
  calls = []
  model, _ = create('conv:2', 'gap')
  init = type(model).init

  def spy(self, key, image, train):
    calls.append(isinstance(image, jax.core.Tracer))
    return init(self, key, image, train=train)

  monkeypatch.setattr(type(model), 'init', spy)
  flops.layer_table(model, 8)
  assert calls == [True]


def test_matmul_peak_is_what_a_product_takes(monkeypatch):
  monkeypatch.setattr(flops, '_SIDE', 256)
  monkeypatch.setattr(flops, '_LEAST_SECONDS', 0.02)
  clock = iter(np.arange(0, 100, 0.5))  # Every measurement takes half a second.
  monkeypatch.setattr(flops.time, 'perf_counter', lambda: next(clock))
  assert flops.matmul_peak() == pytest.approx(2 * 256**3 / 0.5)


def of_batch(size):
  config = config_lib.default_config()
  config.train.batch_size = size
  return config


def write_run(workdir):
  rows = [
    {'step': 10, 'train/images_per_second': 50.0,
     'train/input_wait_seconds': 0.04, 'train/compile_seconds': 2.0},
    {'step': 20, 'train/images_per_second': 50.0, 'validation/seconds': 3.0},
  ]  # fmt: skip
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (workdir / 'metrics.jsonl').write_text(text)


def test_run_summary_sets_the_arithmetic_beside_the_peak(tmp_path, monkeypatch):
  write_run(tmp_path)
  config = config_lib.default_config()
  summary.write_layers(str(tmp_path), predictor.Network(config))
  monkeypatch.setattr(flops, 'matmul_peak', lambda dtype: 2e11)
  found = summary.run_summary(str(tmp_path), of_batch(5), 7)
  assert found['seconds'] == 7.0 and found['images_per_second'] == 50.0
  assert found['train_seconds'] == found['compile_seconds'] == 2.0
  assert found['step_seconds'] == 0.1 and found['input_wait_seconds'] == 0.02
  counts = found['flops_per_image']
  assert counts['forward'] == pytest.approx(0.498 * GIGA, abs=GIGA / 2000)
  want = 50 * counts['training'] / 1e12
  assert found['tflops']['training'] == pytest.approx(want, rel=1e-3)
  assert found['tflops']['matrix_product'] == 0.2
  assert found['mfu'] == pytest.approx(want / 0.2, abs=1e-4)
  assert 10 * 2**20 < found['peak_memory_bytes'] < 2**40


def test_a_peak_below_the_training_is_no_peak(tmp_path, monkeypatch):
  write_run(tmp_path)
  network = predictor.Network(config_lib.default_config())
  summary.write_layers(str(tmp_path), network)
  monkeypatch.setattr(flops, 'matmul_peak', lambda dtype: 1e9)
  found = summary.run_summary(str(tmp_path), of_batch(5), 7)
  assert 'mfu' not in found and found['tflops']['matrix_product'] == 0.001


def test_run_summary_outlives_a_failed_measurement(tmp_path, monkeypatch):
  def fail(dtype):
    raise RuntimeError('out of memory')

  write_run(tmp_path)
  summary.write_layers(str(tmp_path), predictor.Network(config_lib.default_config()))
  monkeypatch.setattr(flops, 'matmul_peak', fail)
  found = summary.run_summary(str(tmp_path), of_batch(5), 7)
  assert 'mfu' not in found and 'matrix_product' not in found['tflops']
  assert found['tflops']['training'] > 0


def test_run_summary_without_layers_has_no_arithmetic(tmp_path):
  write_run(tmp_path)
  found = summary.run_summary(str(tmp_path), of_batch(5), 7)
  assert not {'mfu', 'tflops', 'flops_per_image'} & set(found)
