"""Parity with torchvision's nets, and recorded values where torch is absent.

No ImageNet file is needed: torchvision's own nets get random weights and
random batch statistics, are saved in their naming, and brought in by
`pretrained.port`. With torch, `python tests/test_parity.py` prints the table of
the README, and with `--record` writes parity_golden.npz instead.
"""

import argparse
import collections
import contextlib
import copy
import functools
import json
import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from agegender_jax.models import (
  layers,
  levi_hassner,
  pretrained,
  resnet,
  vgg,
)

NETS = {
  'resnet18': resnet.ResNet18,
  'resnet34': resnet.ResNet34,
  'resnet50': resnet.ResNet50,
  'resnet101': resnet.ResNet101,
  'resnet152': resnet.ResNet152,
  'vgg16': vgg.VGG16,
  'vgg16_bn': vgg.VGG16BN,
}
SLOW_NETS = ('vgg16', 'vgg16_bn', 'resnet101', 'resnet152')
TOLERANCE = 1e-4  # Of the largest absolute value of each stage.
GOLDEN = pathlib.Path(__file__).with_name('parity_golden.npz')
GOLDEN_NETS = ('resnet18', 'resnet50', 'vgg16')
GOLDEN_SIZE = 64  # Pixels.
# 12 logits do for the nets, and keep VGG's classifier the smaller.
NUM_CLASSES = 12


@pytest.fixture(scope='session')
def torchvision():
  """Returns torchvision, or skips the test."""
  if os.environ.get('AGEGENDER_TORCH') == 'required':
    return _import_torchvision()
  with contextlib.suppress(ImportError, RuntimeError):
    return _import_torchvision()
  pytest.skip(
    'needs torch and torchvision: pip install -e .[parity] and '
    'pip install --no-deps torchvision'
  )


@functools.cache
def _import_torchvision():
  import torch

  # A torchvision built for CUDA registers no operators on a CPU-only torch,
  # and stops at the first that it wants to describe.
  library = torch.library.Library('torchvision', 'FRAGMENT')
  for name in ('nms', 'qnms'):
    with contextlib.suppress(RuntimeError):
      library.define(f'{name}(Tensor dets, Tensor scores, float t) -> Tensor')
  _import_torchvision.library = library  # Lets go of its operators otherwise.
  import torchvision

  torch.set_num_threads(2)
  return torchvision


def _fill(shapes, seed=0):
  """Draws a state dict: activations neither vanish nor explode.

  Args:
    shapes: {torch name: shape}.
    seed: of NumPy's legacy generator, whose stream is frozen.

  Returns:
    {torch name: float32 array}.
  """
  random = np.random.RandomState(seed)
  state = {}
  for key, shape in shapes.items():
    if key.endswith('num_batches_tracked'):
      continue
    if len(shape) > 1:
      # VGG's classifier repeats itself: drawing all of it takes seconds.
      value = random.standard_normal(min(np.prod(shape), 2**20))
      value *= np.sqrt(2 / np.prod(shape[1:]))
      value = np.resize(value.astype(np.float32), shape)
    elif key.endswith(('bias', 'running_mean')):
      value = random.standard_normal(shape) * 0.2
    else:  # Scale or running variance.
      value = random.uniform(0.5, 1.5, shape)
    state[key] = value.astype(np.float32, copy=False)
  return state


def _image(batch, size, seed=1):
  image = np.random.RandomState(seed).standard_normal((batch, size, size, 3))
  return image.astype(np.float32)


@functools.lru_cache(maxsize=1)
def _torch_net(name):
  """Returns torchvision's net with drawn weights, and those weights."""
  import torch

  options = {'init_weights': False} if name.startswith('vgg') else {}
  create = getattr(_import_torchvision().models, name)
  net = create(num_classes=NUM_CLASSES, **options)
  state = _fill({k: tuple(v.shape) for k, v in net.state_dict().items()})
  tensors = {key: torch.from_numpy(value) for key, value in state.items()}
  net.load_state_dict(tensors, strict=False)
  return net.eval(), state


def _is_stage(path):
  """Whether a torch module's output is compared: blocks and convolutions."""
  parts = path.split('.')
  return parts[0] in ('conv1', 'bn1', 'fc', 'classifier') or len(parts) == 2


