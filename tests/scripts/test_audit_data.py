import csv
import json
import pathlib
import re
import subprocess
import sys

import dirty_faces
import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run_script(*flags, **options):
  command = [sys.executable, str(ROOT / 'scripts' / 'audit_data.py'), *flags]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


def test_the_script_writes_a_page_that_needs_nothing_else(tmp_path):
  raw = tmp_path / 'raw'
  dirty_faces.write(raw)
  done = run_script(
    '--config=configs/utk_multibranch.py', f'--output={tmp_path}/out',
    f'--config.data.source_dir={raw}', f'--config.data.data_dir={tmp_path}',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  page = (tmp_path / 'out' / 'audit.html').read_text()
  assert 'Identical images, other labels' in page
  # One of the group, two of each pair.
  assert len(re.findall(r'<img src="data:image/jpeg;base64,', page)) == 5
  assert not re.search(r'(src|href)="(?!data:|#)', page)
  numbers = json.loads((tmp_path / 'out' / 'audit.json').read_text())
  assert numbers['counts']['contradicting_groups'] == 1
  with (tmp_path / 'out' / 'audit.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert sum(row['kind'] == 'identical' for row in rows) == 7
  assert not (tmp_path / 'utkface').exists()  # Nothing was prepared.


def test_an_output_that_cannot_be_written_is_said_first(tmp_path):
  dirty_faces.write(tmp_path / 'raw')
  (tmp_path / 'file').write_text('')
  done = run_script(
    '--config=configs/utk_multibranch.py', f'--output={tmp_path}/file',
    f'--config.data.source_dir={tmp_path}/raw',
  )  # fmt: skip
  assert (done.returncode, done.stderr.count('\n')) == (2, 1)
  assert 'file cannot be written (File exists): name another' in done.stderr


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--config.data.source_dir=/nowhere'], 'does not exist'),
    (['--config.data.name=utkfaces'], 'did you mean "utkface"'),
    (['--config.data.source=x'], 'did you mean "data.source_dir"'),
    (['--bits=100'], 'bits'),
    (['stray', '--config.data.source_dir=x'], 'unexpected argument "stray"'),
  ],
)
def test_what_can_be_mended_is_one_line(flags, words):
  done = run_script('--config=configs/utk_multibranch.py', *flags)
  assert done.returncode == 2
  assert words in done.stderr
  assert done.stderr.count('\n') == 1
