"""Opens a split of one or several data sets, which it prepares once."""

import contextlib
import dataclasses
import functools
import io
import os
import shutil
from collections.abc import Callable

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from agegender_jax import errors, schema
from agegender_jax.data import datasets, duplicates, images
from agegender_jax.data import decoded_cache as cache_lib
from agegender_jax.data import labels as labels_lib
from agegender_jax.data.datasets import base

CACHES = ('memmap', 'none', 'device')
_INTERVAL = ('age_low', 'age_high')
# Attributes of a Source, [N] each.
_ARRAYS = ('hashes', 'conflicts')
_COMMON_COLUMNS = ('name', 'age', 'gender', 'hash', 'conflict', *_INTERVAL)


@dataclasses.dataclass
class Source:
  """A split with random access: labels in memory, pixels by row.

  Attributes:
    labels: the columns of schema.LABELS, [N] each. The group is that of the
      years, or of the interval where only that is known.
    names: of the images, by row; in a mixture after `<data set>/`.
    hashes: uint64 [N], see splits.difference_hash.
    conflicts: bool [N], whether an identical image of the data set has another
      age or gender.
    extras: further columns of the data, by row, codes by their names; in a
      mixture `data` is the data set.
    preparation: reason -> number of images, from preparing the data set.
    fingerprint: of the raw data.
    licence: the terms of the data set, of a mixture all of them.
    pixels: gathers uint8 [B, S, S, 3] by row of the whole split.
    kept: int64 [N], which rows of the whole split these are.
    sizes: of the data sets of a mixture, how many of the N rows each has.
  """

  labels: dict[str, np.ndarray]
  names: list[str]
  hashes: np.ndarray
  conflicts: np.ndarray
  extras: dict[str, list]
  preparation: dict[str, int]
  fingerprint: str
  licence: str
  pixels: cache_lib.Pixels
  kept: np.ndarray
  sizes: tuple[int, ...] = ()

  def __len__(self) -> int:
    return len(self.names)

  def gather(self, rows: np.ndarray) -> np.ndarray:
    """Returns the pixels of rows, int [B], as a fresh uint8 [B, S, S, 3]."""
    return self.pixels.gather(self.kept[rows])

  def take(self, rows: np.ndarray) -> 'Source':
    """Returns the source of some rows, int [M], ascending."""
    ends = np.cumsum(self.sizes)
    return dataclasses.replace(
      self,
      labels={key: values[rows] for key, values in self.labels.items()},
      names=[self.names[row] for row in rows],
      extras={k: [values[row] for row in rows] for k, values in self.extras.items()},
      **{name: getattr(self, name)[rows] for name in _ARRAYS},
      kept=self.kept[rows],
      sizes=tuple(np.diff(np.searchsorted(rows, ends), prepend=0).tolist()),
    )

  def without_duplicates_of(self, others: 'list[Source]') -> 'Source':
    """Leaves out images at most 3 bits of hash from one of other sources.

    Other crops of one photo have other hashes and stay. The number that is
    left out is logged and kept in `preparation`.
    """
    hashes = np.concatenate([other.hashes for other in others])
    near = duplicates.has_duplicate(self.hashes, hashes)
    text = '%d of %d training images are duplicates of scored ones and left out'
    logging.info(text, near.sum(), len(near))
    kept = self.take(np.flatnonzero(~near))
    kept.preparation = self.preparation | {'duplicates_of_scored': int(near.sum())}
    return kept


def create_source(data, split: str, builders: dict | None = None) -> Source:
  """Opens a split of a run's data, preparing them if needed.

  The split that is trained on, and it alone, lacks what `data.drop_conflicts`
  and `data.hold_out` leave out; a split that is also the validation or the
  test split keeps all, so that no score leaves any out.

  Args:
    data: the block `config.data`.
    split: name of the split.
    builders: kept between calls, see open_source.

  Raises:
    errors.UserError: unknown data set or split, or unusable raw data.
  """
  builders = {} if builders is None else builders
  open_one = functools.partial(open_source, data, builders)
  is_trained = split == data.train_split
  is_trained = is_trained and split not in (data.validation_split, data.test_split)
  drops = is_trained and data.drop_conflicts
  source = open_one(data.name, split, data.source_dir, drop_conflicts=drops)
  if not is_trained:
    return source
  folders = {n: at for n, _, at in split_names(data.name, '', data.source_dir)}
  folders[''] = data.source_dir
  scored = []
  for item in data.hold_out.split():
    name, _, held = item.partition(':')
    folder = folders.get(name, '')
    scored.append(open_one(name or data.name, held or 'test', folder))
  if source.sizes:
    for held in (data.validation_split, data.test_split):
      scored.append(open_one(data.name, held, data.source_dir))
  return source.without_duplicates_of(scored) if scored else source


