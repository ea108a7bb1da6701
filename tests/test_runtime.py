"""What a process sets up once, seen from a process of its own."""

import os
import subprocess
import sys

import pytest

COUNT = """
from agegender_jax import runtime
runtime.divide_cpu(3)
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
