"""Finds the names and the rows of a table that give labels only in part."""

from agegender_jax import schema
from agegender_jax.data.datasets import common, folder, raw, utkface
from agegender_jax.data.datasets import examples as examples_lib


def skipped_pictures(
  builder: common.FaceBuilder, listed: list[examples_lib.Example]
) -> list[examples_lib.Example]:
  """Returns the pictures that are there but whose names give no labels.

  Args:
    builder: of the data set.
    listed: what it collects.

  Returns:
    Examples without labels; none where a table says which pictures belong.
  """
  if not _labels_are_names(builder):
    return []
  known = {example.name for example in listed}
  return [
    examples_lib.Example(file.name, file.read)
    for file in builder.builder_config.source.pictures()
    if file.name not in known
  ]


def find(
  builder: common.FaceBuilder,
  listed: list[examples_lib.Example],
  skipped: list[examples_lib.Example],
) -> list[tuple[str, str]]:
  """Lists what is odd about names, or about the rows of a user's own table.

  Args:
    builder: of the data set; where its owners' label files have the labels,
      odd rows are counted by `collect` alone.
    listed: what it collects.
    skipped: see skipped_pictures.

  Returns:
    (name, key of examples.REASONS) pairs.
  """
  found = [(example.name, 'unusable_name') for example in skipped]
  source = builder.builder_config.source
  if _labels_are_names(builder):
    found += [
      (example.name, problem)
      for example in listed
      if (problem := _problem_of_name(builder, example))
    ]
  elif isinstance(builder, folder.Folder):
    for example, row in zip(listed, folder.read_table(source)[1], strict=True):
      if folder.parse_age(row['age']) is None:
        found.append((example.name, 'bad_age'))
      if folder.parse_gender(row['gender']) is None:
        found.append((example.name, 'bad_gender'))
  return found


def _problem_of_name(builder, example):
  base = example.name.rpartition('/')[2]
  *labels, problem = utkface.parse_name(base)
  is_odd = (
    isinstance(builder, utkface.UTKFace)
    and not utkface.WELL_FORMED.fullmatch(base)
    and schema.UNKNOWN not in labels
  )
  return problem or ('repaired_name' if is_odd else '')


def _labels_are_names(builder):
  source = builder.builder_config.source
  return isinstance(source, raw.Source) and not source.labels