def _torch_stages(net, image):
  """Runs a torch net; returns {our name: array NHWC} of its stages."""
  import torch

  stages, hooks = {}, []

  def keep(path, module, inputs, output):
    # A copy: an in-place ReLU comes next.
    value = output.detach().clone().numpy()
    value = value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
    stages[path.replace('.', '_')] = value

  for path, module in net.named_modules():
    if _is_stage(path):
      hook = functools.partial(keep, path)
      hooks.append(module.register_forward_hook(hook))
  with torch.no_grad():
    net(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
  for hook in hooks:
    hook.remove()
  return stages


def _template(net, size):
  """Returns the net's variables as shapes; nothing is computed."""
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  init = functools.partial(net.init, train=False)
  return jax.eval_shape(init, jax.random.key(0), image)


def _stages(net, state, image):
  """Ports the state into our net; returns {name: array} of its stages."""
  variables = pretrained.port(state, _template(net, image.shape[1]))
  _, captured = net.apply(variables, image, train=False, capture_intermediates=True)
  flat = traverse_util.flatten_dict(captured['intermediates'])
  stages = {p[0]: np.asarray(v[0]) for p, v in flat.items() if len(p) == 2}
  # torchvision's ReLUs are stages of their own numbers.
  return {k: v for k, v in stages.items() if k != '__call__' and 'relu' not in k}


def _differences(name, size):
  """Returns {stage: largest difference / largest value}."""
  net, state = _torch_net(name)
  image = _image(2, size)
  ours = _stages(NETS[name](num_classes=NUM_CLASSES), state, image)
  theirs = _torch_stages(net, image)
  assert set(ours) <= set(theirs), set(ours) - set(theirs)
  return {
    stage: float(
      np.abs(ours[stage] - theirs[stage]).max() / np.abs(theirs[stage]).max()
    )
    for stage in ours
  }


def _close(ours, theirs, tolerance=TOLERANCE):
  largest = np.abs(np.asarray(theirs)).max()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize(
  'name',
  [
    # VGG16 is held to recorded values below; the deepest ResNets are more of
    # ResNet-50's blocks.
    pytest.param(name, marks=[pytest.mark.nightly] * (name in SLOW_NETS))
    for name in NETS
  ],
)
def test_stages_and_logits_equal_torchvision(torchvision, name):
  differences = _differences(name, 128)
  assert len(differences) > 10
  assert max(differences.values()) <= TOLERANCE


@pytest.mark.nightly
@pytest.mark.parametrize('name', NETS)
def test_stages_and_logits_equal_torchvision_at_224(torchvision, name):
  assert max(_differences(name, 224).values()) <= TOLERANCE


def test_a_bent_weight_fails_the_comparison(torchvision):
  net, state = _torch_net('resnet18')
  image = _image(2, 128)
  bent = dict(state)
  bent['layer2.0.bn1.running_var'] = state['layer2.0.bn1.running_var'] * 1.01
  ours = _stages(resnet.ResNet18(num_classes=NUM_CLASSES), bent, image)
  theirs = _torch_stages(net, image)
  _close(ours['layer1_1'], theirs['layer1_1'])
  with pytest.raises(AssertionError):
    _close(ours['fc'], theirs['fc'])


def test_saved_file_is_read_as_the_state_dict(torchvision, tmp_path):
  import torch

  net, state = _torch_net('resnet18')
  for is_zip in (True, False):
    path = str(tmp_path / f'net{is_zip}.pth')
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=is_zip)
    read = pretrained.load_state(path)
    assert list(read) == list(net.state_dict())
    for key, value in state.items():
      np.testing.assert_array_equal(read[key], value)