def create_opener(data) -> Callable[[str], Source]:
  """Returns `create_source` of a split's name; each is opened once.

  All share their builders, so that the raw data are looked at once.
  """
  return functools.cache(functools.partial(create_source, data, builders={}))


def open_source(
  data,
  builders: dict,
  name: str,
  split: str,
  source_dir: str,
  drop_conflicts: bool = False,
) -> Source:
  """Opens a split of a data set, or of several joined by `+`.

  Args:
    data: the block `config.data`, but for what follows.
    builders: kept between calls: the raw data are looked at once for all of their
      splits.
    name: key of datasets.DATASETS, or several.
    split: public name of a split of that data set; of several one for all, or
      one each joined by `+`.
    source_dir: the raw data as their owners distribute them; of several one
      each joined by `:`.
    drop_conflicts: leave out images that an identical one contradicts.

  Raises:
    errors.UserError: what the user can correct.
  """
  for what, key, known in (
    ('config.data.cache', data.cache, CACHES),
    ('config.data.age_groups', data.age_groups, schema.AGE_GROUPS),
    ('config.data.filter', data.filter, images.FILTERS),
  ):
    if key not in known:
      raise errors.unknown(what, key, sorted(known))
  images.check_size(data.image_size, data.crop)
  parts = []
  for each, part, folder in split_names(name, split, source_dir):
    if (each, folder) not in builders:
      builders[each, folder] = prepared_builder(data, each, part, folder)
    source = _open(data, builders[each, folder], part)
    if drop_conflicts:
      count = source.conflicts.sum()
      logging.info('%s: %d contradictory images left out', part, count)
      source = source.take(np.flatnonzero(~source.conflicts))
    parts.append(source)
  return parts[0] if len(parts) == 1 else _join(name.split('+'), parts)


def split_names(name: str, split: str, source_dir: str) -> list[tuple[str, str, str]]:
  """Returns (data set, split, source_dir) of each data set of a mixture.

  Raises:
    errors.UserError: the numbers of names differ, or one is there twice.
  """
  names = name.split('+')
  if len(names) == 1:
    return [(name, split, source_dir)]
  twice = [each for each in names if names.count(each) > 1]
  if twice:
    raise errors.UserError(
      f'data.name = "{name}" names {twice[0]} twice: join their data into one'
    )
  columns = []
  fields = ('split', split, '+'), ('source_dir', source_dir, os.pathsep)
  for field, text, mark in fields:
    texts = text.split(mark)
    if not text or (field == 'split' and len(texts) == 1):
      texts = [text] * len(names)
    if len(texts) != len(names):
      raise errors.UserError(
        f'data.name = "{name}" mixes {len(names)} data sets, but {field} names '
        f'{len(texts)}: give one each, joined by "{mark}"'
      )
    columns.append(texts)
  return list(zip(names, *columns, strict=True))


def create_builders(data) -> list[base.FaceBuilder]:
  """Creates the builders of the raw data that `config.data` names.

  Nothing is prepared. A `builder_config.name` is the data's fingerprint.

  Raises:
    errors.UserError: unknown data set, or absent raw data.
  """
  return [
    datasets.create_builder(data, name, source_dir)
    for name, _, source_dir in split_names(data.name, '', data.source_dir)
  ]


def find_fingerprint(data) -> str:
  """Returns the fingerprint of the raw data that `config.data` names."""
  return '+'.join(builder.builder_config.name for builder in create_builders(data))


def prepared_builder(data, name: str, split: str, source_dir: str) -> base.FaceBuilder:
  """Returns the builder of a data set, which it prepares if need be.

  The name of the split is checked before the long work.
  """
  builder = datasets.create_builder(data, name, source_dir)
  _check_split(builder, split)
  # TFDS renames the folder into place when all is written.
  if not cache_lib.is_whole(builder.data_path):
    with cache_lib.exclusive(builder.data_path):
      # Another process may have prepared it while this one waited.
      if not cache_lib.is_whole(builder.data_path):
        shutil.rmtree(builder.data_path, ignore_errors=True)  # Damaged.
        _prepare(datasets.create_builder(data, name, source_dir))
    builder = datasets.create_builder(data, name, source_dir)
  summary = builder.info.metadata['labels']
  builder.check_labels(summary)
  for line in labels_lib.describe(summary):
    logging.info('%s: labels of %s', builder.name, line)
  return builder


