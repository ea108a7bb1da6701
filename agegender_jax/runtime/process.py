"""What a process sets up once: allocator, devices, compilation cache.

AGEGENDER_MALLOC=0 leaves the allocator alone, JAX_COMPILATION_CACHE_DIR='' keeps
no compiled program on disk, and a GPU takes all of its operations with
XLA_FLAGS=--xla_gpu_exclude_nondeterministic_ops=false.
"""

import contextlib
import ctypes
import logging
import multiprocessing
import os
import pathlib
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence

from absl import logging as absl_logging

from agegender_jax import config as config_lib
from agegender_jax import errors

# glibc's mallopt parameters, malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
# CPU devices that give the bits of one process, in however many they are; for more
# it would cost too many threads and bytes.
MOST_IN_ORDER = 8
_TEMPORARY: set[str] = set()  # Folders that `leave` removes.


def set_up(config, workdir: str = '', processes=None) -> None:
  """Does all that goes before a network: see the functions it calls.

  Args:
    config: the run's configuration.
    workdir: of a run that trains, which has one line of what was chosen; a
      resumed run takes the number of CPU devices that it began with.
    processes: see cluster.find.
  """
  train = config.train
  count = (
    train.cpu_devices or (workdir and config_lib.recorded(workdir, 'cpu_devices')) or 0
  )
  number = processes[1] if processes else 1
  # Before the others are waited for, which this would leave waiting.
  _check_cpu_devices(count, number or 1, train.eval_batch_size)
  if processes:
    from agegender_jax.runtime import hosts

    number = hosts.join(config.distributed, processes)
    _check_cpu_devices(count, number, train.eval_batch_size)
  count //= number
  if not count:
    batch_sizes = [train.eval_batch_size] + [train.batch_size] * bool(workdir)
    batch_sizes = [size // number for size in batch_sizes]
    count = choose_cpu_devices(config.model.backbone, batch_sizes, num_cores())
  divide_cpu(count)
  if processes and count * number <= MOST_IN_ORDER:
    # XLA divides its work among so many threads, and sums in that order: as many as a
    # process has that holds all devices alone.
    given = os.environ.get('NPROC', '')
    threads = int(given) if given.isdecimal() else num_cores()
    os.environ['NPROC'] = str(max(threads, count * number))
  exclude_nondeterminism()
  set_up_compilation_cache()
  check_platform()
  if processes:
    hosts.check_devices()
  if workdir:
    import jax

    devices = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
    devices += f' in {number} processes' if processes else ''
    print(f'devices: {devices}, {num_cores()} CPU cores', flush=True)


def _check_cpu_devices(count, number, eval_batch_size):
  """Raises errors.UserError unless so many devices fit the processes and a batch."""
  if count > eval_batch_size:
    raise errors.UserError(
      f'train.cpu_devices = {count} is more than train.eval_batch_size = '
      f'{eval_batch_size}: 0 chooses'
    )
  if count % number:
    raise errors.UserError(
      f'{count} CPU devices (train.cpu_devices, or those that the run began with) are '
      f'not a multiple of the {number} processes'
    )


def num_cores() -> int:
  """Returns the CPU cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # Linux.
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def peak_memory() -> int | None:
  """Returns the most bytes that this process has held, None outside of Linux."""
  status = pathlib.Path('/proc/self/status')
  # Of getrusage, a process's peak starts from that of the one that began it.
  text = status.read_text() if status.exists() else ''
  peak = re.search(r'VmHWM:\s*(\d+) kB', text)
  return int(peak[1]) * 1024 if peak else None


def choose_cpu_devices(backbone: str, batch_sizes: Sequence[int], cores: int) -> int:
  """Chooses for how many devices JAX takes a CPU.

  A ResNet's convolutions keep all cores busy on one device. Other networks
  spend much of a step in small operations, each of which runs on one core: as
  many devices as there are cores share those.

  Args:
    backbone: of the network.
    batch_sizes: each has to be a multiple of the number.
    cores: of the machine.

  Returns:
    The largest number of at most `cores` that divides the batches and leaves
    each device 8 images or more; 1 for a ResNet.
  """
  if backbone.startswith('resnet'):
    return 1
  return next(
    count
    for count in range(max(1, min(cores, min(batch_sizes) // 8)), 0, -1)
    if all(size % count == 0 for size in batch_sizes)
  )


def check_platform() -> None:
  """Raises errors.UserError where JAX_PLATFORMS names a device that is absent."""
  import jax

  try:
    jax.devices()
  except (RuntimeError, AssertionError):
    name = os.environ.get('JAX_PLATFORMS')
    if not name:
      raise
    raise errors.UserError(
      f'JAX finds no device of JAX_PLATFORMS={name}: install its plugin (CUDA: '
      "pip install -e '.[cuda]') or unset it"
    ) from None


def tune_malloc() -> bool:
  """Keeps freed memory in the process instead of giving it back each step.

  XLA on CPU frees its temporaries after each step; glibc returns large ones
  to the kernel and the next step pays a page fault for every 4 KiB of them.
  Costs resident memory: the peak is kept until the process ends. To be called
  before there are threads: one arena is all that is kept, and glibc lets later
  threads take any arena that an earlier one has made.

  Returns:
    True if the settings took effect.
  """
  if not sys.platform.startswith('linux'):
    return False
  if os.environ.get('AGEGENDER_MALLOC') == '0':
    return False
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except AttributeError:  # Another C library, such as musl.
    return False
  settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_ARENA_MAX, 1))
  return all(mallopt(name, value) == 1 for name, value in settings)


def divide_cpu(count: int) -> None:
  """Lets JAX take the CPU for `count` devices, before it has looked at any.

  Does nothing where XLA_FLAGS says how many.
  """
  if 'host_platform_device_count' in os.environ.get('XLA_FLAGS', ''):
    return
  import jax

  jax.config.update('jax_num_cpu_devices', count)


def exclude_nondeterminism() -> None:
  """Has GPUs take only operations that give the same bits every time.

  To be called before JAX looks at its devices. Does nothing where XLA_FLAGS
  says which operations to take.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  if 'deterministic' not in flags:
    flag = '--xla_gpu_exclude_nondeterministic_ops=true'
    os.environ['XLA_FLAGS'] = f'{flags} {flag}'.strip()


def set_up_compilation_cache() -> None:
  """Keeps compiled programs in the user's cache folder, as JAX does."""
  if 'JAX_COMPILATION_CACHE_DIR' in os.environ:
    return
  import jax

  home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  path = str(pathlib.Path(home) / 'agegender_jax' / 'xla')
  jax.config.update('jax_compilation_cache_dir', path)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


def set_up_logging() -> None:
  """Sends our notes and all warnings to stdout, the libraries' notes nowhere.

  What stops a run is one line on stderr, and nothing else is written there.
  """
  handler = absl_logging.get_absl_handler().python_handler
  handler.stream = sys.stdout
  handler.setFormatter(logging.Formatter('%(message)s'))
  package = str(pathlib.Path(__file__).parent.parent)

  def is_wanted(record):
    is_ours = record.pathname.startswith(package)
    return is_ours or record.levelno >= logging.WARNING

  handler.addFilter(is_wanted)


def leave(status: int, line: str) -> None:
  """Ends the process at once, from any thread, with one line on stderr.

  Nothing is finalised: no thread or destructor adds to the line.
  """
  for folder in tuple(_TEMPORARY):
    shutil.rmtree(folder, ignore_errors=True)
  for child in multiprocessing.active_children():
    child.kill()
  # The main thread may hold the lock of stdout, in a pipe that nobody reads.
  flush = threading.Thread(target=_flush_quietly, daemon=True)
  flush.start()
  flush.join(1)
  with contextlib.suppress(OSError):
    os.write(2, f'{errors.printable(line)}\n'.encode())
  os._exit(status)


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[str]:
  """Yields a new folder that is removed at the end, also by `leave`."""
  with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
    _TEMPORARY.add(folder)
    try:
      yield folder
    finally:
      _TEMPORARY.discard(folder)


def _flush_quietly():
  with contextlib.suppress(OSError, ValueError):
    flush_stdout()


def flush_stdout() -> None:
  """Flushes stdout now: at its end Python would add a traceback to a failure.

  Raises:
    OSError: it is a file on a full disk; a pipe that nobody reads is no error.
  """
  try:
    sys.stdout.flush()
  except OSError as error:
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115
    if not isinstance(error, BrokenPipeError):
      raise
