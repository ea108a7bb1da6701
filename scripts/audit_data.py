r"""Audits a data set as its owners distribute it; nothing is prepared.

python scripts/audit_data.py --config=configs/utk_multibranch.py \
  --config.data.source_dir=PATH_TO_UTKFACE --output=audit/utkface

Writes audit.html (opens offline), audit.csv (a row a picture and finding) and
audit.json (the counts). The page shows pictures of the data set: keep it as
the data set's terms say. UTKFace, 18,991 pictures: 12 s of processor time, 14
to 48 s on two cores that were busy otherwise.
"""

import csv
import dataclasses
import io
import json
import pathlib
import shlex
import sys
import time

from absl import app, flags
from ml_collections import config_flags

from agegender_jax import cli, errors, files
from agegender_jax import config as config_lib
from agegender_jax.data import source
from agegender_jax.runtime import process
from agegender_jax.studies import audit as audit_lib
from agegender_jax.studies import audit_page, findings

_CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
_OUTPUT = flags.DEFINE_string('output', 'audit', 'Folder to write.')
_BITS = flags.DEFINE_integer(
  'bits', 3, 'The most that the hashes of near-duplicates differ in.',
  lower_bound=0, upper_bound=16,
)  # fmt: skip


def write(audit, output: pathlib.Path, page: str) -> None:
  """Writes the three files into a folder."""
  stream = io.StringIO(newline='')
  table = csv.DictWriter(stream, findings.COLUMNS, lineterminator='\n')
  table.writeheader()
  table.writerows(map(dataclasses.asdict, findings.table(audit)))
  numbers = findings.numbers(audit)
  files.write_whole(output / 'audit.csv', stream.getvalue())
  files.write_whole(output / 'audit.json', json.dumps(numbers, indent=2) + '\n')
  files.write_whole(output / 'audit.html', page)


def parse_flags(argv) -> list[str]:
  """Parses flags; what the user can mend is one line, status 2."""
  try:
    return flags.FLAGS(argv)
  # ml_collections raises any of these for a field or a recipe that is none.
  except (flags.Error, errors.UserError, OSError, AttributeError, KeyError,
          TypeError, ValueError) as error:  # fmt: skip
    cli.fail(error)


def main(argv) -> None:
  """Audits, writes, and prints the counts."""
  try:
    if argv[1:]:
      raise errors.UserError(f'unexpected argument "{argv[1]}"; see --help')
    if _CONFIG.value is None:
      raise errors.UserError('--config=configs/NAME.py is needed')
    config_lib.check_values(_CONFIG.value)
    process.set_up_logging()
    data = _CONFIG.value.data
    start = time.perf_counter()
    builder = source.create_builders(data)
    # Said before the long work.
    output = cli.create_folder('--output', _OUTPUT.value)
    audit = audit_lib.audit(builder, _BITS.value)
    command = shlex.join(['python', *sys.argv])
    page = audit_page.render(audit, data.source_dir, command, _BITS.value)
    write(audit, output, page)
    for key, number in findings.numbers(audit)['counts'].items():
      print(f'{key}: {number:,}')
    print(f'{output}/audit.html, {time.perf_counter() - start:.1f} s')
  except (errors.UserError, OSError) as error:
    cli.fail(error)


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
