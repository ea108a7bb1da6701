"""What every test stands on: two CPU devices, strict shapes, one cache."""

import os

# Before jax looks at its devices. Most of a test's time is compiling: LLVM's
# first level halves it, what XLA itself makes of a program stays.
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '')
  + ' --xla_force_host_platform_device_count=2'
  + ' --xla_backend_optimization_level=1'
)
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR',
  os.path.join(os.path.dirname(__file__), '..', 'build', 'xla_cache'),
)

import pathlib

import jax
import pytest
from absl import flags

from agegender_jax.report import plots

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
# A core a worker: XLA's threads of two workers would wait for each other.
_WORKER = os.environ.get('PYTEST_XDIST_WORKER', '')
if _WORKER and hasattr(os, 'sched_setaffinity'):  # Linux.
  _CORES = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, {_CORES[int(_WORKER[2:]) % len(_CORES)]})
# Narrow vectors take off an eighth of compiling, and slow what is compiled:
# processes that tests start train longer than they compile, and get none.
_FLAGS = os.environ['XLA_FLAGS']
os.environ['XLA_FLAGS'] += ' --xla_cpu_prefer_vector_width=64'
jax.devices()
os.environ['XLA_FLAGS'] = _FLAGS
# Grain reads absl's flags, which only `main` parses.
flags.FLAGS.mark_as_parsed()

ROOT = pathlib.Path(__file__).parent.parent
# Files whose tests share something that takes long to make. They are begun
# first: an idle worker steals from the end, and would make it once more.
_FIRST = ('test_trainer', 'test_report_browser', 'test_report')


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: item.path.stem not in _FIRST)


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
  """The folder with real faces; tests that need it skip without it."""
  path = pathlib.Path(os.environ.get('AGEGENDER_SHARED', ROOT / '../shared'))
  if not (path / 'data').is_dir():
    pytest.skip(f'no real faces: {path} is absent (set AGEGENDER_SHARED)')
  return path.resolve()


@pytest.fixture
def no_figures(monkeypatch):
  """Leaves figures of a report empty: drawing them is most of a short run."""
  monkeypatch.setattr(plots.Figure, 'png', lambda _: b'')