@functools.cache
def _train_step():
  """Returns one float64 training pass of ResNet-18, torch's and ours.

  The loss is a fixed weighting of the logits; batch statistics are in use, so
  that gradients flow through them as well.

  Returns:
    (torch's, ours), each a dict of `loss`, `grads`: params tree, `stats`:
    batch_stats tree; torch's also `before`, the old batch_stats, and `counts`,
    the values per channel that each layer averages.
  """
  import torch

  net, state = _torch_net('resnet18')
  net = copy.deepcopy(net).double().train()
  image, counts = _image(2, 48).astype(np.float64), {}
  weights = np.random.RandomState(2).standard_normal((2, NUM_CLASSES))
  for path, module in net.named_modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      module.register_forward_hook(
        lambda m, x, y, path=path: counts.update({path: x[0].numel() // x[0].shape[1]})
      )
  logits = net(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
  loss = (logits * torch.from_numpy(weights)).sum()
  loss.backward()
  with jax.enable_x64(True):
    model = resnet.ResNet18(num_classes=NUM_CLASSES, dtype=jnp.float64)
    wide = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float64),
      _template(model, 48),
    )
    before = pretrained.port(state, wide)

    def loss_fn(params):
      out, new = model.apply(
        {**before, 'params': params}, image, train=True, mutable='batch_stats'
      )
      return jnp.sum(out * weights), new['batch_stats']

    grad_fn = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (ours, stats), grads = jax.device_get(grad_fn(before['params']))
  named = {k: v.grad.numpy() for k, v in net.named_parameters()}
  after = {k: v.numpy() for k, v in net.state_dict().items() if 'running' in k}
  theirs = {
    'loss': loss.item(),
    'grads': pretrained.port(named, {'params': wide['params']})['params'],
    'stats': pretrained.port(after, {'batch_stats': wide['batch_stats']})[
      'batch_stats'
    ],
    'before': before['batch_stats'],
    'counts': counts,
  }
  return theirs, {'loss': ours, 'grads': grads, 'stats': stats}


def test_gradients_equal_torch_in_float64(torchvision):
  theirs, ours = _train_step()
  np.testing.assert_allclose(ours['loss'], theirs['loss'], rtol=1e-10)
  assert jax.tree.leaves(ours['grads'])[0].dtype == np.float64
  jax.tree.map(
    functools.partial(_close, tolerance=1e-10), ours['grads'], theirs['grads']
  )


def test_batch_statistics_update_as_torch_but_for_the_unbiased_variance(
  torchvision,
):
  """Compares running statistics after one training pass.

  torch's momentum 0.1 is flax's 0.9. What differs: torch moves the running
  variance towards the batch's unbiased variance, flax towards the biased one,
  which is less by (n - 1) / n, n the values per channel (batch x h x w).
  """
  theirs, ours = _train_step()
  old = traverse_util.flatten_dict(theirs['before'])
  new = traverse_util.flatten_dict(ours['stats'])
  expected = traverse_util.flatten_dict(theirs['stats'])
  for path, value in new.items():
    if path[-1] == 'var':
      name = '.'.join(path[:-1])
      counts = {k.replace('.', '_'): v for k, v in theirs['counts'].items()}
      n = counts[name.replace('.', '_')]
      value = 0.9 * old[path] + (value - 0.9 * old[path]) * n / (n - 1)
    _close(value, expected[path], 1e-9)


def _torch_levi_hassner(lrn_after, size):
  from torch import nn as tnn

  modules = {}
  shapes = ((3, 96, 7, 4, 0), (96, 256, 5, 1, 2), (256, 384, 3, 1, 1))
  for row, (ins, outs, side, stride, pad) in enumerate(shapes, 1):
    modules[f'conv{row}'] = tnn.Conv2d(ins, outs, side, stride, pad)
    modules[f'relu{row}'] = tnn.ReLU()
    modules[f'pool{row}'] = tnn.MaxPool2d(3, 2, ceil_mode=True)
    if row in lrn_after:
      modules[f'norm{row}'] = tnn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
  modules['flatten'] = tnn.Flatten()
  flat = 384 * levi_hassner.map_sizes(size)[-1] ** 2
  for row, ins in ((6, flat), (7, 512)):
    modules[f'fc{row}'] = tnn.Linear(ins, 512)
    modules[f'relu{row}'] = tnn.ReLU()
  net = tnn.Sequential()
  for name, module in modules.items():
    net.add_module(name, module)
  return net.eval()


@pytest.mark.parametrize('lrn_after, size', [((1, 2), 227), ((1, 2, 3), 71), ((), 35)])
def test_levi_hassner_equals_torch(torchvision, lrn_after, size):
  import torch

  net = _torch_levi_hassner(lrn_after, size)
  state = _fill({k: tuple(v.shape) for k, v in net.state_dict().items()})
  net.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
  # Large enough that the normalisation bites: alpha x^2 / 5 of about 1.
  image = 200 * _image(2, size)
  ours = levi_hassner.LeviHassner(lrn_after=lrn_after)
  variables = pretrained.port(state, _template(ours, size))
  with torch.no_grad():
    theirs = net(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
  _close(ours.apply(variables, image, train=False), theirs.numpy())


@pytest.mark.parametrize('size, k', [(5, 1.0), (4, 2.0), (3, 0.5)])
def test_local_response_norm_equals_torch(torchvision, size, k):
  import torch

  x = 30 * _image(2, 6).repeat(4, axis=-1)
  norm = torch.nn.LocalResponseNorm(size, 1e-2, 0.75, k)
  theirs = norm(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
  ours = layers.local_response_norm(x, size=size, alpha=1e-2, k=k)
  _close(ours, theirs.transpose(0, 2, 3, 1), 1e-6)


@pytest.mark.parametrize('n', [1, 3, 4, 7, 10])
def test_adaptive_average_pool_equals_torch(torchvision, n):
  import torch

  x = _image(2, n)[:, : n + 1]
  theirs = torch.nn.AdaptiveAvgPool2d(7)(
    torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
  )
  ours = vgg.adaptive_average_pool(x, 7)
  _close(ours, theirs.numpy().transpose(0, 2, 3, 1), 1e-6)


def _golden_net(name):
  """Returns our net that is recorded: VGG without its large classifier."""
  return NETS[name](num_classes=0 if name == 'vgg16' else NUM_CLASSES)


def _golden_shapes(name):
  with np.load(GOLDEN) as golden:
    return json.loads(str(golden[f'{name}/shapes']))


def _sample(stage):
  """Returns 12 values of a stage, spread over it, and its largest."""
  flat = np.asarray(stage, np.float32).ravel()
  places = np.linspace(0, flat.size - 1, 12).astype(int)
  return np.append(flat[places], np.abs(flat).max())


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[pytest.mark.nightly] if name == 'vgg16' else [])
    for name in GOLDEN_NETS
  ],
)
def test_stages_equal_values_recorded_from_torch(name):
  state = _fill(_golden_shapes(name))
  ours = _stages(_golden_net(name), state, _image(1, GOLDEN_SIZE))
  with np.load(GOLDEN) as golden:
    stages = [k for k in golden if k.startswith(f'{name}/stage/')]
    assert len(stages) > 10
    for key in stages:
      _close(_sample(ours[key.split('/')[-1]]), golden[key])


