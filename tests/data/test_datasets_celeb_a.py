import io
import pathlib
import zipfile

import faces_on_disk
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from agegender_jax import errors, schema

PARTS = ('train', 'validation', 'test')
COUNTS = (6, 3, 4)


@pytest.fixture(scope='module')
def owners(tmp_path_factory):
  """The owners' files, as TFDS fetches them, of thirteen images."""
  folder = tmp_path_factory.mktemp('owners')
  builder = tfds.builder('celeb_a', data_dir=folder / 'unused')
  names = [f'{index:06d}.jpg' for index in range(1, sum(COUNTS) + 1)]
  with zipfile.ZipFile(folder / 'img_align_celeba', 'w') as archive:
    for index, name in enumerate(names):
      stream = io.BytesIO()
      small = Image.open(io.BytesIO(faces_on_disk.jpeg(index)))
      small.resize((178, 218)).save(stream, 'JPEG')
      archive.writestr(f'img_align_celeba/{name}', stream.getvalue())
  parts = np.repeat([0, 1, 2], COUNTS)
  lines = [f'{n} {part}' for n, part in zip(names, parts, strict=True)]
  (folder / 'list_eval_partition').write_text('\n'.join(lines) + '\n')
  lines = [f'{n} {row}' for row, n in enumerate(names)]
  (folder / 'identity_celeba').write_text('\n'.join(lines) + '\n')
  features = builder.info.features
  for file, key in (
    ('list_attr_celeba', 'attributes'), ('landmarks_celeba', 'landmarks'),
  ):  # fmt: skip
    columns = list(features[key])
    lines = [str(len(names)), ' '.join(columns)]
    for row, name in enumerate(names):
      # Every third one is male.
      values = [1 if c == 'Male' and row % 3 == 0 else -1 for c in columns]
      lines.append(' '.join(map(str, [name, *values])))
    (folder / file).write_text('\n'.join(lines) + '\n')
  return folder


@pytest.fixture(scope='module')
def prepared(owners, tmp_path_factory):
  """celeb_a prepared by TFDS's own code, but for the download."""
  folder = tmp_path_factory.mktemp('tfds')
  builder = tfds.builder('celeb_a', data_dir=folder, file_format='array_record')

  def download(manager, urls):
    return {key: owners / key for key in urls}

  def iter_archive(manager, path):
    with zipfile.ZipFile(path) as archive:
      for name in archive.namelist():
        yield name, archive.open(name)

  with pytest.MonkeyPatch.context() as patch:
    manager = tfds.download.DownloadManager
    patch.setattr(manager, 'download', download)
    patch.setattr(manager, 'iter_archive', iter_archive)
    patch.setattr(manager, 'download_checksums', None, raising=False)
    builder.download_and_prepare()
  return folder


def open_split(source_dir, data_dir, split='all'):
  return faces_on_disk.open_source(
    'celeb_a', split, source_dir=str(source_dir), data_dir=str(data_dir),
    image_size=8, cache='none',
  )  # fmt: skip


def test_splits_and_labels(prepared, owners, tmp_path):
  males = []
  for part, count in zip(PARTS, COUNTS, strict=True):
    source = open_split(prepared, tmp_path, part)
    assert source.names == [f'{part}/{row:06d}' for row in range(count)]
    assert (source.labels['age'] == schema.UNKNOWN).all()
    assert (source.labels['age_group'] == schema.UNKNOWN).all()
    males.append((source.labels['gender'] == schema.MALE).sum())
    assert set(np.unique(source.labels['gender'])) == {0, 1}
    assert source.extras == {}
  assert males == [2, 1, 2]
  source = open_split(prepared, tmp_path)
  assert len(source) == 13 and 'research' in source.licence
  assert source.preparation == {'images': 13, 'examples': 13}
  assert len(np.unique(source.gather(np.arange(13)), axis=0)) == 13
  # Beside what TFDS prepared, not instead.
  both = open_split(prepared, prepared)
  assert len(both) == 13 and (prepared / 'celeb_a_faces').is_dir()


@pytest.mark.parametrize('source_dir', ['', 'absent'])
def test_absent_data_say_how_to_prepare_them(source_dir, tmp_path):
  path = str(tmp_path / source_dir) if source_dir else ''
  with pytest.raises(errors.UserError, match='holds no celeb_a') as caught:
    open_split(path, tmp_path)
  for word in (
    'img_align_celeba.zip', 'mmlab.ie.cuhk.edu.hk', 'non-commercial',
    'download_and_prepare()',
  ):  # fmt: skip
    assert word in str(caught.value)
  assert '\n' not in str(caught.value)


def test_other_formats_are_named(prepared, tmp_path):
  info = next(pathlib.Path(prepared).glob('celeb_a/*/dataset_info.json'))
  version = tmp_path / 'celeb_a' / info.parent.name
  version.mkdir(parents=True)
  for path in info.parent.glob('*.json'):
    text = path.read_text().replace('array_record', 'tfrecord')
    (version / path.name).write_text(text)
  with pytest.raises(errors.UserError, match='as tfrecord, not as array_rec'):
    open_split(tmp_path, tmp_path)
