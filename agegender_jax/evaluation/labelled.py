"""A split with its labels: opened, predicted, scored."""

import jax.numpy as jnp
import numpy as np

from agegender_jax import config as config_lib
from agegender_jax import errors, schema, scoring
from agegender_jax.data import pipeline
from agegender_jax.data import source as source_lib
from agegender_jax.evaluation import summary
from agegender_jax.inference import predictor


def open_split(config, split: str) -> source_lib.Source:
  """Opens a split of the run's data set, see data.source.create_source."""
  return source_lib.create_source(config.data, split)


def check_labels(config, run_tasks, splits, ranking) -> None:
  """Checks that training has what its tasks and its ranking need.

  Args:
    config: the run's configuration.
    run_tasks: its tasks.
    splits: `train` and `validation` -> source.
    ranking: see predictor.create_ranking.

  Raises:
    errors.UserError: a task that no label teaches or scores.
  """

  def has(key, label):
    return (splits[key].labels[label] != schema.UNKNOWN).any()

  for task in run_tasks:
    if not has('train', task.label):
      raise errors.UserError(
        f'no example of data.train_split = "{config.data.train_split}" has a '
        f'known {task.label}: leave the task out by '
        f'--config.tasks.{task.name}.kind='
      )
    found = splits['train'].labels[task.label]
    classes = np.unique(found[found != schema.UNKNOWN])
    if task.label != 'age' and len(classes) < 2 and not config.data.allow_unread_labels:
      raise errors.UserError(
        f'all known labels of {task.label} in data.train_split = '
        f'"{config.data.train_split}" are one class: check the coding, leave the '
        f'task out by --config.tasks.{task.name}.kind= or set '
        '--config.data.allow_unread_labels=True'
      )
  names = [name.removeprefix('validation/') for name, _ in ranking]
  if not any(has('validation', scoring.METRICS[name].label) for name in names):
    raise errors.UserError(
      f'data.validation_split = "{config.data.validation_split}" has no known '
      f'label for {" or ".join(names)}: choose another train.best_metric'
    )


def check_finished_data(config, workdir: str) -> None:
  """Checks that a finished run saw the data that `config.data` names.

  Moved data are the same by their fingerprint. Where it is not to be had, the
  place that the run itself was given is taken for the same, and a line says so.

  Args:
    config: what is asked for now.
    workdir: of the finished run.

  Raises:
    errors.UserError: the data are others, or lie elsewhere and cannot be
      compared.
  """
  places = [
    data.source_dir or data.data_dir
    for data in (config_lib.load_config(workdir).data, config.data)
  ]
  before = summary.fingerprint(workdir)
  found, why = '', 'the run has recorded no fingerprint'
  if before:
    try:
      found = source_lib.find_fingerprint(config.data)
    except errors.UserError as error:
      why = str(error)
  if before and found:
    if found != before:
      raise errors.UserError(
        f'the run in "{workdir}" is finished, on other data (fingerprint '
        f'{before}, now {found}): name its own or choose another --workdir'
      )
  elif places[0] != places[1]:
    raise errors.UserError(
      f'the data of the finished run in "{workdir}" cannot be compared: {why}'
    )
  else:
    print(f'the data of "{workdir}" are not compared: {why}')


def predict_split(
  network: predictor.Network, variables, source, age_groups: str
) -> dict[str, np.ndarray]:
  """Predicts every example of a split, once.

  Args:
    network: see predictor.
    variables: replicated over the devices.
    source: see data.sources.
    age_groups: key of schema.AGE_GROUPS.

  Returns:
    Columns [N]: the labels age (years), age_group, gender and age_span (first
    and last year, [N, 2]); those of
    `predictions`; `<task>_loss`, NaN where the label is unknown.
  """
  batch_size = network.batch_size_for(len(source))
  batches = pipeline.eval_batches(source, batch_size=batch_size)
  output = network.predict_all(variables, batches)
  # Of a table's columns, age_low and age_high are the predicted interval.
  labels = {key: source.labels[key] for key in ('age', 'age_group', 'gender')}
  labels['age_span'] = np.stack(
    [source.labels[key] for key in ('age_low', 'age_high')], axis=1
  )
  table = labels | predictor.predictions(output, age_groups)
  for task in network.tasks:
    known = [jnp.asarray(source.labels[key]) for key in task.labels]
    loss = task.loss(output['logits'][task.name], *known)
    # NaN is the mark of an unknown label, so a diverged network's is not.
    loss = np.nan_to_num(np.asarray(loss), nan=np.inf, posinf=np.inf)
    unknown = source.labels[task.label] == schema.UNKNOWN
    table[f'{task.name}_loss'] = np.where(unknown, np.nan, loss)
  return table


def score_split(
  network: predictor.Network, table, num_samples: int
) -> dict[str, float]:
  """Scores predictions as `scoring.score`, with the loss as in training."""
  scores = scoring.score(table, num_samples)
  losses = []
  for task in network.tasks:
    loss = table[f'{task.name}_loss']
    known = ~np.isnan(loss)
    if known.any():
      mean = float(loss[known].mean(dtype=np.float64))
      scores[f'{task.name}_loss'] = mean
      losses.append(task.weight * mean)
  # Of no known label it is undefined, like other scores.
  return scores | ({'loss': sum(losses)} if losses else {})
