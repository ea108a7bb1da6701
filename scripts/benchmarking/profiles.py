"""Where a step's time goes, from what XLA's profiler records of it."""

import collections
import pathlib
import re
import tempfile

import jax

_WRAPPED = re.compile(r'(transpose\()?(jvp|jit|vmap)\(.*\)|shard_map$')
# What follows it is an operation of its own, or the way to one.
_LAYER = re.compile(r'/((?:backbone|branch_\w+)/\w+)/')
# What only waits for, or contains, what is recorded on its own.
_CONTAINERS = re.compile(r'(while|call|conditional)(\.\d+)?')


def parse_operations(program: str) -> dict[str, str]:
  """Maps the instructions of a compiled program to the operations they do.

  Args:
    program: HLO text.

  Returns:
    Name, as HLO has it and as a GPU's kernel is called -> op_name, such as
    `jit(f)/jvp(Net)/backbone/conv1/dot_general`.
  """
  pattern = r'%([\w.-]+) = [^\n]*metadata=\{[^}\n]*op_name="([^"]+)"'
  found = dict(re.findall(pattern, program))
  return {re.sub('[.-]', '_', name): op for name, op in found.items()} | found


def describe_operation(op_name: str) -> tuple[str, str]:
  """Returns what an operation is and of which layer.

  Returns:
    `dot_general, backward`; `backbone/conv1`. What belongs to no pass is the
    loss's, the metrics' or the optimizer's.
  """
  parts = [part for part in op_name.split('/') if not _WRAPPED.match(part)]
  parts = parts or ['unknown']
  kind = parts[-1]
  if 'jvp(' not in op_name:
    return f'{kind}, update', ''
  way = 'backward' if 'transpose(' in op_name else 'forward'
  found = _LAYER.search(op_name)
  return f'{kind}, {way}', found[1] if found else ''


def record(run, steps: int, program: str) -> dict[str, dict[str, float]]:
  """Profiles some steps.

  Args:
    run: a function of the number of steps, to be called once.
    steps: that number.
    program: HLO text of the compiled step.

  Returns:
    `operations` and `layers`: name -> milliseconds a step, summed over the
    threads or streams, the longest first.
  """
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      run(steps)
    (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
    data = jax.profiler.ProfileData.from_file(str(path))
  op_names = parse_operations(program)
  found = {name: collections.Counter() for name in ('operations', 'layers')}
  planes = list(data.planes)
  # What a host does for a GPU bears the same names.
  on_gpu = [plane for plane in planes if plane.name.startswith('/device:GPU')]
  for plane in on_gpu or planes:
    for line in plane.lines:
      for event in line.events:
        name = event.name
        if on_gpu and name not in op_names:  # A library's, such as cuDNN's.
          name = dict(event.stats).get('hlo_op', '')
        if name in op_names and not _CONTAINERS.fullmatch(name):
          kind, layer = describe_operation(op_names[name])
          milliseconds = event.duration_ns / 1e6 / steps
          found['operations'][kind] += milliseconds
          found['layers'][layer or 'outside of layers'] += milliseconds
  return {name: dict(times.most_common()) for name, times in found.items()}
