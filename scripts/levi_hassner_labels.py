r"""Counts the rows of Adience that the Levi-Hassner report's code mislabels.

python scripts/levi_hassner_labels.py --source_dir=PATH_TO_ADIENCE

The report's printed code knows the group (8, 13), which the owners' files write
(8, 12), and gives a row with any other age the age of the row before; a gender
other than `m` and `f` becomes female.
"""

import collections
import pathlib

from agegender_jax import cli, errors
from agegender_jax.data.datasets import adience

AGES = (
  '(0, 2)', '(4, 6)', '(8, 13)', '(15, 20)', '(25, 32)', '(38, 43)',
  '(48, 53)', '(60, 100)',
)  # fmt: skip


def count(folder: pathlib.Path) -> collections.Counter:
  """Counts rows, and the ages and genders among them that become others.

  Raises:
    errors.UserError: the label files are absent.
  """
  paths = [folder / name for name in adience.Adience.LABEL_FILES]
  if not all(path.is_file() for path in paths):
    raise errors.UserError(
      f'--source_dir={folder} holds no Adience; {adience.Adience.WANTED}'
    )
  rows, counts = adience.read_rows(paths)
  # A row that is cut short has neither.
  short = counts['short_row']
  return collections.Counter(
    rows=counts['label_rows'],
    mislabelled_age=short + sum(row['age'] not in AGES for row in rows),
    mislabelled_gender=short + sum(row['gender'] not in ('m', 'f') for row in rows),
  )


def main(argv: list[str]) -> None:
  """Parses the flags and prints the counts."""
  parser = cli.Parser(__doc__)
  parser.add_argument('--source_dir', type=pathlib.Path, required=True)
  for name, number in count(parser.parse_args(argv).source_dir).items():
    print(f'{name}: {number:,}')


if __name__ == '__main__':
  cli.run(main)
