r"""Audits a data set as its owners distribute it; nothing is prepared.

python scripts/audit_data.py --config=configs/utk_multibranch.py \
  --config.data.source_dir=PATH_TO_UTKFACE --output=audit/utkface

Writes audit.html (opens offline), audit.csv (a row per image and finding) and
audit.json (the counts). The page shows images of the data set: keep it as
the data set's terms say. UTKFace, 18,991 images: 12 s of processor time, 14
to 48 s on two cores that were busy otherwise.
"""

import csv
import io
import pathlib
import shlex
import sys
import time

from absl import app, flags
from ml_collections import config_flags

from agegender_jax import cli, errors, files, recipes
from agegender_jax import config as config_lib
from agegender_jax.data import labels, source
from agegender_jax.runtime import process
from agegender_jax.studies import audit as audit_lib
from agegender_jax.studies import audit_page

_CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
_OUTPUT = flags.DEFINE_string('output', 'audit', 'Folder to write.')
_BITS = flags.DEFINE_integer(
  'bits',
  3,
  'The most that the hashes of near-duplicates differ in.',
  lower_bound=0,
  upper_bound=16,
)


def write(audit, output: pathlib.Path, page: str) -> None:
  """Writes the three files into a folder."""
  stream = io.StringIO(newline='')
  table = csv.writer(stream, lineterminator='\n')
  table.writerow(audit_lib.Finding._fields)
  for row in audit_lib.table(audit):
    table.writerow([files.quote_cell(x) if isinstance(x, str) else x for x in row])
  numbers = audit_lib.numbers(audit)
  files.write_whole(output / 'audit.csv', stream.getvalue())
  files.write_json(output / 'audit.json', numbers)
  files.write_whole(output / 'audit.html', page)


def parse_flags(argv) -> list[str]:
  """Parses flags; what the user can correct is one line, status 2."""
  before = cli.Parser('', add_help=False)
  before.add_argument('-config', '--config', default='')
  try:
    values, others = before.parse_known_args(argv[1:])
    if values.config:
      recipes.check_flags(values.config, others)
    return flags.FLAGS(argv)
  except (flags.Error, errors.UserError) as error:
    cli.fail(error)


def _audit(builder, output):
  start = time.perf_counter()
  audit = audit_lib.audit(builder, _BITS.value)
  command = shlex.join(['python', *sys.argv])
  source_dir = _CONFIG.value.data.source_dir
  page = audit_page.render(audit, source_dir, command, _BITS.value)
  write(audit, output, page)
  for line in labels.describe(audit.labels):
    print(f'labels of {line}')
  for key, number in audit_lib.numbers(audit)['counts'].items():
    print(f'{key}: {number:,}')
  print(f'{output}/audit.html, {time.perf_counter() - start:.1f} s')


def main(argv) -> None:
  """Audits, writes, and prints the counts."""
  try:
    if argv[1:]:
      raise errors.UserError(f'unexpected argument "{argv[1]}"; see --help')
    if _CONFIG.value is None:
      raise errors.UserError('--config=configs/NAME.py is needed')
    config_lib.check_values(_CONFIG.value)
    process.set_up_logging()
    builders = source.create_builders(_CONFIG.value.data)
    # Checked before the long work.
    output = cli.create_folder('--output', _OUTPUT.value)
    for builder in builders:
      # Of a mixture each data set has its own folder.
      folder = output / builder.name if len(builders) > 1 else output
      _audit(builder, cli.create_folder('--output', folder))
  except (errors.UserError, OSError) as error:
    cli.fail(error)


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
