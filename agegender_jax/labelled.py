"""A split with its labels: opened, predicted, scored."""

import jax.numpy as jnp
import numpy as np

from agegender_jax import predictor, schema, scoring
from agegender_jax.data import input_pipeline, sources


def open_split(config, split: str) -> sources.Source:
  """Opens a split of the run's data set, preparing it if needed.

  Under data.drop_conflicts the split that is trained on, and it alone, lacks
  the pictures that an identical one contradicts; a split that is also the
  validation or the test split keeps them, so that no score leaves any out.

  Args:
    config: the run's configuration.
    split: name of the split.

  Returns:
    The source.

  Raises:
    schema.UserError: unknown data set or split, or unusable raw data.
  """
  data = config.data
  is_scored = split in (data.validation_split, data.test_split)
  return sources.open_source(
    data.name,
    split,
    source_dir=data.source_dir,
    data_dir=data.data_dir,
    image_size=data.image_size,
    crop=data.crop,
    filter_name=data.filter,
    cache=data.cache,
    age_groups=data.age_groups,
    drop_conflicts=(
      data.drop_conflicts and split == data.train_split and not is_scored
    ),
    synthetic_examples=data.synthetic_examples,
    synthetic_seed=data.synthetic_seed,
  )


def predictions(output, age_groups: str) -> dict[str, np.ndarray]:
  """Names a network's output as the columns of predictions.csv do.

  Args:
    output: of Predictor.predict.
    age_groups: key of schema.AGE_GROUPS.

  Returns:
    Columns [N], as far as the network gives them: age_pred (years),
    age_group_pred, gender_prob, and gender_logit, the log odds of FEMALE.
  """
  columns = {}
  if 'age' in output:
    columns['age_pred'] = output['age']
    columns['age_group_pred'] = schema.group_of_prediction(
      output['age'], age_groups
    )
  if 'age_group' in output:
    columns['age_group_pred'] = output['age_group']
  if 'gender_prob' in output:
    columns['gender_prob'] = output['gender_prob']
    columns['gender_logit'] = output['logits']['gender'][:, 0]
  return columns


def predict_split(
  network: predictor.Predictor, variables, source, age_groups: str
) -> dict[str, np.ndarray]:
  """Predicts every example of a split, once.

  Args:
    network: see predictor.
    variables: replicated over the devices.
    source: see data.sources.
    age_groups: key of schema.AGE_GROUPS.

  Returns:
    Columns [N]: the labels age (years), age_group, gender; those of
    `predictions`; `<task>_loss`, NaN where the label is unknown.
  """
  batches = input_pipeline.eval_batches(source, batch_size=network.batch_size)
  output = network.predict_all(variables, batches)
  table = dict(source.labels) | predictions(output, age_groups)
  for task in network.tasks:
    label = table[task.label]
    loss = task.loss(output['logits'][task.name], jnp.asarray(label))
    table[f'{task.name}_loss'] = np.where(
      label == schema.UNKNOWN, np.nan, np.asarray(loss)
    )
  return table


def score_split(
  network: predictor.Predictor, table, num_samples: int
) -> dict[str, float]:
  """Scores predictions as `scoring.score`, with the loss as in training."""
  scores = scoring.score(table, num_samples)
  total = 0.0
  for task in network.tasks:
    known = table[task.label] != schema.UNKNOWN
    if known.any():
      mean = float(table[f'{task.name}_loss'][known].mean(dtype=np.float64))
      scores[f'{task.name}_loss'] = mean
      total += task.weight * mean
  return {**scores, 'loss': total}
