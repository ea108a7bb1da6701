"""The benchmark's PyTorch peer: the same network, trained the same way."""

import importlib.util
import math
import pathlib
import re
import sys
import types

import jax
import numpy as np
import pytest
from flax import traverse_util

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.inference import predictor
from agegender_jax.models import tasks
from agegender_jax.runtime import devices

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'scripts'))

import benchmark  # noqa: E402, found by the path above.

# The recipes' networks: recipe, argument.
NETS = (
  ('utk_multibranch', ''),
  ('utk_cnn', ''),
  ('utk_fourconv', ''),
  ('utk_vgg', 'scratch'),
  ('utk_resnet', 'backbone=resnet18,scratch'),
  ('utk_resnet', 'scratch'),
  ('adience_resnet', 'scratch'),
  ('adience_levi_hassner', ''),
)


# One of each kind: the others repeat their layers.
KINDS = tuple(net for net in NETS if net[0] not in ('utk_fourconv', 'adience_resnet'))


def load_recipe(name, arg=''):
  """Returns the configuration of a recipe."""
  spec = importlib.util.spec_from_file_location(name, ROOT / 'configs' / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg)


def small(config, **fields):
  """Returns a copy at 64 pixels, a batch of 4, without randomness."""
  config = benchmark.without_augmentation(config)
  config.data.image_size, config.train.batch_size = 64, 4
  for name, value in fields.items():
    block, _, field = name.partition('__')
    config[block][field] = value
  for field in ('layers', 'branch'):
    words = config.model[field].split()
    words = [word for word in words if not word.startswith('drop:')]
    config.model[field] = ' '.join(words)
  return config


@pytest.fixture
def torch_lib():
  """The peer's modules; skips where PyTorch is absent."""
  if not (
    importlib.util.find_spec('torch') and importlib.util.find_spec('torchvision')
  ):
    pytest.skip('needs pip install -e .[benchmark]')
  from benchmarking import torch_nets, torch_step

  return types.SimpleNamespace(step=torch_step, nets=torch_nets)


def create_peer(torch_lib, config):
  """Returns the peer network of a configuration."""
  outputs = {name: row[1] for name, row in torch_lib.step.create_tasks(config).items()}
  return torch_lib.nets.Net(config.model, config.data.image_size, outputs)


def port(arrays):
  """Maps variables of this package to a state dict.

  Args:
    arrays: `params/backbone/conv1/kernel` -> array.

  Returns:
    `backbone.conv1.weight` -> tensor.
  """
  import torch

  last = {
    'kernel': 'weight',
    'scale': 'weight',
    'bias': 'bias',
    'mean': 'running_mean',
    'var': 'running_var',
  }
  state = {}
  for path, array in arrays.items():
    *names, kind = path.split('/')[1:]
    if kind == 'kernel':
      array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
    # A copy: torch wants memory that may be written.
    # `layer1_0` is `layer1.0` in torchvision's lists of modules.
    names = [re.sub(r'_(\d+)$', r'.\1', name) for name in names]
    state['.'.join([*names, last[kind]])] = torch.from_numpy(np.array(array))
  return state


def shapes_of(config):
  """Returns our network and its variables as shapes."""
  network = predictor.Network(config)
  size = config.data.image_size
  image = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
  variables = jax.eval_shape(
    lambda key, image: network.model.init(key, image, train=False),
    jax.random.key(0),
    image,
  )
  return network, variables


@pytest.mark.parametrize('name, arg', NETS, ids=lambda value: value)
def test_peer_has_as_many_parameters(torch_lib, name, arg):
  import torch

  config = benchmark.without_augmentation(load_recipe(name, arg))
  _, variables = shapes_of(config)
  ours = sum(math.prod(leaf.shape)
             for leaf in jax.tree.leaves(variables['params']))  # fmt: skip
  with torch.device('meta'):
    peer = create_peer(torch_lib, config)
  assert sum(p.numel() for p in peer.parameters()) == ours


