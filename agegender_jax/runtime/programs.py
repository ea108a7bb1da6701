"""Traced programs, kept on disk: a second start traces and lowers nothing.

JAX's compilation cache is read by what a function lowers to, and tracing and
lowering a deep network takes longer than reading what it compiles to. So the
lowered program is kept too, under all that it follows from: the package's
source, the caller's terms, the arguments' shapes, JAX and its settings.
"""

import functools
import hashlib
import pathlib
from collections.abc import Callable, Sequence

import flax
import jax
import jax.export
import jaxlib
import optax
from absl import logging

from agegender_jax import files

_DIGEST_BYTES = hashlib.sha256().digest_size

_folder: pathlib.Path | None = None
_source = ''


def keep_in(folder: str) -> None:
  """Keeps the programs made from now on in a folder, created when needed.

  To be called before the package's other files are imported: a program's name
  has what they hold now.
  """
  global _folder, _source
  _folder, _source = pathlib.Path(folder), _source_digest()


def are_kept() -> bool:
  """Says whether programs are kept: on one process's CPU, in a set folder."""
  return (
    _folder is not None and jax.default_backend() == 'cpu' and jax.process_count() == 1
  )


def kept(
  function: Callable,
  terms: str,
  shardings: Sequence[jax.sharding.Sharding] | None = None,
  donate_argnums: Sequence[int] = (),
  compiler_options: dict[str, int] | None = None,
) -> Callable:
  """Compiles a function; where programs are kept, one process traces it.

  Args:
    function: of trees of lists, tuples, dicts and arrays, and returns such.
    terms: everything that it follows from besides the package's source.
    shardings: of each argument; None is one device.
    donate_argnums: the arguments whose memory it may take.
    compiler_options: see jax.jit.

  Returns:
    The compiled function.
  """
  options = {
    'donate_argnums': donate_argnums,
    'compiler_options': compiler_options,
  }
  if shardings:
    options['in_shardings'] = tuple(shardings)
  if not are_kept():
    return jax.jit(function, **options)

  # JAX runs this body once for every set of shapes.
  @functools.partial(jax.jit, **options)
  def call(*args):
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
    path = _folder / f'{_digest(terms, shapes)}.program'
    exported = _read(path)
    if exported is None:
      try:
        exported = jax.export.export(jax.jit(function))(*shapes)
        content = bytes(exported.serialize())
      except (NotImplementedError, ValueError) as error:
        # Such as a callback, put there to look at a value.
        result = function(*args)
        logging.warning('this program cannot be kept: %s', error)
        return result
      _write(path, content)
    return exported.call(*args)

  return call


def _read(path):
  """Returns the program in a file; None where none can be read."""
  try:
    content = path.read_bytes()
  except OSError:
    return None
  digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
  if hashlib.sha256(content).digest() != digest:
    return None
  return jax.export.deserialize(bytearray(content))


def _write(path, content):
  """Writes a program to a file; a place that takes none stops no run."""
  if _source_digest() != _source:
    return  # Edited since: what was imported is not what the name says.
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, hashlib.sha256(content).digest() + content)
  except OSError as error:
    logging.warning('the next start will be slower: %s', error)


def _digest(terms, shapes):
  """Returns the name of a program."""
  parts = (
    _source,
    terms,
    str(shapes),
    *(library.__version__ for library in (jax, jaxlib, flax, optax)),
    f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    str(sorted(jax.config.values.items())),
  )
  return hashlib.sha256('\0'.join(parts).encode()).hexdigest()


def _source_digest():
  """Returns a digest of every file of this package."""
  digest = hashlib.sha256()
  for path in sorted(pathlib.Path(__file__).parent.parent.rglob('*.py')):
    digest.update(path.read_bytes())
  return digest.hexdigest()