def _prepare(builder):
  for leftover in builder.data_path.parent.glob('incomplete.*'):
    shutil.rmtree(leftover)  # Of a run that was killed.
  tfds.disable_progress_bar()
  # TFDS prints what it would download; the builder's bar says enough.
  with contextlib.redirect_stdout(io.StringIO()):
    try:
      builder.download_and_prepare()
    except OSError as error:  # A full disk, or one that is read-only.
      raise errors.UserError(
        f'{builder.name} cannot be prepared in {builder.data_path}: {error}; '
        'choose another config.data.data_dir'
      ) from None
  cache_lib.seal(builder.data_path)


def _check_split(builder, split):
  if split not in builder.SPLITS:
    raise errors.unknown(f'split of {builder.name}', split, sorted(builder.SPLITS))


def _open(data, builder, split):
  _check_split(builder, split)
  view = data.image_size, data.crop, data.filter
  atoms = base.atoms_of(split, builder.SPLITS[split], builder.info.splits)
  decoders = {'image': tfds.decode.SkipDecoding()}
  records = [builder.as_data_source(atom, decoders=decoders) for atom in atoms]
  folder = builder.data_path / 'cache'
  columns = {}
  for atom, part in zip(atoms, records, strict=True):
    for key, values in cache_lib.read_columns(folder / f'{atom}.json', part).items():
      columns.setdefault(key, []).extend(values)
  if data.cache == 'none':
    pixels = cache_lib.RecordPixels(records, *view)
  else:
    key = f'{view[0]}px_crop{view[1]:g}{view[2]}_v{images.VERSION}'
    paths = [folder / key / f'{atom}.npy' for atom in atoms]
    for path, part in zip(paths, records, strict=True):
      cache_lib.write_pixels(path, part, *view)
    pixels = cache_lib.MemmapPixels(paths)
  age = np.asarray(columns['age'], np.float32)
  unknown = np.full(len(age), schema.UNKNOWN)
  intervals = [np.asarray(columns.get(key, unknown)) for key in _INTERVAL]
  age_low, age_high = schema.years_of_label(age, np.stack(intervals, axis=-1))
  metadata = dict(builder.info.metadata)
  del metadata['labels']
  return Source(
    labels={
      'age': age,
      'age_low': age_low,
      'age_high': age_high,
      'age_group': schema.group_of_interval(
        *(np.where(age == schema.UNKNOWN, end, age) for end in intervals),
        data.age_groups,
      ),
      'gender': np.asarray(columns['gender'], np.int32),
    },
    names=columns['name'],
    hashes=np.array([int(text, 16) for text in columns['hash']], np.uint64),
    conflicts=np.asarray(columns['conflict'], bool),
    extras={
      key: [builder.VALUE_NAMES.get(key, {}).get(v, v) for v in values]
      for key, values in columns.items()
      if key not in _COMMON_COLUMNS
    },
    preparation=metadata,
    fingerprint=builder.builder_config.name,
    licence=builder.licence,
    pixels=pixels,
    kept=np.arange(len(age)),
  )


def _join(names, parts):
  """Returns the rows of several data sets, one after the other."""
  whole = [len(part.pixels) for part in parts]
  starts = np.cumsum([0, *whole[:-1]])
  columns = sorted({key for part in parts for key in part.extras})
  return Source(
    labels={
      key: np.concatenate([part.labels[key] for part in parts])
      for key in parts[0].labels
    },
    names=[
      f'{n}/{image}' for n, p in zip(names, parts, strict=True) for image in p.names
    ],
    **{n: np.concatenate([getattr(part, n) for part in parts]) for n in _ARRAYS},
    extras={'data': np.repeat(names, [len(part) for part in parts]).tolist()}
    | {
      key: [v for part in parts for v in part.extras.get(key, [''] * len(part))]
      for key in columns
    },
    preparation={
      f'{name} {reason}': count
      for name, part in zip(names, parts, strict=True)
      for reason, count in part.preparation.items()
    },
    fingerprint='+'.join(part.fingerprint for part in parts),
    licence='; '.join(
      f'{name}: {part.licence}' for name, part in zip(names, parts, strict=True)
    ),
    pixels=type(parts[0].pixels).join([part.pixels for part in parts]),
    kept=np.concatenate(
      [start + part.kept for start, part in zip(starts, parts, strict=True)]
    ),
    sizes=tuple(len(part) for part in parts),
  )