@pytest.mark.parametrize('name, arg', KINDS, ids=lambda value: value)
def test_peer_with_our_weights_gives_our_logits(torch_lib, name, arg):
  import torch

  config = small(load_recipe(name, arg))
  network, variables = shapes_of(config)
  random = np.random.default_rng(0)
  flat = traverse_util.flatten_dict(dict(variables), sep='/')
  arrays = {}
  for path, leaf in flat.items():
    if path.endswith('kernel'):
      fan_in = math.prod(leaf.shape[:-1])
      value = random.standard_normal(leaf.shape) * np.sqrt(2 / fan_in)
    else:
      value = random.uniform(0.5, 1.5, leaf.shape)
    arrays[path] = value.astype(np.float32)
  image = random.random((2, 64, 64, 3), np.float32)
  ours = jax.jit(
    lambda variables, image: network.model.apply(variables, image, train=False)
  )(traverse_util.unflatten_dict(arrays, sep='/'), image)
  peer = create_peer(torch_lib, config).eval()
  missing, extra = peer.load_state_dict(port(arrays), strict=False)
  assert not extra
  assert all(key.endswith('num_batches_tracked') for key in missing)
  with torch.no_grad():
    theirs = peer(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
  assert set(ours) == set(theirs)
  for task, logits in ours.items():
    logits = np.asarray(logits)
    np.testing.assert_allclose(
      logits, theirs[task].numpy(), rtol=0, atol=1e-4 * np.abs(logits).max()
    )


OPTIMIZERS = {
  'adam': {},
  'adamw': {'optimizer__weight_decay': 0.1},
  'sgd': {
    'optimizer__learning_rate': 1e-2,
    'optimizer__weight_decay': 0.1,
    'optimizer__clip_norm': 1.0,
    'optimizer__lr_multipliers': 'backbone=0.5',
  },
}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_peer_learns_as_ours_does(torch_lib, name):
  import torch
  from benchmarking import jax_step

  config = small(
    config_lib.default_config(),
    optimizer__name=name,
    tasks__age={'kind': 'group', 'weight': 2.0},
    **OPTIMIZERS[name],
  )
  config.model.layers = 'conv:8 pool norm conv:8 pool'
  config.model.branch = 'conv:8 norm gap dense:8'
  ours = jax_step.Step(config)
  variables = devices.unreplicate(ours.state.variables)
  arrays = {
    path: np.asarray(leaf)
    for path, leaf in traverse_util.flatten_dict(variables, sep='/').items()
  }
  theirs = torch_lib.step.Step(config)
  theirs.net.load_state_dict(port(arrays), strict=False)
  losses = [
    (
      devices.unreplicate(ours.call())['loss'][0, 0].item(),
      theirs.step().item(),
    )
    for _ in range(4)
  ]
  torch.testing.assert_close(*map(torch.tensor, zip(*losses, strict=True)),
                             rtol=1e-3, atol=0)  # fmt: skip
  assert losses[0][0] != pytest.approx(losses[-1][0], rel=1e-2)


def test_peer_freezes_what_ours_freezes(torch_lib):
  config = small(load_recipe('utk_vgg', 'scratch'))
  peer = create_peer(torch_lib, config)
  torch_lib.step.freeze(peer, config.optimizer.freeze)
  trained = sum(p.numel() for p in peer.parameters() if p.requires_grad)
  assert trained == 2 * (512 * 256 + 256 + 256 + 1)


@pytest.mark.parametrize(
  'field, value',
  [
    ('conv', 'fourier'),
    ('width', 0.5),
    ('first_pool', False),
    ('squeeze_excite', True),
    ('resnet_d', True),
    ('drop_path', 0.1),
  ],
)
def test_peer_refuses_what_it_does_not_know(torch_lib, field, value):
  config = small(load_recipe('utk_resnet', 'backbone=resnet18,scratch'))
  config.model[field] = value
  with pytest.raises(errors.UserError, match='no PyTorch peer'):
    create_peer(torch_lib, config)


def test_ages_past_the_last_class_count_as_the_last(torch_lib):
  import torch

  config = small(config_lib.default_config(), tasks__age={'kind': 'dex', 'weight': 1.0})
  label, count, loss, _ = torch_lib.step.create_tasks(config)['age']
  logits = torch.zeros(2, count)
  assert (label, count) == ('age', tasks.DEX_YEARS)
  assert loss(logits, torch.tensor([116.0, 30])).item() == pytest.approx(math.log(101))
