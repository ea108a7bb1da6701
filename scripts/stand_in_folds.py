r"""Lays out FairFace images as Adience's five folds: a stand-in, not Adience.

python scripts/stand_in_folds.py --source_dir=PATH_TO_FAIRFACE \
  --output=data/stand_in_folds

Adience's images are given out after registration only. This writes the files
and folders that its owners distribute, filled with FairFace's images, so that
the commands for the five folds run without it; with the owners' files the same
commands give the real figures.
"""

import hashlib
import os
import pathlib
import shutil

from agegender_jax import cli, errors, schema
from agegender_jax.data import labels, raw
from agegender_jax.data.datasets import adience, fairface

COLUMNS = (
  'user_id', 'original_image', 'face_id', 'age', 'gender', 'x', 'y', 'dx',
  'dy', 'tilt_ang', 'fiducial_yaw_angle', 'fiducial_score',
)  # fmt: skip
# An album per fold: a user is in one fold only.
ALBUMS = tuple(f'{10_000_000 + fold}@N00' for fold in range(adience.NUM_FOLDS))
# The first line is the licence that every run and page shows.
NOTICE = (
  schema.STAND_IN
  + """ made of FairFace, not Adience; CC BY 4.0

The layout of Adience's label files and faces/, filled with {count} images of
FairFace (Karkkainen & Joo 2021, CC BY 4.0) from its own train and val.

- Every image counts as a subject of its own and is put into one of the five
  folds by its name. The folds therefore do not keep real subjects apart, and
  the columns x to fiducial_score are made up.
- Ages are FairFace's groups, written as Adience writes its own, such as
  (20, 29). With --config.data.age_groups=fairface all nine are known; of
  Adience's eight groups the rule "covers at least half of the years" knows
  only the four that meet one of these.
- Scores on these folds say nothing about Adience. A network that was trained
  on FairFace has seen these images: start from another one.
"""
)


def write_folds(source: pathlib.Path, output: pathlib.Path, count: int) -> int:
  """Writes the label files and links (or copies) the images.

  Args:
    source: FairFace as its owners distribute it.
    output: folder to write.
    count: images, the first by the SHA-1 of their name; 0 = all.

  Returns:
    The images written.

  Raises:
    errors.UserError: no FairFace or no image of it there, or the folder is
      not empty or cannot be written.
  """
  if output.exists() and any(output.iterdir()):
    raise errors.UserError(f'--output={output} is not empty; name a new folder')
  tables = [source / name for name in fairface.FairFace.LABEL_FILES]
  if not all(path.is_file() for path in tables):
    raise errors.UserError(
      f'--source_dir={source} holds no FairFace; {fairface.FairFace.WANTED}'
    )
  rows = [
    row for path in tables for row in raw.read_table(path, fairface.COLUMNS, '')[1]
  ]
  found = [row for row in rows if (source / row['file']).is_file()]
  if not found:
    raise errors.UserError(
      f'--source_dir={source} holds none of the {len(rows)} images of its '
      f'label files; {fairface.FairFace.WANTED}'
    )
  cli.create_folder('--output', output)
  rows = sorted(found, key=_digest)[: count or None]
  folds = [['\t'.join(COLUMNS)] for _ in range(adience.NUM_FOLDS)]
  for number, row in enumerate(rows, 1):
    fold = int(_digest(row)[:8], 16) % adience.NUM_FOLDS
    user = ALBUMS[fold]
    image = row['file'].replace('/', '_')
    low, high = fairface.parse_age(row['age'])[0]
    age = 'None' if low == schema.UNKNOWN else f'({low}, {high})'
    gender = {schema.MALE: 'm', schema.FEMALE: 'f'}.get(
      labels.parse_gender(row['gender']), 'u'
    )
    folds[fold].append('\t'.join([user, image, str(number), age, gender, *'0' * 7]))
    place = output / f'faces/{user}/coarse_tilt_aligned_face.{number}.{image}'
    place.parent.mkdir(parents=True, exist_ok=True)
    _link(source / row['file'], place)
  for fold, lines in enumerate(folds):
    path = output / f'fold_{fold}_data.txt'
    path.write_text('\n'.join(lines) + '\n', 'utf-8')
  (output / raw.STAND_IN_FILE).write_text(NOTICE.format(count=len(rows)), 'utf-8')
  return len(rows)


def _digest(row):
  return hashlib.sha1(row['file'].encode()).hexdigest()


def _link(source, place):
  """Links a file, or copies it where the two lie on different disks."""
  try:
    os.link(source, place)
  except OSError:
    shutil.copyfile(source, place)


def main(argv: list[str]) -> None:
  """Parses the flags and writes the folds."""
  parser = cli.Parser(__doc__)
  parser.add_argument('--source_dir', type=pathlib.Path, required=True)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--examples', type=int, default=0, help='0 = all')
  values = parser.parse_args(argv)
  count = write_folds(values.source_dir, values.output, values.examples)
  print(f'{count} FairFace images as a stand-in for Adience: {values.output}')


if __name__ == '__main__':
  cli.run(main)
