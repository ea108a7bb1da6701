"""Teachers: finished runs whose answers a network learns beside the labels."""

import copy
import os

import numpy as np

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.data import source as source_lib
from agegender_jax.evaluation import evaluate
from agegender_jax.inference import predictor
from agegender_jax.models import tasks
from agegender_jax.runtime import hosts

# What a teacher sees of an image.
_PIXEL_FIELDS = ('image_size', 'crop', 'filter')


def predict_targets(config, run_tasks) -> dict[str, np.ndarray]:
  """Averages the teachers' answers on the images of the training split.

  Hinton et al. 2015. Each image is predicted once, without augmentation.

  Args:
    config: of the run; `train.teachers` names the teachers' workdirs.
    run_tasks: its tasks.

  Returns:
    `teacher_<task>`, float32 [N, K]: probabilities of the years, of male and female.

  Raises:
    errors.UserError: the run or a teacher has no such probabilities.
  """
  kind = config.tasks.age.kind
  if kind and kind not in tasks.DISTRIBUTIONS:
    raise errors.UserError(
      f'train.teachers teach a distribution of age: tasks.age.kind = {kind} is none; '
      f'use {", ".join(tasks.DISTRIBUTIONS)}'
    )
  found: dict[str, list[np.ndarray]] = {task.name: [] for task in run_tasks}
  for place in config.train.teachers.split(','):
    workdir = os.path.expanduser(place.strip())
    theirs = config_lib.load_config(workdir)
    seen = copy.deepcopy(config)
    seen.data.update({name: theirs.data[name] for name in _PIXEL_FIELDS})
    with hosts.first_alone():  # It prepares and decodes.
      source = source_lib.create_source(seen.data, config.data.train_split)
    network, variables, _ = predictor.restore(theirs, workdir)
    table = evaluate.predict_split(network, variables, source, config.data.age_groups)
    for name, values in found.items():
      values.append(_probabilities(table, name, workdir))
    print(f'teacher {workdir}: {len(source)} images', flush=True)
  return {f'teacher_{name}': np.mean(values, axis=0) for name, values in found.items()}


def _probabilities(table, name, workdir):
  if name == 'age' and 'age_distribution' in table:
    return table['age_distribution']
  if name == 'gender' and 'gender_prob' in table:
    return np.stack([1 - table['gender_prob'], table['gender_prob']], axis=1)
  raise errors.UserError(f'the teacher "{workdir}" has no distribution of {name}')
