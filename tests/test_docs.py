"""The documentation: short where it has to be, and without a broken link."""

import pathlib
import re
import subprocess
import sys
import typing

import faces_on_disk
import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from agegender_jax import config as config_lib
from agegender_jax import errors, models
from agegender_jax.data import datasets, labels, raw
from agegender_jax.data.datasets import base
from agegender_jax.models import layers

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


def blocks_of(title):
  """Returns the Python of a section of extending.md."""
  text = (ROOT / 'docs' / 'extending.md').read_text()
  part = text.split(f'## {title}\n')[1].split('\n## ')[0]
  return '\n'.join(re.findall(r'```python\n(.*?)```', part, re.S))


def test_the_data_set_of_the_pages_works(tmp_path, monkeypatch):
  names = {'base': base, 'raw': raw, 'labels': labels, '__name__': __name__}
  exec(blocks_of('A data set'), names)
  monkeypatch.setitem(datasets.DATASETS, 'toys', names['Toys'])
  rows = ['file,age,gender,state']
  (tmp_path / 'raw' / 'images').mkdir(parents=True)
  for row in range(40):
    name = f'images/{row:02}.jpg'
    (tmp_path / 'raw' / name).write_bytes(faces_on_disk.jpeg(row))
    rows.append(f'{name},{row},{"" if row else "f"},{"broken" if row > 37 else ""}')
  (tmp_path / 'raw' / 'toys.csv').write_text('\n'.join(rows))
  found = faces_on_disk.open_source(
    'toys', 'all', source_dir=str(tmp_path / 'raw'), data_dir=str(tmp_path / 'data')
  )
  assert sorted(found.labels['age']) == list(range(38))
  assert found.preparation['broken'] == 2
  assert found.preparation['unknown_gender'] == 37


def test_the_backbone_of_the_pages_works(monkeypatch):
  names = {'nn': nn, 'jnp': jnp, 'layers': layers, 'errors': errors, 'Any': typing.Any}
  exec(blocks_of('A backbone'), names)
  monkeypatch.setitem(models.BACKBONES, 'tiny', (names['Tiny'], ()))
  config = config_lib.default_config()
  config.model.backbone = 'tiny'
  model = models.create_model(config.model, {'age': 1})
  variables = models.init_variables(model, jax.random.key(0), 16)
  logits = model.apply(variables, jnp.zeros((2, 16, 16, 3)), train=False)
  assert logits['age'].shape == (2, 1)


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
