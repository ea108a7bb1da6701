"""Sweeps: a recipe's list of settings, and the runs that they mean.

A recipe lists its sweeps by `sweep(add)`, which calls
`add(name_of_the_sweep, arg='...', **{'train.batch_size': 8, ...})` once per
setting: an argument of the recipe, fields of the configuration, or both.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Sequence

from absl import flags
from ml_collections import config_flags

from agegender_jax import config as config_lib
from agegender_jax import errors, files, recipes

RECORD = 'sweep.json'
# Flags that two calls of one sweep may give differently: none changes a score.
FREE_FLAGS = (
  'data.source_dir', 'data.data_dir', 'data.cache', 'data.num_workers',
  'train.eval_batch_size',
)  # fmt: skip
Settings = list[tuple[str, dict]]


@dataclasses.dataclass(frozen=True)
class Run:
  """One training of a sweep."""

  setting: str  # What distinguishes it; the repeats of a setting share it.
  fold: int | None  # Of the recipe's argument.
  seed: int  # `config.seed`.
  folder: str  # Below the sweep's.
  flags: tuple[str, ...]  # Of `main`, but for --workdir.
  error: str = ''  # Why it failed, the last line of its output.


def list_sweeps(module) -> dict[str, Settings]:
  """Returns a recipe's sweeps, by name, each a list of (argument, fields)."""
  sweeps: dict[str, Settings] = {}

  def add(name, arg='', **fields):
    sweeps.setdefault(name, []).append((arg, fields))

  if hasattr(module, 'sweep'):
    module.sweep(add)
  return sweeps


def create_runs(
  path: str, arg: str, settings: Settings, seeds: Sequence[int], given: Sequence[str]
) -> list[Run]:
  """Lists the runs of a sweep, seed by seed and setting by setting.

  Args:
    path: of the recipe.
    arg: argument that all runs get; where both name a key, a setting's own
      counts.
    settings: see `list_sweeps`.
    seeds: each repeats every setting.
    given: the user's own --config.FIELD=VALUE.

  Raises:
    errors.UserError: the user sets a field that the sweep sets.
  """
  own = {'seed'}.union(*(fields for _, fields in settings))
  for flag in given:
    if (name := _field(flag)) in own:
      way = '--seeds sets it' if name == 'seed' else 'the sweep sets it'
      raise errors.UserError(f'{flag}: {way}; leave the flag out')
  parts = [
    [*filter(None, own_arg.split(',')), *(f'{k}={v}' for k, v in fields.items())]
    for own_arg, fields in settings
  ]
  # What all settings share names none of them; a fold is a repeat.
  shared = set.intersection(*map(set, parts))
  runs = []
  for seed in seeds:
    for items, (own_arg, fields) in zip(parts, settings, strict=True):
      named = [x for x in items if x not in shared and not x.startswith('fold=')]
      setting = ' '.join(named) or pathlib.Path(path).stem
      whole_arg = ','.join(filter(None, (arg, own_arg)))
      folds = re.findall(r'\bfold=(\d+)', whole_arg)
      folder = re.sub(r'[^\w.=+-]+', '_', setting).replace('=_', '=').strip('_')
      run_flags = (
        f'--config={path}' + (f':{whole_arg}' if whole_arg else ''),
        *given,
        *(f'--config.{name}={value}' for name, value in fields.items()),
        f'--config.seed={seed}',
      )
      fold = int(folds[-1]) if folds else None
      folder += ('' if fold is None else f'_fold{fold}') + f'_seed{seed}'
      runs.append(Run(setting, fold, seed, folder, run_flags))
  return runs


def _field(flag: str) -> str:
  """Returns the field that --config.FIELD=VALUE or --noconfig.FIELD names."""
  return re.sub(r'^--(no)?config\.|=.*$', '', flag, flags=re.DOTALL)


def resolve(run: Run):
  """Returns a run's configuration, as main would parse it.

  Raises:
    errors.UserError: a flag that names no field, or no value of it.
  """
  values, argv = flags.FlagValues(), ['sweep', *run.flags]
  config_flags.DEFINE_config_file(
    'config', flag_values=values, lock_config=True, sys_argv=argv
  )
  try:
    recipes.check_flags(run.flags[0].removeprefix('--config='), run.flags)
    values(argv)
    config_lib.check_values(values.config)
    return values.config
  except (flags.Error, errors.UserError) as bad:
    text = ' '.join(str(bad).split())
    raise errors.UserError(f'{" ".join(run.flags)}: {text}') from None


def create_head(path: str, arg: str, sweep: str, given: Sequence[str]) -> dict:
  """Returns what all calls of a sweep have in common.

  Seeds, folds and FREE_FLAGS may differ from call to call.
  """
  items = [x for x in arg.split(',') if x and not x.startswith('fold=')]
  fixed = [flag for flag in given if _field(flag) not in FREE_FLAGS]
  return {'recipe': path, 'sweep': sweep, 'arg': sorted(items), 'flags': sorted(fixed)}


def write_record(folder: pathlib.Path, head: dict, runs: Iterable[Run]) -> None:
  """Writes sweep.json: which run lies where; those of earlier calls are kept.

  Raises:
    errors.UserError: the folder holds another sweep, or one with other flags.
  """
  path = folder / RECORD
  before, earlier = read_record(folder) if path.exists() else (head, [])
  if before != head:
    if not all(run.error for run in earlier):
      raise errors.UserError(
        f'{folder} holds {_describe(before)}, not {_describe(head)}: '
        'choose another --workdir'
      )
    earlier = []  # Nothing was trained with the other flags.
  rows = {run.folder: dataclasses.asdict(run) for run in [*earlier, *runs]}
  folder.mkdir(parents=True, exist_ok=True)
  content = {**head, 'runs': list(rows.values())}
  files.write_json(path, content)


def _describe(head):
  what = ' '.join([','.join(head['arg']), *head['flags']]).strip()
  return f'the sweep "{head["sweep"]}" of {head["recipe"]} with {what or "no flags"}'


def read_record(folder: pathlib.Path) -> tuple[dict, list[Run]]:
  """Reads sweep.json.

  Returns:
    The head, see `create_head`, and the runs.

  Raises:
    errors.UserError: the folder holds no sweep, or a broken record.
  """
  path = folder / RECORD
  try:
    record = json.loads(path.read_text())
    rows = record.pop('runs')
    if record.keys() != {'recipe', 'sweep', 'arg', 'flags'} or rows == {}:
      raise KeyError
    return record, [Run(**row | {'flags': tuple(row['flags'])}) for row in rows]
  except OSError:
    raise errors.UserError(
      f'no sweep in "{folder}": it holds no {RECORD}; name the --workdir of '
      'scripts/sweep.py'
    ) from None
  except (ValueError, TypeError, KeyError, AttributeError):
    raise errors.UserError(
      f'{path} is broken: delete it and start the sweep again, which leaves '
      'finished runs alone'
    ) from None
