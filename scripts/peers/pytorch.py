r"""Trains a recipe's network in PyTorch and predicts, for `--mode=score`.

python scripts/peers/pytorch.py --output=FOLDER \
  --config=configs/utk_resnet.py:backbone=resnet18,scratch \
  --config.data.source_dir=PATH_TO_UTKFACE \
  --score=utkface:seed5k_test:PATH_TO_UTKFACE --score=fairface:test:PATH_TO_FAIRFACE

The network, the losses and the optimizer are those of scripts/benchmark.py's peer, the
images, their order and the learning rates those of the run; torchvision mirrors, turns
and scales each image by the recipe's strengths. There is no validation: the last step
is what predicts. Writes FOLDER/NAME_SPLIT.csv for each --score.
"""

import csv
import dataclasses
import pathlib
import sys
import time

import numpy as np
import torch
from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from benchmarking import torch_step  # Makes torchvision fit to be imported.
from torchvision.transforms import v2 as transforms

from agegender_jax import cli, errors
from agegender_jax.data import pipeline
from agegender_jax.data import source as source_lib
from agegender_jax.training import augment, schedules

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Recipe.', lock_config=True)
_SCORE = flags.DEFINE_multi_string('score', [], 'NAME:SPLIT:FOLDER to predict.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder of the CSVs.', required=True)


def check(config) -> None:
  """Raises errors.UserError for what a recipe asks for and the peer does not do."""
  tasks, train = config.tasks, config.train
  if tasks.age.kind not in ('mse', 'mae', 'dex') or not tasks.gender.kind:
    raise errors.UserError('tasks: age as mse, mae or dex, and gender')
  strengths = dataclasses.asdict(augment.create_strengths(config.data))
  known = ('flip', 'rotation', 'zoom')
  missing = [f'data.{k}' for k, v in strengths.items() if v and k not in known]
  for block, names in (
    (config.data, ('crop_size', 'oversample', 'hold_out', 'mix_weights')),
    (config.model, ('init_from',)),
    (config.optimizer, ('layer_decay',)),
    (train, ('mixup', 'ema_decay', 'teachers')),
    (tasks.gender, ('label_smoothing',)),
  ):
    missing += [name for name in names if block[name]]
  missing += ['accumulate_steps'] * (config.optimizer.accumulate_steps > 1)
  if missing:
    raise errors.UserError(f'the peer knows no {", ".join(missing)}: switch them off')


def create_transform(data):
  """Returns the recipe's mirroring, turning and scaling of uint8 [3, H, W]."""
  return transforms.Compose([
    transforms.RandomHorizontalFlip(0.5 if data.flip else 0.0),
    transforms.RandomAffine(
      data.rotation,
      scale=(1 - data.zoom, 1 + data.zoom),
      interpolation=transforms.InterpolationMode.BILINEAR,
    ),
  ])  # fmt: skip


def train(config) -> torch_step.Step:
  """Trains as the run does and returns the job, its network in evaluation."""
  torch.manual_seed(config.seed)
  job, change = torch_step.Step(config), create_transform(config.data)
  source = source_lib.create_source(config.data, config.data.train_split)
  durations = schedules.create_durations(config.train, len(source))
  rate = schedules.create_schedule(config.optimizer, durations)
  factors = [group['lr'] / config.optimizer.learning_rate
             for group in job.optimizer.param_groups]  # fmt: skip
  calls = durations.calls(0, 1)
  order, start = pipeline.create_order(config, source), time.perf_counter()
  for step, batch in enumerate(pipeline.train_batches(source, order, calls)):
    del batch['known']
    labelled = (batch['age'] >= 0) & (batch['gender'] >= 0)
    batch = {key: value[labelled] for key, value in batch.items()}
    image = torch.from_numpy(batch.pop('image')).permute(0, 3, 1, 2)
    image = torch.stack([change(one) for one in image]).permute(0, 2, 3, 1)
    job.batch = {key: torch.from_numpy(value) for key, value in batch.items()}
    job.batch = {k: v.to(job.device) for k, v in (job.batch | {'image': image}).items()}
    for group, factor in zip(job.optimizer.param_groups, factors, strict=True):
      group['lr'] = factor * float(rate(step))
    loss = job.step()
    if not step % config.train.log_every_steps:
      speed = (step + 1) * len(image) / (time.perf_counter() - start)
      print(
        f'step {step}/{len(calls)}  loss {loss:.4g}  images/s {speed:.0f}', flush=True
      )
  job.net.eval()
  return job


@torch.inference_mode()
def predict(job, source, path: pathlib.Path) -> None:
  """Writes name, age_pred and gender_prob of each image, and prints the speed."""
  rows, start = [], time.process_time()
  for batch in pipeline.eval_batches(source, job.config.train.eval_batch_size):
    logits = job.forward(torch.from_numpy(batch['image']).to(job.device))
    ages = logits['age'].cpu().numpy()
    if job.config.tasks.age.kind == 'dex':
      ages = torch.softmax(logits['age'], 1).cpu().numpy() @ np.arange(ages.shape[1])
    female = torch.sigmoid(logits['gender'][:, 0]).cpu().numpy()
    ages = np.clip(ages.reshape(len(female)), 0, None)
    for row, age, share in zip(batch['row'], ages, female, strict=True):
      if row >= 0:
        rows.append((source.names[row], f'{age:.3f}', f'{share:.4f}'))
  speed = len(rows) / (time.process_time() - start)
  print(f'{path}: {len(rows)} images, {speed:.0f} per CPU second')
  with path.open('w', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows([('name', 'age_pred', 'gender_prob'), *rows])


def main(_) -> None:
  """Trains, then predicts each split; what the user can fix is one line."""
  config, folder = _CONFIG.value, pathlib.Path(_OUTPUT.value)
  try:
    check(config)
    for text in _SCORE.value:
      if text.count(':') < 2:
        raise errors.UserError(f'--score={text}: give NAME:SPLIT:FOLDER')
    job = train(config)
    folder.mkdir(parents=True, exist_ok=True)
    for text in _SCORE.value:
      data = config.data.copy_and_resolve_references()
      data.name, split, data.source_dir = text.split(':', 2)
      data.train_split = ''
      path = folder / f'{data.name}_{split}.csv'
      predict(job, source_lib.create_source(data, split), path)
  except errors.UserError as error:
    cli.fail(error)


if __name__ == '__main__':
  app.run(main)
