"""Sweeps: a recipe's list of settings, and the runs that they mean.

A recipe lists its sweeps by `sweep(add)`, which calls
`add(name_of_the_sweep, arg='...', **{'train.batch_size': 8, ...})` once a
setting: an argument of the recipe, fields of the configuration, or both.
"""

import dataclasses
import json
import pathlib
import re

from absl import flags
from ml_collections import config_flags

from agegender_jax import config as config_lib
from agegender_jax import errors as errors_lib
from agegender_jax import files

RECORD = 'sweep.json'
# What main leaves last: with both, a run is finished.


# Flags in which the repeats of a setting may differ: none changes a score.
FREE_FLAGS = (
  'seed', 'data.source_dir', 'data.data_dir', 'data.cache',
  'data.num_workers', 'train.eval_batch_size',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Run:
  """One training of a sweep.

  Attributes:
    setting: what sets it apart; repeats of a setting share it.
    fold: of the recipe's argument, or None.
    seed: `config.seed`.
    folder: below the sweep's.
    flags: of `main`, but for --workdir.
  """

  setting: str
  fold: int | None
  seed: int
  folder: str
  flags: tuple[str, ...]


def list_sweeps(module) -> dict[str, list[tuple[str, dict]]]:
  """Returns a recipe's sweeps, by name, each a list of (argument, fields)."""
  sweeps = {}

  def add(name, arg='', **fields):
    sweeps.setdefault(name, []).append((arg, fields))

  if hasattr(module, 'sweep'):
    module.sweep(add)
  return sweeps


def create_runs(
  path: str, arg: str, settings: list, seeds: list[int], given: list[str]
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
    errors_lib.UserError: the user sets a field that the sweep sets.
  """
  own = {'seed'}.union(*(fields for _, fields in settings))
  for flag in given:
    name = re.match(r'--(?:no)?config\.([^=]*)', flag)[1]
    if name in own:
      way = '--seeds sets it' if name == 'seed' else 'the sweep sets it'
      raise errors_lib.UserError(f'{flag}: {way}; leave the flag out')
  parts = [
    [item for item in own_arg.split(',') if item]
    + [f'{name}={value}' for name, value in fields.items()]
    for own_arg, fields in settings
  ]
  # What all settings share tells none of them apart; a fold is a repeat.
  shared = set.intersection(*map(set, parts))
  recipe = pathlib.Path(path).stem
  names = [
    ' '.join(
      item
      for item in items
      if item not in shared and not re.fullmatch(r'fold=\d+', item)
    )
    or recipe
    for items in parts
  ]
  return [
    _create_run(path, ','.join(filter(None, (arg, own_arg))), name, seed,
                given, fields)
    for seed in seeds
    for name, (own_arg, fields) in zip(names, settings, strict=True)
  ]  # fmt: skip


def _create_run(path, arg, setting, seed, given, fields):
  """Returns the Run of a setting's full argument and fields."""
  folds = re.findall(r'(?:^|,)fold=(\d+)', arg)
  folder = re.sub(r'[^\w.=+-]+', '_', setting).replace('=_', '=').strip('_')
  return Run(
    setting=setting,
    fold=int(folds[-1]) if folds else None,
    seed=seed,
    folder=folder + (f'_fold{folds[-1]}' if folds else '') + f'_seed{seed}',
    flags=(
      f'--config={path}' + (f':{arg}' if arg else ''),
      *given,
      *(f'--config.{name}={value}' for name, value in fields.items()),
      f'--config.seed={seed}',
    ),
  )


def resolve(run: Run):
  """Returns a run's configuration, as main would parse it.

  Raises:
    errors_lib.UserError: a flag that names no field, or no value of it.
  """
  values, argv = flags.FlagValues(), ['sweep', *run.flags]
  config_flags.DEFINE_config_file(
    'config', flag_values=values, lock_config=True, sys_argv=argv
  )
  try:
    values(argv)
    config_lib.check_values(values.config)
    return values.config
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as bad:
    text = ' '.join(str(bad).split())
    raise errors_lib.UserError(f'{" ".join(run.flags)}: {text}') from None


def check_repeats(folder: pathlib.Path, earlier: list, runs: list) -> None:
  """Raises errors_lib.UserError if settings go on with other flags than before.

  Args:
    folder: of the sweep.
    earlier: the record's rows.
    runs: of this call; those that it names again are checked on their own.
  """
  asked = {run.setting: _shared_flags(run.flags) for run in runs}
  again = {run.folder for run in runs}
  for row in earlier:
    before = _shared_flags(row['flags'])
    now = asked.get(row['setting'], before)
    if before != now and not row['error'] and row['folder'] not in again:
      was, is_ = (' '.join(sorted(x)) for x in (before - now, now - before))
      raise errors_lib.UserError(
        f'{folder / row["folder"]} has {was or "fewer flags"}, its setting is '
        f'now asked with {is_ or "fewer"}: choose another --workdir'
      )


def _shared_flags(flags) -> set[str]:
  """Returns the flags that all repeats of a setting have in common."""
  result = set()
  for flag in flags:
    name = re.match(r'--(?:no)?config\.?([^=]*)', flag)[1]
    if not name:  # The recipe: a fold of its argument is a repeat.
      path, _, arg = flag.partition(':')
      result |= {path, *re.split(r',|\bfold=\d+', arg)} - {''}
    elif name not in FREE_FLAGS:
      result.add(flag)
  return result


def write_record(folder: pathlib.Path, head: dict, runs: list, errors: dict):
  """Writes sweep.json: which run of which setting lies where.

  Args:
    folder: of the sweep.
    head: `recipe` and `sweep`.
    runs: of this call; those of earlier calls are kept.
    errors: folder -> the last line of a failed run.

  Raises:
    errors_lib.UserError: the folder holds another sweep, or runs of the same
      settings with other flags.
  """
  path = folder / RECORD
  earlier = read_record(folder) if path.exists() else head
  if any(earlier[key] != head[key] for key in head):
    raise errors_lib.UserError(
      f'{folder} holds the sweep "{earlier["sweep"]}" of {earlier["recipe"]}: '
      'choose another --workdir'
    )
  check_repeats(folder, earlier.get('runs', []), runs)
  rows = {
    run.folder: dataclasses.asdict(run) | {'error': errors.get(run.folder, '')}
    for run in runs
  }
  for row in earlier.get('runs', []):
    rows.setdefault(row['folder'], row)
  folder.mkdir(parents=True, exist_ok=True)
  content = {**head, 'runs': list(rows.values())}
  files.write_whole(path, json.dumps(content, indent=2) + '\n')


def read_record(folder: pathlib.Path) -> dict:
  """Reads sweep.json.

  Returns:
    `recipe`, `sweep`, and `runs`: Run's fields and `error`, a dict a run.

  Raises:
    errors_lib.UserError: the folder holds no sweep, or a broken record.
  """
  path = folder / RECORD
  try:
    record = json.loads(path.read_text())
  except OSError:
    raise errors_lib.UserError(
      f'no sweep in "{folder}": it holds no {RECORD}; name the --workdir of '
      'scripts/sweep.py'
    ) from None
  except ValueError:
    record = None
  if not _is_record(record):
    raise errors_lib.UserError(
      f'{path} is broken: delete it and start the sweep again, which leaves '
      'finished runs alone'
    )
  return record


def _is_record(value) -> bool:
  """Says whether a JSON value is what `write_record` writes."""
  keys = {field.name for field in dataclasses.fields(Run)} | {'error'}
  return (
    isinstance(value, dict)
    and {'recipe', 'sweep', 'runs'} <= value.keys()
    and isinstance(value['runs'], list)
    and all(isinstance(row, dict) and keys <= row.keys()
            for row in value['runs'])
  )  # fmt: skip
