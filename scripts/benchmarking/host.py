"""What a process may use of the machine, and what it has used."""

import os
import pathlib
import resource
import sys


def peak_memory() -> float:
  """Returns the most memory that this process has held, GiB."""
  status = pathlib.Path('/proc/self/status')
  if status.exists():
    # Unlike ru_maxrss, it does not start from the parent process's peak.
    for line in status.read_text().splitlines():
      if line.startswith('VmHWM:'):
        return int(line.split()[1]) / 2**20
  unit = 2**30 if sys.platform == 'darwin' else 2**20
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def num_cores() -> int:
  """Returns how many cores this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # Linux.
    return len(os.sched_getaffinity(0))
  return os.cpu_count()
