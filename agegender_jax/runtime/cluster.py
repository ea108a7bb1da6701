"""Which processes a run has, and the parent that puts the end of one into a line.

When a process dies, JAX's client ends the others below Python, with pages of logs.
So each of many runs its work in a child, and reports how that ended.
"""

import contextlib
import os
import re
import signal
import tempfile
import threading

from agegender_jax import errors
from agegender_jax.runtime import process, stop

VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
AUTO = 'auto'
LOST = 3  # The status of a process that has lost another one.
_ADVICE = 'start all processes again to go on from the last checkpoint'
# A line of XLA's log, or of the stack that it prints.
_LOG_LINE = re.compile(r'[IWEF]\d{4} |\s*@ |\*\*\* |Fatal Python error|\s*$')
# Why JAX's client ended its process, and the index of the one that is lost.
_REASON = re.compile(r'JAX distributed service.* absl::Status: (.*(?:\n\d+$)?)', re.M)


def find(config) -> tuple[str, int, int] | None:
  """Finds the processes of a run in `config.distributed`, else in JAX's variables.

  Returns:
    The coordinator's address, the number of processes and the index of this one;
    (AUTO, 0, 0) where JAX is to find them; None for a run of one process.

  Raises:
    errors.UserError: one is missing or wrong.
  """
  if config.coordinator == AUTO:
    return AUTO, 0, 0
  address, number, index = (os.environ.get(name, '') for name in VARIABLES)
  address = config.coordinator or address
  if config.num_processes:
    number, index = str(config.num_processes), str(config.process_id)
  if not (address or number or index):
    return None
  is_whole = re.fullmatch(r'.+:\d+', address) and number.isdecimal()
  if not (is_whole and index.isdecimal() and int(index) < int(number)):
    raise errors.UserError(
      f'many processes need a coordinator HOST:PORT, their number and an index below '
      f'that, not "{address}", "{number}", "{index}": set coordinator, num_processes '
      f'and process_id of config.distributed, or {", ".join(VARIABLES)}, or none'
    )
  return (address, int(number), int(index)) if int(number) > 1 else None


def enter_child() -> None:
  """Goes on in a child; the parent waits for its end and never returns.

  To be called before JAX is imported. The child ends with the parent, which passes
  SIGTERM and SIGINT on.
  """
  said = tempfile.TemporaryFile()  # noqa: SIM115
  reader, writer = os.pipe()
  child = os.fork()
  if child:
    os.close(reader)
    _report(child, said)
  os.close(writer)
  os.setsid()  # SIGINT of a terminal comes from the parent alone, and once.
  os.dup2(said.fileno(), 2)
  threading.Thread(target=_end_with_parent, args=(reader,), daemon=True).start()
  stop.STOP.listen()


def _end_with_parent(reader):
  os.read(reader, 1)
  os._exit(LOST)


def _report(child, said):
  """Waits for the child and ends as it did."""

  def pass_on(number, frame):
    with contextlib.suppress(ProcessLookupError):
      os.kill(child, number)

  signal.set_wakeup_fd(-1)
  for number in stop.SIGNALS:
    signal.signal(number, pass_on)
  status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  said.seek(0)
  content = said.read().decode('utf-8', 'replace')
  lines = content.splitlines()
  text = '\n'.join(line for line in lines if not _LOG_LINE.match(line))
  reason = _REASON.search(content)
  if status == -signal.SIGABRT and reason:
    process.leave(LOST, _lost_line(' '.join(reason[1].split())))
  if status < 0:
    status, text = 128 - status, f'ended by {signal.Signals(-status).name}; {_ADVICE}'
  if status == LOST:  # Before its line stands what gRPC says.
    text = lines[-1]
  if text:
    process.leave(status, text)
  os._exit(status)


def lost_line(error: BaseException) -> str:
  """Returns one line if an error is that of a broken connection, else ''."""
  if type(error).__name__ != 'JaxRuntimeError':
    return ''
  return _lost_line(str(error).split('\n')[0])


def _lost_line(reason):
  return f'another process of the run is lost ({reason[:200]}); {_ADVICE}'
