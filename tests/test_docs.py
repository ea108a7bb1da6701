"""The documentation: short where it has to be, and without a broken link."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *ROOT.glob('docs/**/*.md')]


def test_the_readme_is_short_and_has_no_dates_or_commits():
  text = (ROOT / 'README.md').read_text()
  assert text.count('\n') <= 150
  assert not re.search(r'\b20\d\d-\d\d-\d\d\b|\bcommit [0-9a-f]{7}\b', text)


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(page):
  for target in re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', page.read_text()):
    assert (page.parent / target).exists(), f'{page.name} links to {target}'


@pytest.mark.nightly
def test_the_pages_are_built_without_a_warning(tmp_path):
  pytest.importorskip('mkdocs', reason='needs pip install -e .[docs]')
  result = subprocess.run(
    [sys.executable, '-m', 'mkdocs', 'build', '--strict', f'--site-dir={tmp_path}'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
