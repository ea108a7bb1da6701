"""Which parameters train, and how fast: rules over their paths.

A parameter's path is its names in the tree, `backbone/layer1_0/conv1/kernel`.
A pattern has the shell's wildcards and stands for all below what it names.
"""

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flax import traverse_util

from agegender_jax import config as config_lib
from agegender_jax import errors


def matches(pattern: str, path: str) -> bool:
  """Returns True if a pattern names a path or something above it."""
  return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, pattern + '/*')


def create_is_frozen(freeze: str) -> Callable[[str], bool]:
  """Creates the rule of `optimizer.freeze`: path -> whether it is frozen."""
  patterns = tuple(freeze.split())
  return lambda path: any(matches(pattern, path) for pattern in patterns)


def check_patterns(field: str, patterns: Iterable[str], paths: Iterable[str]) -> None:
  """Raises errors.UserError for a pattern that names no parameter.

  A pattern counts for the paths that no earlier pattern names.
  """
  left = set(paths)
  tops = ', '.join(sorted({path.split('/')[0] for path in left}))
  for pattern in patterns:
    named = {path for path in left if matches(pattern, path)}
    if not named:
      raise errors.UserError(
        f'{field}: "{pattern}" names no parameter (or only such as an earlier '
        f'pattern names); parameters begin with {tops}'
      )
    left -= named


def check_rules(freeze: str, lr_multipliers: str, params) -> None:
  """Raises errors.UserError for a rule without effect, or nothing to train."""
  trained, frozen = split(params, create_is_frozen(freeze))
  check_patterns('optimizer.freeze', freeze.split(), [*trained, *frozen])
  patterns = config_lib.parse_factors('optimizer.lr_multipliers', lr_multipliers)
  check_patterns('optimizer.lr_multipliers', patterns, trained)
  if not trained:
    raise errors.UserError('optimizer.freeze leaves nothing to train')


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
  """Returns path -> leaf."""
  return traverse_util.flatten_dict(dict(tree), sep='/')


def split(
  params: Mapping[str, Any], is_frozen: Callable[[str], bool]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits parameters into trained and frozen ones, each path -> leaf."""
  flat = flatten(params)
  frozen = {path: leaf for path, leaf in flat.items() if is_frozen(path)}
  return {k: v for k, v in flat.items() if k not in frozen}, frozen


def join(trained: Mapping[str, Any], frozen: Mapping[str, Any]):
  """Reverses `split`."""
  return traverse_util.unflatten_dict({**trained, **frozen}, sep='/')
