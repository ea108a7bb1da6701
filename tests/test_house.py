"""The import order and the words that keep the house in order."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / 'agegender_jax'

# A file imports smaller ranks only; within a room see its __init__.
RANKS = {
  'schema': 0, 'files': 0, 'config': 1, 'recipe': 1, 'scoring': 1,
  'programs': 1, 'command_line': 1,
  'runtime': 3, 'losses': 2, 'pixels': 2, 'partition': 2, 'parallel': 2,
  'writer': 2, 'sweeps': 2, 'models': 3, 'data': 2, 'calibration': 2,
  'augment': 3,
  'optimizers': 3, 'tasks': 3, 'checkpoint': 3, 'coverage': 3,
  'pictures': 3, 'flops': 4, 'feed': 3, 'saliency': 4, 'durations': 4,
  'progress': 3,
  'metrics': 4,
  'state': 4, 'results': 4, 'steps': 5,
  'summary': 5, 'predictor': 6, 'build': 7, 'initialise': 7, 'labelled': 7,
  'report': 7, 'held_out': 8, 'repeats': 8, 'evaluate': 9, 'predict': 9,
  'finish': 10,
  'train': 11, 'main': 12,
}  # fmt: skip
ROOMS = ('models', 'data', 'report', 'scoring')
ON_THE_HOST = ('data', 'report', 'scoring', 'config', 'schema')
FILES = sorted(
  path for path in PACKAGE.rglob('*.py') if path != PACKAGE / '__init__.py'
)

ROOT = PACKAGE.parent
COMMANDS = [
  *FILES, *ROOT.glob('configs/*.py'), *ROOT.glob('scripts/*.py')
]  # fmt: skip


def room_of(path):
  return path.relative_to(PACKAGE).with_suffix('').parts[0]


def imported(path):
  """Yields (room, submodule or None) of every import from the package."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module:
      parts = node.module.split('.')
      if parts[0] != 'agegender_jax':
        continue
      for alias in node.names:
        yield tuple([*parts[1:], alias.name][:2])
    elif isinstance(node, ast.Import):
      for alias in node.names:
        parts = alias.name.split('.')
        if parts[0] == 'agegender_jax' and len(parts) > 1:
          yield tuple(parts[1:3])


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.name))
def test_imports_go_down(path):
  room = room_of(path)
  for target in imported(path):
    if target[0] == room and room in ROOMS:
      continue
    assert RANKS[target[0]] < RANKS[room], (
      f'{path.name} imports {".".join(target)}, which is not below it'
    )


@pytest.mark.parametrize(
  'path',
  [p for p in FILES if room_of(p) in ON_THE_HOST],
  ids=lambda p: str(p.name),
)
def test_the_host_side_never_imports_jax(path):
  for node in ast.walk(ast.parse(path.read_text())):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [node.module or '']
    for name in names:
      assert name.split('.')[0] not in ('jax', 'flax', 'optax'), name


def test_only_parallel_names_the_axis():
  for path in FILES:
    if path.name in ('parallel.py',):
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
