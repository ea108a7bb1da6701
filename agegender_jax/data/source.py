"""Opens a split of a data set, preparing it first where that is needed."""

import contextlib
import dataclasses
import io
import os
import pathlib
import shutil

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from agegender_jax import errors, schema
from agegender_jax.data import decoded_cache as cache_lib
from agegender_jax.data import images
from agegender_jax.data.datasets import (
  adience,
  celeb_a,
  common,
  fairface,
  folder,
  imdb_wiki,
  synthetic,
  utkface,
)

# Name in config.data.name -> creates the TFDS builder.
SOURCES = {
  'adience': adience.create_builder,
  'celeb_a': celeb_a.create_builder,
  'fairface': fairface.create_builder,
  'folder': folder.create_builder,
  'imdb_wiki': imdb_wiki.create_builder,
  'synthetic': synthetic.create_builder,
  'utkface': utkface.create_builder,
}
CACHES = ('memmap', 'none', 'device')
_INTERVAL = ('age_low', 'age_high')
_COMMON_COLUMNS = ('name', 'age', 'gender', 'hash', 'conflict', *_INTERVAL)


@dataclasses.dataclass
class Source:
  """A split with random access: labels in memory, pixels by row.

  Attributes:
    labels: the columns of schema.LABELS, [N] each. The group is that of the
      years, or of the interval where only that is known.
    names: of the pictures, by row.
    hashes: uint64 [N], see splits.difference_hash.
    intervals: int32 [N, 2], first and last year of an age that is given as a
      group; UNKNOWN elsewhere.
    conflicts: bool [N], whether an identical picture of the data set has
      another age or gender.
    extras: further columns of the data, by row, codes by their names.
    preparation: reason -> number of pictures, from preparing the data set.
    fingerprint: of the raw data.
    licence: the terms of the data set.
    pixels: gathers uint8 [B, S, S, 3] by row of the whole split.
    kept: int64 [N], which rows of the whole split these are.
  """

  labels: dict[str, np.ndarray]
  names: list[str]
  hashes: np.ndarray
  intervals: np.ndarray
  conflicts: np.ndarray
  extras: dict[str, list]
  preparation: dict[str, int]
  fingerprint: str
  licence: str
  pixels: cache_lib.MemmapPixels | cache_lib.RecordPixels
  kept: np.ndarray

  def __len__(self) -> int:
    return len(self.names)

  def gather(self, rows: np.ndarray) -> np.ndarray:
    """Returns the pixels of rows, int [B], as a fresh uint8 [B, S, S, 3]."""
    return self.pixels.gather(self.kept[rows])


def open_source(
  name: str,
  split: str,
  *,
  source_dir: str = '',
  data_dir: str = '',
  image_size: int = 128,
  crop: float = 0.0,
  filter_name: str = '',
  cache: str = 'memmap',
  age_groups: str = 'adience',
  drop_conflicts: bool = False,
  synthetic_examples: int = 6000,
  synthetic_seed: int = 0,
) -> Source:
  """Opens a split of a data set.

  Args:
    name: key of SOURCES.
    split: public name of a split of that data set.
    source_dir: the raw data as their owners distribute them.
    data_dir: of prepared data; '' = $TFDS_DATA_DIR, then TFDS's own.
    image_size: height and width, pixels.
    crop: fraction of the side cut from each edge before resizing.
    filter_name: key of images.FILTERS.
    cache: none (decode every time); else decode once, to disk.
    age_groups: key of schema.AGE_GROUPS.
    drop_conflicts: leave out pictures that an identical one contradicts.
    synthetic_examples: faces that `synthetic` draws.
    synthetic_seed: of the drawing.

  Raises:
    errors.UserError: something of this that the user can mend.
  """
  _check_known('config.data.cache', cache, CACHES)
  _check_known('config.data.age_groups', age_groups, schema.AGE_GROUPS)
  _check_known('config.data.filter', filter_name, images.FILTERS)
  images.check_size(image_size, crop)
  builder = prepared_builder(
    name,
    split,
    source_dir=source_dir,
    data_dir=data_dir,
    num_examples=synthetic_examples,
    seed=synthetic_seed,
  )
  atoms = common.atoms_of(split, builder.SPLITS[split], builder.info.splits)
  records = [_records(builder, atom) for atom in atoms]
  cache_dir = builder.data_path / 'cache'
  columns = {}
  for atom, part in zip(atoms, records, strict=True):
    path = cache_dir / f'{atom}.json'
    for key, values in cache_lib.read_columns(path, part).items():
      columns.setdefault(key, []).extend(values)
  if cache != 'none':
    key = f'{image_size}px_crop{crop:g}{filter_name}_v{images.VERSION}'
    paths = [cache_dir / key / f'{atom}.npy' for atom in atoms]
    pixels = cache_lib.decode_once(paths, records, image_size, crop, filter_name)
  else:
    pixels = cache_lib.RecordPixels(records, image_size, crop, filter_name)
  kept = np.arange(len(columns['name']))
  if drop_conflicts:
    kept = kept[np.asarray(columns['conflict']) == 0]
    dropped = len(columns['name']) - len(kept)
    logging.info('%s: %d contradictory pictures left out', split, dropped)
    columns = {k: [v[row] for row in kept] for k, v in columns.items()}
  return _create_source(builder, columns, pixels, kept, age_groups)


