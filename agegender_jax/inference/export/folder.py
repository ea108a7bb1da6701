"""A folder that `load` and the Hugging Face hub read."""

import json
import pathlib
import shutil
import tempfile

import numpy as np

from agegender_jax import __version__, errors, files
from agegender_jax.inference import api, weights
from agegender_jax.inference.export import programs

LICENCES = {'fairface': 'cc-by-4.0'}  # Of weights, by what they were trained on.
# Scores of scores.json in the card's `model-index`: the metric's name there.
_METRICS = {
  'age_mae': 'mean absolute error of age, years',
  'age_group_accuracy': 'accuracy of the age group',
  'age_group_one_off': 'age group at most one off',
  'gender_accuracy': 'accuracy of gender',
}
_FRONT = (
  'library_name: agegender_jax',
  'pipeline_tag: image-classification',
  'tags: [age-estimation, gender-classification, faces, jax, flax]',
)
_TEXT = """
Age and gender from a face, trained and exported with agegender_jax.

```python
import agegender_jax as ag

p = ag.load('PATH OF THIS FOLDER')  # or 'hf:owner/name'
for face in p('photo.jpg'):
  print(face.age, face.age_low, face.age_high, face.gender, face.gender_prob)
```

`model.onnx` takes uint8 images; its metadata say how faces are cut out.
"""


def write(network, path: pathlib.Path, dtype: str, push: str) -> str:
  """Writes the folder of an api.Predictor; see `export`.

  All files are written beside the folder first and checked there.
  """
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise errors.UserError(f'{path} exists and is not an empty folder: name another')
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = pathlib.Path(tempfile.mkdtemp(prefix=f'{path.name}.', dir=path.parent))
  try:
    line = _fill(network, temporary, dtype)
    if path.exists():
      path.rmdir()
    temporary.chmod(0o755)
    temporary.rename(path)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  if push:
    _push(path, push)
    line += f', uploaded to https://huggingface.co/{push}'
  return f'{path}: {line}'


def _fill(network, folder: pathlib.Path, dtype: str) -> str:
  """Writes the files; returns what was found when they were read back."""
  content = {
    'recipe': network.info['name'],
    'config': _published(network.config),
    'versions': {'agegender_jax': __version__},
  }
  files.write_json(folder / 'config.json', content)
  weights.write(
    folder / weights.FOLDER_FILE,
    network.variables,
    network.step,
    network.known_recipe,
    dtype,
  )
  if network.fitted:
    files.write_json(folder / 'calibration.json', network.fitted)
  files.write_whole(folder / 'README.md', card(network))
  found = api.load(folder, faces='crop')
  images = programs.random_images(network.config.data.image_size)
  answers = found.predict(images)
  if dtype:
    line = programs.compare(network, answers, 'the folder', programs.HALF_FACTOR)
  else:
    expected = network.predict(images)
    if not all(np.array_equal(answers[name], expected[name]) for name in expected):
      raise errors.UserError('the folder is read back otherwise: not kept')
    line = 'read back to the same bits'
  try:
    programs.write_onnx(found, folder / 'model.onnx', dtype)
  except errors.UserError as error:
    line += f'; without model.onnx ({error})'
  return line


def _published(config) -> dict:
  """Returns the configuration without this machine's folders and a restored step."""
  result = config.to_dict()
  result['data'] |= {'source_dir': '', 'data_dir': ''}
  result['train'] |= {'restore_step': 0}
  return result


def card(network) -> str:
  """Returns README.md with the front matter that the hub reads."""
  info, folder = network.info, pathlib.Path(network.folder)
  scores = files.read_json(folder / 'scores.json', {})
  name, data = info['name'], info['data']
  lines = ['---', f'license: {LICENCES.get(data, "other")}', *_FRONT]
  rows = [
    (title, scores[key])
    for key, title in _METRICS.items()
    if isinstance(scores.get(key), int | float)
  ]
  if rows:
    quote = json.dumps
    lines += [
      'model-index:',
      f'- name: {quote(name)}',
      '  results:',
      '  - task: {type: image-classification, name: age and gender}',
      f'    dataset: {{type: {quote(data)}, name: {quote(data)}, '
      f'split: {quote(scores.get("split", "test"))}}}',
      '    metrics:',
      *(f'    - {{type: {quote(title)}, value: {value:.4f}}}' for title, value in rows),
    ]
  lines += ['---', '', f'# {name}', _TEXT]
  for source in ('model_card.md', 'README.md'):
    if (folder / source).is_file():
      text = (folder / source).read_text('utf-8')
      if source == 'README.md' and text.startswith('---'):
        return text  # Of a published folder that is exported again.
      return '\n'.join(lines) + '\n' + text
  return '\n'.join(lines)


def _push(folder: pathlib.Path, repo: str) -> None:
  """Uploads a folder to the hub."""
  hub = errors.import_extra('huggingface_hub', 'hub', '--push')
  try:
    client = hub.HfApi()
    client.create_repo(repo, exist_ok=True)
    client.upload_folder(repo_id=repo, folder_path=str(folder))
  except Exception as error:  # Of several libraries: network, names, tokens.
    raise errors.UserError(
      f'{folder} is written, but not uploaded to {repo} ({errors.one_line(error)})'
    ) from None
