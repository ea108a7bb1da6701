"""The job of a worker that runs PyTorch: the peer's train step.

The peer gets what PyTorch offers: channels_last, fused optimizers, on CUDA
`torch.compile`, TF32 as XLA takes it, and autocast where the recipe computes in
bfloat16. Losses, frozen parts and the optimizer are the recipe's; there is no
augmentation. The process imports no JAX.
"""

import fnmatch
import time

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from agegender_jax import errors, schema
from agegender_jax.runtime import process
from benchmarking import noise, torch_nets

# preprocessing.IMAGENET_MEAN and _STD, and the other rows of create_normalize.
_STATISTICS = {
  'unit': ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
  'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  'inception': ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
_DEX_YEARS = 101  # tasks.DEX_YEARS.


def _group_loss(logits, label):
  return F.cross_entropy(logits, label.long(), ignore_index=schema.UNKNOWN)


# Task -> kind -> (label, outputs or None = age groups, mean loss).
_TASKS = {
  'age': {
    'mse': ('age', 1, lambda x, y: F.mse_loss(x[:, 0], y)),
    'mae': ('age', 1, lambda x, y: F.l1_loss(x[:, 0], y)),
    'dex': (
      'age',
      _DEX_YEARS,
      lambda x, y: _group_loss(x, y.floor().clamp(max=_DEX_YEARS - 1)),
    ),
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
  rate = config.learning_rate
  groups = [
    {'params': params, 'lr': factor * rate, 'weight_decay': decay}
    for (factor, decay), params in groups.items()
  ]
  if config.name == 'sgd':
    return torch.optim.SGD(groups, momentum=config.momentum, fused=True)
  kind = {'adam': torch.optim.Adam, 'adamw': torch.optim.AdamW}[config.name]
  return kind(groups, fused=True)


class Step:
  """The train step, on a batch of noise that is on the device."""

  def __init__(self, config):
    self.on_gpu = torch.cuda.is_available()
    self.device = torch.device('cuda' if self.on_gpu else 'cpu')
    if self.on_gpu:
      torch.backends.cudnn.benchmark = True
      torch.set_float32_matmul_precision('high')
    else:
      torch.set_num_threads(process.num_cores())
    self.config, self.tasks = config, create_tasks(config)
    size = config.data.crop_size or config.data.image_size
    outputs = {name: row[1] for name, row in self.tasks.items()}
    net = torch_nets.Net(config.model, size, outputs)
    self.net = net.to(self.device, memory_format=torch.channels_last)
    batch = noise.create_batch(config)
    self.batch = {k: torch.from_numpy(v).to(self.device) for k, v in batch.items()}
    self.mean, self.std = (
      255 * torch.tensor(row, device=self.device)[:, None, None]
      for row in _STATISTICS[config.data.normalize]
    )
    self.forward = torch.compile(self.compute) if self.on_gpu else self.compute
    self.facts = {
      'parameters': sum(p.numel() for p in net.parameters()),
      'platform': self.device.type,
      'device': torch.cuda.get_device_name() if self.on_gpu else 'cpu',
      'versions': {'torch': torch.__version__},
      'images': len(batch['image']),
    }
    self.net.train()
    freeze(self.net, config.optimizer.freeze)
    self.optimizer = create_optimizer(config.optimizer, self.net)
    if self.on_gpu:  # The first step is mostly compilation there.
      self.facts['compile_seconds'] = self.run(1)

  def compute(self, image):
    """Maps uint8 [B, H, W, 3] to task name -> logits float32 [B, K]."""
    # Channels last already: this changes strides and moves nothing.
    x = (image.permute(0, 3, 1, 2).float() - self.mean) / self.std
    is_half = self.config.model.dtype == 'bfloat16'
    with torch.autocast(self.device.type, torch.bfloat16, enabled=is_half):
      return self.net(x)

  def device_memory(self) -> float | None:
    """Returns the device's peak in GiB, None on CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if self.on_gpu else None

  def loss(self) -> torch.Tensor:
    """Computes the batch's loss, weighted over the tasks."""
    logits = self.forward(self.batch['image'])
    return sum(
      weight * loss(logits[name], self.batch[label])
      for name, (label, _, loss, weight) in self.tasks.items()
    )

  def step(self) -> torch.Tensor:
    """Takes one step and returns the loss before it."""
    self.optimizer.zero_grad(set_to_none=True)
    loss = self.loss()
    loss.backward()
    if self.config.optimizer.clip_norm:
      nn.utils.clip_grad_norm_(self.net.parameters(), self.config.optimizer.clip_norm)
    self.optimizer.step()
    return loss.detach()

  def run(self, count: int) -> float:
    """Returns seconds per step, over `count` steps."""
    start = time.perf_counter()
    for _ in range(count):
      self.step()
    if self.on_gpu:
      torch.cuda.synchronize()
    return (time.perf_counter() - start) / count