def create_builder(data) -> tfds.core.DatasetBuilder:
  """Creates the builder of the raw data that `config.data` names.

  Nothing is prepared. Its `builder_config.name` is the data's fingerprint.

  Raises:
    errors.UserError: unknown data set, or absent raw data.
  """
  return _create_builder(
    data.name,
    source_dir=data.source_dir,
    data_dir=data.data_dir,
    num_examples=data.synthetic_examples,
    seed=data.synthetic_seed,
  )


def prepared_builder(name: str, split: str, **options) -> tfds.core.DatasetBuilder:
  """Returns the builder of a data set, which it prepares if need be.

  Args:
    name: key of SOURCES.
    split: public name of a split, checked before the long work.
    **options: of the builders' `create_builder`.
  """
  builder = _create_builder(name, **options)
  _check_known(f'split of {name}', split, builder.SPLITS)
  # TFDS renames the folder into place when all is written.
  if builder.data_path.exists():
    return builder
  with cache_lib.exclusive(builder.data_path):
    # Another process may have prepared it while this one waited.
    builder = _create_builder(name, **options)
    if not builder.data_path.exists():
      for leftover in builder.data_path.parent.glob('incomplete.*'):
        shutil.rmtree(leftover)  # Of a run that was killed.
      tfds.disable_progress_bar()
      # TFDS prints what it would download; the builder's bar says enough.
      with contextlib.redirect_stdout(io.StringIO()):
        try:
          builder.download_and_prepare()
        except OSError as error:  # A full disk, or one that is read-only.
          raise errors.UserError(
            f'{name} cannot be prepared in {builder.data_path}: {error}; '
            'choose another config.data.data_dir'
          ) from None
  return builder


def find_source_dir(name: str, source_dir: str) -> str:
  """Returns where the raw data of a data set lie, '' where no place is known.

  That is `source_dir`, else $AGEGENDER_DATA/<name>, else data/<name>.
  """
  if source_dir:
    return source_dir
  root = os.environ.get('AGEGENDER_DATA')
  places = [pathlib.Path(root, name)] if root else []
  places.append(pathlib.Path('data', name))
  return next((str(path) for path in places if path.expanduser().exists()), '')


def _create_builder(name, *, source_dir, data_dir, **options):
  _check_known('data set', name, SOURCES)
  data_dir = data_dir or os.environ.get('TFDS_DATA_DIR') or ''
  return SOURCES[name](
    source_dir=find_source_dir(name, source_dir),
    data_dir=os.path.expanduser(data_dir) or None,
    **options,
  )


def _create_source(builder, columns, pixels, kept, age_groups):
  age = np.asarray(columns['age'], np.float32)
  unknown = np.full(len(kept), schema.UNKNOWN)
  intervals = [np.asarray(columns.get(key, unknown)) for key in _INTERVAL]
  age_low, age_high = schema.years_of_label(age, np.stack(intervals, axis=-1))
  return Source(
    labels={
      'age': age,
      'age_low': age_low,
      'age_high': age_high,
      'age_group': np.where(
        age == schema.UNKNOWN,
        schema.group_of_interval(*intervals, age_groups),
        schema.group_of_label(age, age_groups),
      ),
      'gender': np.asarray(columns['gender'], np.int32),
    },
    names=columns['name'],
    hashes=np.array([int(text, 16) for text in columns['hash']], np.uint64),
    intervals=np.stack(intervals, axis=-1).astype(np.int32),
    conflicts=np.asarray(columns['conflict'], bool),
    extras={
      key: [builder.VALUE_NAMES.get(key, {}).get(v, v) for v in values]
      for key, values in columns.items()
      if key not in _COMMON_COLUMNS
    },
    preparation=dict(builder.info.metadata),
    fingerprint=builder.builder_config.name,
    licence=builder.LICENCE,
    pixels=pixels,
    kept=kept,
  )


def _records(builder, atom):
  decoders = {'image': tfds.decode.SkipDecoding()}
  return builder.as_data_source(atom, decoders=decoders)


def _check_known(what, key, known):
  if key not in known:
    raise errors.UserError(
      f'unknown {what} "{key}"{errors.nearest(key, known)}; '
      f'known: {", ".join(sorted(known))}'
    )
