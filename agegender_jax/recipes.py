"""What recipes share: their arguments, protocols, targets, a small run."""

import importlib.util
import os
import pathlib
import re
import types
from collections.abc import Iterable

from ml_collections import config_dict

from agegender_jax import config as config_lib
from agegender_jax import errors

ADIENCE_FOLDS = 5
RESNETS = ('resnet18', 'resnet34', 'resnet50')


def load(path: str | os.PathLike) -> types.ModuleType:
  """Loads a recipe's module from its file.

  Raises:
    errors.UserError: there is no such file, or it is no .py file.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise errors.UserError(f'--config={path}: no such recipe; see configs/')
  if path.suffix != '.py':
    raise errors.UserError(f'--config={path}: a recipe is a .py file; see configs/')
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def parse_arg(arg: str, **defaults):
  """Parses a recipe's argument, `fold=2,runlocal`, by its defaults' types.

  Args:
    arg: comma-separated `key=value`; a bare `key` means True.
    **defaults: the known keys with their default values.

  Returns:
    A ConfigDict with a field per known key.

  Raises:
    errors.UserError: an unknown key, or a value of another type.
  """
  result = config_dict.ConfigDict(defaults)
  for item in filter(None, (arg or '').split(',')):
    key, has_value, text = item.partition('=')
    if key not in defaults:
      raise errors.unknown('recipe argument', key, sorted(defaults))
    text = text if has_value else 'true'
    result[key] = _parse_value(key, text, defaults[key])
  return result


def _parse_value(key, text, default):
  if isinstance(default, bool):
    if text.lower() not in ('true', 'false'):
      raise errors.UserError(f'recipe argument "{key}" is true or false, not "{text}"')
    return text.lower() == 'true'
  try:
    return type(default)(text)
  except ValueError:
    raise errors.UserError(
      f'recipe argument "{key}" wants {type(default).__name__}, not "{text}"'
    ) from None


def check_choice(key: str, value: str, known: Iterable[str]) -> None:
  """Raises errors.UserError unless a recipe's argument is a known one."""
  if value not in known:
    raise errors.unknown(key, value, known)


def set_utk_protocol(config, protocol: str) -> None:
  """Sets the splits of an UTKFace protocol.

  Args:
    config: changed in place.
    protocol: `seed5k` as the reports did it: train on 4/5 of 5,000 images,
      the curves show the rest, the last epoch is scored; `full`: train,
      validation and test by the published rule, the best epoch is scored.

  Raises:
    errors.UserError: another protocol.
  """
  check_choice('protocol', protocol, ('seed5k', 'full'))
  data = config.data
  data.name = 'utkface'
  if protocol == 'seed5k':
    data.train_split = 'seed5k_trainval'
    data.validation_split = data.test_split = data.eval_split = 'seed5k_test'
    data.calibration_split = 'rest_validation'
    config.train.select = 'last'


def set_adience_protocol(config, fold: int) -> None:
  """Sets one of Adience's five folds (Eidinger, Enbar & Hassner 2014).

  The fold is scored; of the other four some subjects are for validation.

  Args:
    config: changed in place.
    fold: 0 to 4.

  Raises:
    errors.UserError: another fold.
  """
  if not 0 <= fold < ADIENCE_FOLDS:
    raise errors.UserError(f'fold={fold}: the folds are 0 to 4')
  data = config.data
  data.name = 'adience'
  data.age_groups = 'adience'
  data.train_split = f'fold{fold}_train'
  data.validation_split = f'fold{fold}_validation'
  data.test_split = data.eval_split = f'fold{fold}'


def set_age_distribution(config, kind: str) -> None:
  """Sets what the recipes share that learn a distribution of age with a ResNet-18.

  Args:
    config: changed in place; images of 96 px, augmentation, head and optimizer.
    kind: of the age, one of tasks.DISTRIBUTIONS.
  """
  data = config.data
  data.image_size = 96
  data.normalize = 'imagenet'
  data.flip = True
  data.rotation = 10.0
  data.zoom = 0.15
  data.shift = 0.05
  data.brightness = data.contrast = 0.2
  data.erase = 0.25
  data.oversample = True  # Mirror images: better on validation.
  config.model.backbone = 'resnet18'
  config.model.branch = 'gap drop:0.2'
  config.tasks.age.kind = kind
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 2e-3
  config.optimizer.weight_decay = 0.05
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_epochs = 1.0
  config.train.batch_size = 128


def set_best_cnn(config) -> None:
  """Sets the CNN with batch norm that learns most at 64 px (docs/results.md).

  It follows `set_age_distribution`.
  """
  config.data.image_size = 64
  config.model.backbone = 'cnn'
  config.model.layers = (
    'conv:32 norm pool conv:64 norm conv:64 norm pool conv:128 norm conv:128 norm pool'
  )
  config.model.branch = 'conv:128 norm conv:128 norm pool flatten drop:0.5 dense:128'
  config.tasks.gender.weight = 4.0
  config.optimizer.weight_decay = 0.1
  config.train.ema_decay = 0.998


def set_run_local(config) -> None:
  """Shrinks a recipe to a check: 3 steps of 4 examples at 64 pixels."""
  config.data.image_size, config.data.crop_size = 64, 0
  config.train.batch_size = config.train.eval_batch_size = 4
  config.train.num_epochs, config.train.num_steps = 0.0, 3
  config.train.eval_every_epochs, config.train.eval_every_steps = 0.0, 3
  config.train.bootstrap_samples = 20


def set_target(config, target: str, age_kind: str) -> None:
  """Sets the tasks: `age`, `gender` or `both`, age being of `age_kind`."""
  check_choice('target', target, ('age', 'gender', 'both'))
  config.tasks.age.kind = '' if target == 'gender' else age_kind
  config.tasks.gender.kind = '' if target == 'age' else 'binary'


def check_flags(recipe: str, arguments: Iterable[str]) -> None:
  """Raises errors.UserError for a `--config.` flag that names no field of a recipe."""
  path, _, arg = recipe.partition(':')
  known = config_lib.flatten(load(path).get_config(arg))
  for argument in arguments:
    found = re.match(r'--?(no)?config\.([^=]*)(=?)', argument)
    if found and found[2] not in known:
      raise errors.UserError(
        f'no field config.{found[2]}{errors.nearest(found[2], known)}; '
        'agegender_jax/config.py lists them'
      )
    if found and found[1] and found[3]:
      raise errors.UserError(f'{argument}: a flag with "no" before it takes no value')
