"""CelebA (Liu, Luo, Wang & Tang 2015): gender only, as TFDS prepares it."""

import collections
import functools
import pathlib

import tensorflow_datasets as tfds

from agegender_jax import errors, schema
from agegender_jax.data.datasets import common, raw
from agegender_jax.data.datasets import examples as examples_lib

HOMEPAGE = 'http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html'
WANTED = (
  'let TFDS fetch img_align_celeba.zip and the lists of attributes and '
  f'partitions that the owners offer at {HOMEPAGE} for non-commercial '
  'research: python -c "import tensorflow_datasets as tfds; '
  "tfds.builder('celeb_a', file_format='array_record', data_dir='FOLDER')"
  '.download_and_prepare()", then --config.data.source_dir=FOLDER'
)
_FORMAT = tfds.core.FileFormat.ARRAY_RECORD


class CelebA(common.FaceBuilder):
  """The owners' train, validation and test, apart by identity.

  TFDS keeps no file names: a picture's name is its split and row there.
  """

  # Not celeb_a: TFDS's own set would lie in the same folder.
  name = 'celeb_a_faces'
  LICENCE = 'non-commercial research only; the copyright stays with the owners'
  HOMEPAGE = HOMEPAGE
  DESCRIPTION = 'CelebA, 202,599 aligned faces, with the attribute Male.'

  def collect(self):
    examples = []
    for split in common.PARTS['all'].split('+'):
      records = self.builder_config.source.as_data_source(
        split, decoders={'image': tfds.decode.SkipDecoding()}
      )
      for row in range(len(records)):
        is_male = records[row]['attributes']['Male']
        examples.append(
          examples_lib.Example(
            f'{split}/{row:06d}',
            functools.partial(_read_picture, records, row),
            gender=schema.MALE if is_male else schema.FEMALE,
          )
        )
    return examples, collections.Counter(pictures=len(examples))

  def split_examples(self, examples):
    groups = collections.defaultdict(list)
    for example in examples:
      groups[example.name.partition('/')[0]].append(example)
    return groups


def create_builder(
  source_dir: str, data_dir: str | None, **options
) -> tfds.core.DatasetBuilder:
  """Creates the builder of the data set that TFDS prepared.

  Args:
    source_dir: the folder in which TFDS prepared celeb_a; '' = data_dir.
    data_dir: where the prepared data go; None = TFDS's own.
    **options: those of other builders, not used.

  Raises:
    errors.UserError: it is not there, or not as array_record.
  """
  del options
  root = pathlib.Path(source_dir or data_dir or tfds.core.constants.DATA_DIR)
  found = sorted(root.expanduser().glob('celeb_a/*/dataset_info.json'))
  if not found:
    raise errors.UserError(f'"{root}" holds no celeb_a of TFDS; {WANTED}')
  source = tfds.builder_from_directory(found[-1].parent)
  if source.info.file_format != _FORMAT:
    raise errors.UserError(
      f'"{found[-1].parent}" was prepared as '
      f'{source.info.file_format.value}, not as array_record; {WANTED}'
    )
  name = raw.digest_rows(
    (str(source.version), split, info.num_examples, info.num_bytes)
    for split, info in source.info.splits.items()
  )
  config = common.SourceConfig(name=name, source=source)
  return CelebA(data_dir=data_dir, config=config, file_format='array_record')


def _read_picture(records, row):
  return records[row]['image']
