"""The import order and the words that keep the house in order."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / 'agegender_jax'

# A file imports smaller ranks only; within models/, data/ and report/ see
# INSIDE.
RANKS = {
  'schema': 0, 'files': 0, 'config': 1, 'recipe': 1, 'runtime': 2,
  'losses': 2, 'pixels': 2, 'partition': 2, 'parallel': 2, 'writer': 2,
  'models': 2, 'data': 2, 'augment': 3, 'optimizers': 3, 'tasks': 3,
  'checkpoint': 3, 'durations': 4, 'metrics': 4, 'state': 4, 'steps': 5,
  'summary': 5, 'predictor': 6, 'build': 7, 'evaluate': 7, 'initialise': 7,
  'report': 7, 'predict': 8, 'train': 8, 'main': 9,
}  # fmt: skip
ROOMS = ('models', 'data', 'report')
FILES = sorted(
  path for path in PACKAGE.rglob('*.py') if path != PACKAGE / '__init__.py'
)


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
  [p for p in FILES if room_of(p) in ('data', 'report', 'config', 'schema')],
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
    for word in ('jax.pmap', 'lax.pmean', 'lax.psum', 'lax.axis_index'):
      assert word not in text, f'{word} in {path.name}'


def test_there_is_no_utils():
  assert not [path for path in FILES if path.stem in ('utils', 'helpers')]
