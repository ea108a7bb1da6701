"""Starts a run of several processes on this machine, for a trial of many hosts.

  python scripts/launch_local.py --processes=2 -- --config=configs/quickstart.py

What stands after `--` are the usual flags. Each line that a process writes follows its
index, SIGTERM and SIGINT are passed on, and the status is the first one that is bad.
"""

import os
import signal
import socket
import subprocess
import sys
import threading

from agegender_jax import cli, errors
from agegender_jax.runtime import cluster
from agegender_jax.runtime import process as process_lib


def start(index: int, number: int, port: int, flags) -> subprocess.Popen:
  """Starts one of the processes on its share of the cores."""
  values = (f'127.0.0.1:{port}', str(number), str(index))
  variables = dict(zip(cluster.VARIABLES, values, strict=True))
  # Of XLA: those of one process, whatever the share, see runtime/process.py.
  threads = {'NPROC': str(process_lib.num_cores())}
  process = subprocess.Popen(
    [sys.executable, '-m', 'agegender_jax.main', *flags],
    env={**threads, **os.environ, **variables},
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,  # SIGINT of a terminal comes from here alone, and once.
  )
  if hasattr(os, 'sched_setaffinity'):  # Linux.
    cores = sorted(os.sched_getaffinity(0))
    share = cores[index::number] or [cores[index % len(cores)]]
    os.sched_setaffinity(process.pid, share)
  return process


def main(argv) -> int:
  """Runs all processes; returns the first bad status, 0 without one."""
  parser = cli.Parser(__doc__)
  parser.add_argument('--processes', type=int, default=2, help='how many')
  parser.add_argument('flags', nargs='*', help='of agegender_jax.main, after --')
  asked = parser.parse_args(argv)
  if asked.processes < 1:
    raise errors.UserError('--processes must be 1 or more')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  numbers = range(asked.processes)
  processes = [start(i, asked.processes, port, asked.flags) for i in numbers]

  def pass_on(number, frame):
    for process in processes:
      process.send_signal(number)

  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, pass_on)
  bad: list[int] = []

  def copy(index, stream, target):
    for line in stream:
      target.write(f'[{index}] {line}')
      target.flush()

  def follow(index, process):
    streams = ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
    threads = [threading.Thread(target=copy, args=(index, *pair)) for pair in streams]
    for thread in threads:
      thread.start()
    status = process.wait()
    for thread in threads:
      thread.join()
    if status:
      bad.append(status if status > 0 else 128 - status)

  followers = [
    threading.Thread(target=follow, args=pair) for pair in enumerate(processes)
  ]
  for thread in followers:
    thread.start()
  for thread in followers:
    thread.join()
  return bad[0] if bad else 0


if __name__ == '__main__':
  cli.run(main)
