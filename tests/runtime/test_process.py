"""What a process sets up once, seen from a process of its own."""

import os
import subprocess
import sys

import pytest

from agegender_jax.runtime import process

COUNT = """
from agegender_jax.runtime import process
process.divide_cpu(3)
import jax
print(jax.device_count())
"""


@pytest.mark.parametrize(
  'xla_flags, devices',
  [('', 3), ('--xla_force_host_platform_device_count=2', 2)],
)
def test_a_cpu_is_as_many_devices_as_asked(xla_flags, devices):
  result = subprocess.run(
    [sys.executable, '-c', COUNT],
    env={**os.environ, 'XLA_FLAGS': xla_flags},
    capture_output=True,
    text=True,
    check=True,
  )
  assert int(result.stdout) == devices


@pytest.mark.parametrize(
  'before, after',
  [
    (None, '--xla_gpu_exclude_nondeterministic_ops=true'),
    ('--a=1', '--a=1 --xla_gpu_exclude_nondeterministic_ops=true'),
    ('--xla_gpu_deterministic_ops=false', '--xla_gpu_deterministic_ops=false'),
  ],
)
def test_gpus_are_asked_for_the_same_bits(before, after, monkeypatch):
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  if before:
    monkeypatch.setenv('XLA_FLAGS', before)
  for _ in range(2):  # A process that another one of this package started.
    process.exclude_nondeterminism()
    assert os.environ['XLA_FLAGS'] == after


LOG = """
import logging
import sys
from absl import app
from agegender_jax.runtime import process
def main(_):
  process.set_up_logging()
  for path, level, text in [
    (process.__file__, logging.INFO, 'our note'),
    ('/agegender_jax/.venv/jax/bridge.py', logging.INFO, 'their note'),
    ('/agegender_jax/.venv/jax/bridge.py', logging.WARNING, 'their warning'),
  ]:
    for logger in (logging.getLogger('absl'), logging.getLogger('jax')):
      record = logger.makeRecord(logger.name, level, path, 1, text, (), None)
      logger.handle(record)
app.run(main)
"""


def test_the_log_has_our_notes_and_all_warnings():
  result = subprocess.run(
    [sys.executable, '-c', LOG], capture_output=True, text=True, check=True
  )
  assert result.stdout.splitlines() == ['our note'] * 2 + ['their warning'] * 2
  assert not result.stderr


@pytest.mark.parametrize(
  'backbone, batch_sizes, cores, expected',
  [
    ('cnn', [20, 128], 2, 2),
    ('cnn', [20, 128], 16, 2),  # Eight images or more per device.
    ('cnn', [64, 128], 4, 4),
    ('cnn', [30, 128], 3, 2),  # Three would not divide 128.
    ('cnn', [4, 4], 2, 1),
    ('vgg16', [128], 16, 16),
    ('resnet18', [64, 128], 16, 1),
  ],
)
def test_cpu_devices_follow_network_batch_and_cores(
  backbone, batch_sizes, cores, expected
):
  assert process.choose_cpu_devices(backbone, batch_sizes, cores) == expected


def test_an_absent_platform_is_an_error_in_words():
  code = 'from agegender_jax.runtime import process; process.check_platform()'
  result = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'JAX_PLATFORMS': 'cuda'},
    capture_output=True,
    text=True,
  )
  if not result.returncode:
    pytest.skip('there is a GPU')
  assert 'UserError: JAX finds no device of JAX_PLATFORMS=cuda' in result.stderr


def test_the_allocator_is_tuned_before_there_are_threads(tmp_path):
  code = """
import threading
from absl import app
from agegender_jax import main
threads = []
main.process.tune_malloc = lambda: threads.append(threading.active_count())
app.run = lambda *args, **options: threads.append(threading.active_count())
main.run()
print(threads)
"""
  result = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert result.stdout.split() == ['[1,', '2]']  # The second one is for signals.
