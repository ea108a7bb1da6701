"""A recipe's losses, frozen parts and optimizer in PyTorch: see torch_nets."""

import fnmatch

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from agegender_jax import errors, schema

_NUM_YEARS = 101  # tasks.NUM_YEARS.


def _group_loss(logits, label):
  return F.cross_entropy(logits, label.long(), ignore_index=schema.UNKNOWN)


# Task -> kind -> (label, outputs or None = age groups, mean loss).
_TASKS = {
  'age': {
    'mse': ('age', 1, lambda x, y: F.mse_loss(x[:, 0], y)),
    'mae': ('age', 1, lambda x, y: F.l1_loss(x[:, 0], y)),
    'dex': ('age', _NUM_YEARS, lambda x, y: _group_loss(x, y.floor())),
    'group': ('age_group', None, _group_loss),
  },
  'gender': {
    'binary': (
      'gender',
      1,
      lambda x, y: F.binary_cross_entropy_with_logits(x[:, 0], y.float()),
    )
  },
}


def create_tasks(config) -> dict:
  """Returns name -> (label, number of outputs, mean loss, weight).

  Raises:
    errors.UserError: a kind that has no peer.
  """
  result = {}
  for name, task in config.tasks.items():
    if not task.kind:
      continue
    if task.kind not in _TASKS[name]:
      raise errors.UserError(
        f'no PyTorch peer of tasks.{name}.kind={task.kind}; '
        f'known: {", ".join(_TASKS[name])}'
      )
    label, outputs, loss = _TASKS[name][task.kind]
    outputs = outputs or len(schema.AGE_GROUPS[config.data.age_groups])
    result[name] = (label, outputs, loss, task.weight)
  return result


def port(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
  """Maps our variables to a state dict.

  Args:
    arrays: `params/backbone/conv1/kernel` -> array.

  Returns:
    `backbone.conv1.weight` -> tensor.
  """
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
    state['.'.join([*names, last[kind]])] = torch.from_numpy(np.array(array))
  return state


def _first_factor(rules, name):
  """Returns the factor of the first rule that names a parameter, else 1."""
  path = name.rpartition('.')[0].replace('.', '/') + '/'
  for pattern, factor in rules:
    if fnmatch.fnmatchcase(path, f'{pattern}/*'):
      return factor
  return 1.0


def freeze(net: nn.Module, patterns: str) -> None:
  """Leaves out of training what `optimizer.freeze` names."""
  rules = [(pattern, 0.0) for pattern in patterns.split()]
  for name, parameter in net.named_parameters():
    parameter.requires_grad_(_first_factor(rules, name) != 0)
  for module in net.modules():
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
      module.train(module.weight.requires_grad)


def create_optimizer(config, net: nn.Module) -> torch.optim.Optimizer:
  """Creates the recipe's optimizer at its first rate.

  Args:
    config: the block `optimizer`.
    net: its parameters that are trained.
  """
  rules = [word.partition('=') for word in config.lr_multipliers.split()]
  rules = [(pattern, float(factor)) for pattern, _, factor in rules]
  groups = {}
  for name, parameter in net.named_parameters():
    if parameter.requires_grad:
      decay = config.weight_decay if parameter.ndim > 1 else 0.0
      key = (_first_factor(rules, name), decay)
      groups.setdefault(key, []).append(parameter)
  groups = [
    {
      'params': params,
      'lr': factor * config.learning_rate,
      'weight_decay': decay,
    }
    for (factor, decay), params in groups.items()
  ]
  if config.name == 'sgd':
    return torch.optim.SGD(groups, momentum=config.momentum, fused=True)
  kind = {'adam': torch.optim.Adam, 'adamw': torch.optim.AdamW}[config.name]
  return kind(groups, fused=True)
