"""CelebA (Liu, Luo, Wang & Tang 2015): gender only, as TFDS prepares it."""

import functools
import pathlib

import tensorflow_datasets as tfds

from agegender_jax import errors, schema
from agegender_jax.data import raw
from agegender_jax.data.datasets import base

_FORMAT = tfds.core.FileFormat.ARRAY_RECORD


class CelebA(base.FaceBuilder):
  """The owners' train, validation and test, apart by identity.

  TFDS keeps no file names: an image's name is its split and row there.
  """

  # Not celeb_a: TFDS's own set would lie in the same folder.
  name = 'celeb_a_faces'
  LICENCE = 'non-commercial research only; the copyright stays with the owners'
  HOMEPAGE = 'http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html'
  DESCRIPTION = 'CelebA, 202,599 aligned faces, with the attribute Male.'
  WANTED = (
    'let TFDS fetch img_align_celeba.zip and the lists of attributes and '
    f'partitions that the owners offer at {HOMEPAGE} for non-commercial '
    'research: python -c "import tensorflow_datasets as tfds; '
    "tfds.builder('celeb_a', file_format='array_record', data_dir='FOLDER')"
    '.download_and_prepare()", then --config.data.source_dir=FOLDER'
  )

  @classmethod
  def find_source(cls, data, source_dir, data_dir):
    root = pathlib.Path(source_dir or data_dir).expanduser()
    found = sorted(root.glob('celeb_a/*/dataset_info.json'))
    if not found:
      raise errors.UserError(f'"{root}" holds no celeb_a of TFDS; {cls.WANTED}')
    source = tfds.builder_from_directory(found[-1].parent)
    if source.info.file_format != _FORMAT:
      raise errors.UserError(
        f'"{found[-1].parent}" was prepared as '
        f'{source.info.file_format.value}, not as array_record; {cls.WANTED}'
      )
    name = raw.digest_rows(
      (str(source.version), split, info.num_examples, info.num_bytes)
      for split, info in source.info.splits.items()
    )
    return source, name

  def collect(self):
    found = base.Collected()
    for split in base.PARTS['all'].split('+'):
      records = self.source.as_data_source(
        split, decoders={'image': tfds.decode.SkipDecoding()}
      )
      for row in range(len(records)):
        is_male = bool(records[row]['attributes']['Male'])
        gender = schema.MALE if is_male else schema.FEMALE
        found.labels.add('gender', f'Male {is_male}', gender)
        found.examples.append(
          base.Example(
            f'{split}/{row:06d}',
            functools.partial(_read_image, records, row),
            gender=gender,
            owners_part=split,
          )
        )
    found.counts['images'] = len(found.examples)
    return found


def _read_image(records, row):
  return records[row]['image']
