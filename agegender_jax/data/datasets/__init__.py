"""One data set per file, and the registry of them all.

A data set is a class: its raw data, labels, splits, terms and the reasons for
which it skips rows. Only `data.source` and the audit open one.
"""

import os
import pathlib

from agegender_jax import errors
from agegender_jax.data.datasets import (
  adience,
  base,
  celeb_a,
  fairface,
  folder,
  imdb_wiki,
  synthetic,
  utkface,
)

# Key of config.data.name -> class.
DATASETS: dict[str, type[base.FaceBuilder]] = {
  'adience': adience.Adience,
  'celeb_a': celeb_a.CelebA,
  'fairface': fairface.FairFace,
  'folder': folder.Folder,
  'imdb_wiki': imdb_wiki.ImdbWiki,
  'synthetic': synthetic.Synthetic,
  'utkface': utkface.UTKFace,
}


def create_builder(data, name: str, source_dir: str) -> base.FaceBuilder:
  """Creates the builder of a data set; nothing is prepared.

  Args:
    data: the block `config.data`, but for what follows.
    name: key of DATASETS.
    source_dir: the raw data; '' = $AGEGENDER_DATA/<name>, then data/<name>.

  Raises:
    errors.UserError: unknown data set, or unusable raw data.
  """
  if name not in DATASETS:
    raise errors.unknown('data set', name, sorted(DATASETS))
  if not source_dir and DATASETS[name].WANTED:
    places = [pathlib.Path('data', name)]
    if os.environ.get('AGEGENDER_DATA'):
      places.insert(0, pathlib.Path(os.environ['AGEGENDER_DATA'], name))
    source_dir = next(
      (str(place) for place in places if place.expanduser().exists()), ''
    )
  return DATASETS[name].create(data, source_dir)
