"""What the import contracts in pyproject.toml cannot say of the files."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / 'agegender_jax'

FILES = sorted(
  path for path in PACKAGE.rglob('*.py') if path != PACKAGE / '__init__.py'
)

ROOT = PACKAGE.parent
COMMANDS = [
  *FILES, *ROOT.glob('configs/*.py'), *ROOT.glob('scripts/*.py')
]  # fmt: skip


def test_only_devices_names_the_axis():
  for path in FILES:
    if path.name in ('devices.py',):
      continue
    text = path.read_text()
    for word in (
      'jax.pmap',
      'lax.pmean',
      'lax.psum',
      'lax.axis_index',
      'lax.axis_size',
    ):
      assert word not in text, f'{word} in {path.name}'


@pytest.mark.parametrize(
  'path',
  COMMANDS,
  ids=lambda p: str(p.name),
)
def test_a_command_is_copied_from_the_source_as_from_the_help(path):
  text = path.read_text()
  assert ast.get_docstring(ast.parse(text), clean=False) in text


def test_there_is_no_utils():
  assert not [path for path in FILES if path.stem in ('utils', 'helpers')]
