"""Where a run's first weights come from, when not from its seed."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from agegender_jax import config as config_lib
from agegender_jax import errors, files, models
from agegender_jax.inference import predictor
from agegender_jax.models import parameter_groups, pretrained


def initialise(config, state, workdir: str):
  """Loads `model.init_from` into a fresh state.

  Args:
    config: of the run.
    state: a steps.TrainState as initialised from the seed.
    workdir: output folder; gets init.json, a record of what was loaded.

  Returns:
    The state with the loaded weights.

  Raises:
    errors.UserError: no such weights, of another network, or such as want
      pixels normalised otherwise.
  """
  source = config.model.init_from
  excuse = config.model.init_excuse.split()
  folder = os.path.expanduser(source)
  if os.path.isdir(folder):
    origin, variables = _from_run(config, state.variables, folder, excuse)
  else:
    origin, variables = _from_file(config, state.variables, source, excuse)
  path = pathlib.Path(workdir) / 'init.json'
  files.write_json(path, origin)
  counts = '{loaded} of {tensors} tensors loaded, {excused} excused'.format(**origin)
  print(f'weights from {source}: {counts}')
  variables = jax.tree.map(jnp.asarray, variables)
  return state.replace(params=variables['params'], batch_stats=variables['batch_stats'])


def _from_file(config, variables, source, excuse):
  """Ports a state dict in torchvision's naming into the backbone."""
  try:
    origin = pretrained.locate(source)
  except errors.UserError as error:
    raise errors.UserError(
      f'{error}; give weights by --config.model.init_from=PATH, or train '
      "without by --config.model.init_from= (a recipe's :scratch)"
    ) from None
  wanted = models.published_pixels(config.model.backbone)
  if config.data.normalize != wanted:
    raise errors.UserError(
      f'{source} wants pixels as published weights of {config.model.backbone} do: '
      f'--config.data.normalize={wanted}'
    )
  part = {key: tree.get('backbone', {}) for key, tree in variables.items()}
  weights = pretrained.load_state(origin.path)
  found = pretrained.port(weights, part, excuse)
  counts = pretrained.count_loaded(weights, part, found)
  return origin._asdict() | counts, {
    key: {**tree, 'backbone': found[key]} if found.get(key) else tree
    for key, tree in variables.items()
  }


def _from_run(config, variables, source, excuse):
  """Takes the weights of another run, but for what is excused."""
  theirs = config_lib.load_config(source)
  if theirs.data.normalize != config.data.normalize:
    raise errors.UserError(
      f'the run in {source} was trained with data.normalize = '
      f'{theirs.data.normalize}, this one has {config.data.normalize}'
    )
  network = predictor.Network(theirs)
  found, step = predictor.read_selected(theirs, network, source)
  taken = take_over(found, variables, excuse)
  held = [
    path for tree in found.values() for path in parameter_groups.flatten(tree or {})
  ]
  counts = pretrained.count_loaded(held, variables, taken)
  if not counts['loaded']:
    raise errors.UserError(
      f'model.init_excuse = "{" ".join(excuse)}" excuses all of {source}: shorten it'
    )
  return {'source': source, 'step': step, **_terms(source), **counts}, taken


def _terms(source):
  """Returns the data and licence that a run was trained on."""
  path = pathlib.Path(source) / 'data.json'
  data = files.read_json(path, {})
  return {key: data[key] for key in ('name', 'licence') if data.get(key)}


def take_over(found, wanted, excuse):
  """Returns `wanted` with the leaves of `found`, but for what is excused.

  Args:
    found: {'params': tree, 'batch_stats': tree}; either may be absent or None.
    wanted: likewise, both there.
    excuse: patterns of paths that keep their values in `wanted`.

  Raises:
    errors.UserError: what is not excused differs in names or shapes, or a
      pattern names nothing in either.
  """
  found = {key: parameter_groups.flatten(found.get(key) or {}) for key in wanted}
  wanted = {key: parameter_groups.flatten(tree) for key, tree in wanted.items()}
  paths = set().union(*found.values(), *wanted.values())
  parameter_groups.check_patterns('model.init_excuse', excuse, paths)
  return {
    key: _take_over_flat(found[key], tree, excuse) for key, tree in wanted.items()
  }


def _take_over_flat(found, wanted, excuse):
  """Does what `take_over` says with one collection, each path -> leaf."""

  def is_asked(path):
    return not any(parameter_groups.matches(pattern, path) for pattern in excuse)

  for path in sorted(filter(is_asked, found.keys() | wanted.keys())):
    shapes = [
      np.shape(tree[path]) if path in tree else 'absent' for tree in (found, wanted)
    ]
    if shapes[0] != shapes[1]:
      raise errors.UserError(
        f'model.init_from is of another network: {path} is {shapes[0]} there '
        f'and {shapes[1]} here; excuse it by model.init_excuse if that is meant'
      )
  taken = {path: found[path] for path in wanted if is_asked(path)}
  return parameter_groups.join(wanted, taken)
