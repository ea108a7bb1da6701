"""What a worker process times of the peer: PyTorch's step and prediction.

The peer gets what PyTorch offers: channels_last, fused optimizers, on CUDA
`torch.compile`, TF32 as XLA has it, and autocast where ours computes in
bfloat16. Labels and losses are ours; there is no augmentation.
"""

import time

import torch
from torch import nn

from benchmarking import host, made_up, torch_nets, torch_training

# preprocessing.IMAGENET_MEAN and _STD, and the other rows of create_normalize.
_STATISTICS = {
  'unit': ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
  'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class _Job:
  """A network on its device, with a batch there."""

  def __init__(self, task: dict, config):
    self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if self.device.type == 'cuda':
      torch.backends.cudnn.benchmark = True
      torch.set_float32_matmul_precision('high')
    else:
      torch.set_num_threads(host.num_cores())
    self.config, self.tasks = config, torch_training.create_tasks(config)
    size = config.data.crop_size or config.data.image_size
    outputs = {name: row[1] for name, row in self.tasks.items()}
    net = torch_nets.Net(config.model, size, outputs)
    self.net = net.to(self.device, memory_format=torch.channels_last)
    batch = task.get('batch') or made_up.create_batch(config)
    self.batch = {
      key: torch.from_numpy(value).to(self.device) for key, value in batch.items()
    }
    mean, std = _STATISTICS[config.data.normalize]
    as_row = {'device': self.device, 'dtype': torch.float32}
    self.mean, self.std = (
      255 * torch.tensor(row, **as_row)[:, None, None] for row in (mean, std)
    )
    self.bfloat16 = config.model.dtype == 'bfloat16'
    self.images = len(batch['image'])
    self.forward = self.compute
    if self.device.type == 'cuda':
      self.forward = torch.compile(self.compute)
    self.facts = {
      'peer': 'torch',
      'formulation': 'channels_last',
      'parameters': sum(p.numel() for p in net.parameters()),
      'platform': self.device.type,
      'device_kind': torch.cuda.get_device_name()
      if self.device.type == 'cuda'
      else 'cpu',
      'devices': 1,
      'threads': torch.get_num_threads(),
      'versions': {'torch': torch.__version__},
      'images': self.images,
    }

  def compute(self, image):
    """Maps uint8 [B, H, W, 3] to task name -> logits float32 [B, K]."""
    # Channels last already: this changes strides and moves nothing.
    x = (image.permute(0, 3, 1, 2).float() - self.mean) / self.std
    with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
      return self.net(x)

  def finish(self) -> None:
    """Waits for the device."""
    if self.device.type == 'cuda':
      torch.cuda.synchronize()

  def device_memory(self) -> float | None:
    """Returns the device's peak in GiB, None on CPU."""
    if self.device.type == 'cuda':
      return torch.cuda.max_memory_allocated() / 2**30
    return None

  def compile(self) -> None:
    """Runs once on CUDA, where that is mostly compilation, and times it."""
    if self.device.type == 'cuda':
      start = time.perf_counter()
      self.run(1)
      self.facts['compile_seconds'] = time.perf_counter() - start


class Step(_Job):
  """The train step."""

  def __init__(self, task, config):
    super().__init__(task, config)
    self.net.train()
    torch_training.freeze(self.net, config.optimizer.freeze)
    self.optimizer = torch_training.create_optimizer(config.optimizer, self.net)
    self.compile()

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
    """Returns seconds a step, over `count` steps."""
    start = time.perf_counter()
    for _ in range(count):
      self.step()
    self.finish()
    return (time.perf_counter() - start) / count


class Predict(_Job):
  """The forward pass in evaluation, its logits brought to the host."""

  def __init__(self, task, config):
    super().__init__(task, config)
    self.net.eval()
    self.compile()

  @torch.inference_mode()
  def run(self, count: int) -> float:
    """Returns seconds a batch, over `count` batches."""
    start = time.perf_counter()
    for _ in range(count):
      for logits in self.forward(self.batch['image']).values():
        logits.cpu()
    return (time.perf_counter() - start) / count


JOBS = {'step': Step, 'predict': Predict}