def record():
  """Writes parity_golden.npz from torchvision's nets."""
  arrays = {}
  for name in GOLDEN_NETS:
    net, state = _torch_net(name)
    shapes = {k: v.shape for k, v in state.items()}
    if name == 'vgg16':
      shapes = {k: v for k, v in shapes.items() if k.startswith('features')}
    arrays[f'{name}/shapes'] = np.array(json.dumps(shapes))
    ours = _golden_net(name)
    template = traverse_util.flatten_dict(_template(ours, 64)['params'])
    for stage, value in _torch_stages(net, _image(1, GOLDEN_SIZE)).items():
      if stage in {path[0] for path in template}:
        arrays[f'{name}/stage/{stage}'] = _sample(value)
  np.savez_compressed(GOLDEN, **arrays)


COLUMNS = (
  ('conv1', 'layer1', 'layer2', 'layer3', 'layer4', 'logits'),
  ('block 1', 'block 2', 'block 3', 'block 4', 'block 5', 'logits'),
)


def _columns(stages):
  """Returns {stage: its column}, without VGG's hidden dense layers."""
  features = sorted(
    int(stage.removeprefix('features_'))
    for stage in stages
    if stage.startswith('features_')
  )
  result, block, before = {}, 1, 0
  for index in features:
    # A ReLU lies between two convolutions, between blocks a pooling as well.
    block += index - before == 3
    result[f'features_{index}'] = f'block {block}'
    before = index
  named = {'bn1': 'conv1', 'fc': 'logits', 'classifier_6': 'logits'}
  for stage in stages:
    if not stage.startswith(('features_', 'classifier_')) or stage in named:
      result[stage] = named.get(stage, stage.split('_')[0])
  return result


def table(size=128):
  """Returns the README's table, Markdown: the worst of each stage."""
  heads = [' / '.join(dict.fromkeys(pair))
           for pair in zip(*COLUMNS, strict=True)]  # fmt: skip
  rows = [f'| net | {" | ".join(heads)} |', '|---' * (1 + len(heads)) + '|']
  for name in NETS:
    differences = _differences(name, size)
    worst = {}
    for stage, column in _columns(differences).items():
      worst[column] = max(differences[stage], worst.get(column, 0.0))
    cells = [f'{worst[c]:.1e}' for c in COLUMNS[name.startswith('vgg')]]
    rows.append(f'| {name} | {" | ".join(cells)} |')
    _torch_net.cache_clear()
  return '\n'.join(rows)


@pytest.mark.parametrize('name', NETS)
def test_the_table_has_a_column_for_every_stage(name):
  params = _template(NETS[name](num_classes=NUM_CLASSES), 64)['params']
  columns, is_vgg = _columns(params), name.startswith('vgg')
  assert set(columns.values()) == set(COLUMNS[is_vgg])
  hidden = {'classifier_0', 'classifier_3'} if is_vgg else set()
  assert set(params) - set(columns) == hidden
  sizes = collections.Counter(
    columns[stage]
    for stage, leaves in params.items()
    if stage.startswith('features_') and leaves.get('kernel') is not None
  )
  blocks = dict(zip(COLUMNS[1], (2, 2, 3, 3, 3), strict=False))
  assert sizes == (blocks if is_vgg else {})


def main(args):
  """Prints the table, or records."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--record', action='store_true')
  if parser.parse_args(args).record:
    record()
  else:
    print(table())


def test_only_record_writes(monkeypatch, capsys):
  written = []
  monkeypatch.setattr(np, 'savez_compressed', lambda *a, **_: written.append(a))
  monkeypatch.setitem(globals(), 'GOLDEN_NETS', ())
  monkeypatch.setitem(globals(), 'NETS', {})
  main([])
  assert not written and capsys.readouterr().out.startswith('| net | conv1 / b')
  main(['--record'])
  assert len(written) == 1 and not capsys.readouterr().out


if __name__ == '__main__':
  main(sys.argv[1:])
