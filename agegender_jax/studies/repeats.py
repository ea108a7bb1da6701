"""The runs of sweeps by setting: what their repeats scored and took."""

import collections
import dataclasses
import math
import pathlib
import re
import statistics
import sys

import numpy as np

from agegender_jax import errors, schema, scoring
from agegender_jax.report import run as run_lib
from agegender_jax.scoring import bootstrap, metrics
from agegender_jax.studies import sweeps


@dataclasses.dataclass(frozen=True)
class Time:
  """A column of times, with what a metric says of its own column."""

  title: str
  unit: str
  decimals: int
  factor: int = 1


TIMES = {
  'batch_ms': Time('batch', 'ms', 0),
  'epoch_seconds': Time('epoch', 's', 1),
  'total_minutes': Time('training and evaluation', 'min', 1),
}


def scores() -> dict[str, metrics.Metric]:
  """Returns the metrics of a table of settings."""
  return {metric.name: metric for metric in scoring.headlines()}


def columns() -> dict[str, metrics.Metric | Time]:
  """Returns the columns of a table of settings."""
  return scores() | TIMES


@dataclasses.dataclass
class Setting:
  """The runs of one setting on one protocol."""

  name: str
  # What was scored, and by which groups; those of others share no table.
  protocol: str
  # (fold or None, seed) -> the run, finished ones only.
  runs: dict[tuple, run_lib.Run]
  planned: int = 0  # How many runs the sweeps list.

  def values(self, column: str) -> list[float]:
    """Returns a column of the runs that have it, in its table's unit."""
    found = [measure(run).get(column) for run in self.runs.values()]
    return [x * columns()[column].factor for x in found if x is not None]

  def repeats(self) -> str:
    """Returns what the runs repeat, such as `5 folds x 3 seeds (14 of 15)`."""
    folds = {fold for fold, _ in self.runs if fold is not None}
    seeds = {seed for _, seed in self.runs}
    parts = [(len(folds), 'fold')] if folds else []
    if len(seeds) > 1 or not folds:
      parts.append((len(seeds), 'seed'))
    text = ' x '.join(f'{n} {what}{"s" * (n > 1)}' for n, what in parts)
    if len(self.runs) < self.planned:
      text += f' ({len(self.runs)} of {self.planned} runs)'
    return text


def measure(run: run_lib.Run) -> dict[str, float]:
  """Returns a run's scores and times."""
  result = {key: run.scores.get(key) for key in scores()}
  logged = [row.get('train/images_per_second') for row in run.metrics]
  if rates := [rate for rate in logged if rate]:
    seconds = run.config['train']['batch_size'] / statistics.median(rates)
    result['batch_ms'] = 1000 * seconds
    last = run.metrics[-1]
    if last.get('epoch'):
      result['epoch_seconds'] = seconds * last['step'] / last['epoch']
  if run.info.get('seconds'):
    result['total_minutes'] = run.info['seconds'] / 60
  return result


def is_stand_in(run: run_lib.Run) -> bool:
  """Returns True if a run's data are only laid out as the set they name."""
  return (run.data.get('licence') or '').startswith(schema.STAND_IN)


def name_protocols(runs: list[run_lib.Run]) -> list[str]:
  """Names what each run was scored on.

  Where one split of a data set was scored by other age groups, or is of other
  data by their fingerprint, the names say so, and a line on stderr whose.

  Returns:
    A name per run; runs of one name are comparable.
  """
  places = collections.defaultdict(lambda: collections.defaultdict(list))
  facts = []
  for run in runs:
    # The folds of a cross-validation are one protocol.
    split = re.sub(r'^fold\d+', 'folds', run.test_split)
    data = run.data_name
    if is_stand_in(run):
      data = f'{schema.STAND_IN.upper()} FOR {data} (other images)'
    groups = run.config['data']['age_groups']
    part = f'groups of {groups}, data {run.data.get("fingerprint", "unknown")}'
    facts.append((f'{data}, {split}', part))
    places[facts[-1][0]][part].append(str(run.workdir))
  for name, parts in places.items():
    if len(parts) > 1:
      said = '; '.join(f'{k}: {", ".join(v)}' for k, v in parts.items())
      print(f'kept apart: {name}: {said}', file=sys.stderr)
  return [f'{name}, {part}' if len(places[name]) > 1 else name for name, part in facts]


def read_settings(folders: list[pathlib.Path]) -> list[Setting]:
  """Reads the finished runs of sweeps.

  Raises:
    errors.UserError: no sweep in a folder, or no finished run in any.
  """
  found, planned = [], collections.Counter()
  for folder in folders:
    for run in sweeps.read_record(folder)[1]:
      place = folder / run.folder
      planned[folder, run.setting] += 1
      if run.error or not (place / 'run.json').exists():
        why = run.error or 'not finished'
        print(f'left out: {place}: {why}', file=sys.stderr)
      else:
        found.append((folder, run, run_lib.Run(place)))
  settings, counted = {}, set()
  names = name_protocols([record for _, _, record in found])
  for protocol, (folder, run, record) in zip(names, found, strict=True):
    key = protocol, run.setting
    setting = settings.setdefault(key, Setting(run.setting, protocol, {}))
    if (run.fold, run.seed) in setting.runs:
      raise errors.UserError(
        f'two runs of "{run.setting}", fold {run.fold}, seed {run.seed}: '
        f'{record.workdir} is one; name the sweeps that differ'
      )
    setting.runs[run.fold, run.seed] = record
    if (folder, *key) not in counted:
      counted.add((folder, *key))
      setting.planned += planned[folder, run.setting]
  if not settings:
    raise errors.UserError(f'no run is finished in {", ".join(map(str, folders))}')
  return list(settings.values())


def spread(values: list[float]) -> float:
  """Returns the standard deviation (n - 1), NaN of fewer than two."""
  return statistics.stdev(values) if len(values) > 1 else math.nan


def image_scores(run: run_lib.Run) -> dict[str, dict]:
  """Returns metric -> {(split, name, label): value} of a run's images.

  A name that is not unique is left out.
  """
  table = run.predictions
  if not table:
    return {}
  names, counts = table['name'], collections.Counter(table['name'])
  result = {}
  for key, metric in scores().items():
    if view := metrics.view(table, metric):
      rows = zip(view.rows, view.columns[0], view.each(), strict=True)
      result[key] = {
        (run.test_split, names[row], float(label)): float(value)
        for row, label, value in rows
        if counts[names[row]] == 1 and np.isfinite(value)
      }
  return result


def paired(first: Setting, second: Setting) -> list[tuple]:
  """Compares two settings on the images that both scored.

  Returns:
    (metric, second minus first, low, high of its 95 % bootstrap interval over
    the images, number of images), in the table's unit.
  """
  differences = collections.defaultdict(lambda: collections.defaultdict(list))
  for repeat in first.runs.keys() & second.runs.keys():
    one, two = (image_scores(s.runs[repeat]) for s in (first, second))
    for key in one.keys() & two.keys():
      for image in one[key].keys() & two[key].keys():
        differences[key][image].append(two[key][image] - one[key][image])
  rows = []
  for key, metric in scores().items():
    if images := differences[key]:
      # Sorted, so that the resampling is the same each time.
      means = metric.factor * np.array(
        [np.mean(images[name]) for name in sorted(images)]
      )
      view = {key: lambda weights, x=means: x @ weights / weights.sum(axis=0)}
      value, samples = bootstrap.evaluate(view, len(means))[key]
      rows.append((metric, value, *bootstrap.bounds(samples), len(means)))
  return rows
