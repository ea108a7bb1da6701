"""The sections that show faces, with what was predicted of them."""

import numpy as np
from PIL import Image

from agegender_jax import schema
from agegender_jax.report import blocks

MOST_FACES = 20
FAR = 10  # Years; an error beyond it stands out.
_STOPS = 7  # Colours of the key to the heat.
_MAP = 'inferno'


def face_texts(run, row) -> tuple:
  """Returns what was predicted of an example and what is actual.

  Args:
    run: the Run.
    row: row of its predictions.

  Returns:
    (`31 F`, `28 F`), a group such as `25-32` where years lack, `?` where
    nothing is known.
  """
  p, names = run.predictions, run.group_names

  def text(age, group, gender):
    known = names[group] if group != schema.UNKNOWN else ''
    years = known if np.isnan(age) else f'{age:.0f}'
    sex = '' if gender == schema.UNKNOWN else 'MF'[gender]
    return f'{years} {sex}'.strip() or '?'

  gender = p.gender_pred[row]
  return (
    text(p.age_pred[row], p.age_group_pred[row], gender),
    text(p.age[row], p.age_group[row], p.gender[row]),
  )


def captions(run, found) -> list:
  """Returns `31 F (28 F)` of each picture."""
  return ['{} ({})'.format(*face_texts(run, row)) for _, row, *_ in found]


def _wrong(run, row):
  p = run.predictions
  return bool(p.gender_known[row] and p.gender_pred[row] != p.gender[row])


def _error_tag(run, row):
  """Returns the error as text, and whether it is far off."""
  p = run.predictions
  # round: an error shown as 0 gets no sign.
  error = np.round(p.age_pred[row] - p.age[row]) + 0.0
  if np.isnan(error):
    return '', False
  return f'{error:+.0f}' if error else '0', bool(abs(error) > FAR)


def _sure_tag(run, row):
  """Returns how sure a wrong gender is, else the error in years."""
  if not _wrong(run, row):
    return _error_tag(run, row)
  female = run.predictions.gender_prob[row]
  # Rounded down: 99.97 % is not certain.
  return f'{np.floor(100 * max(female, 1 - female)):.0f} %', True


def _items(run, found, tag_fn=_error_tag):
  items = []
  for image, row in found[:MOST_FACES]:
    predicted, actual = face_texts(run, row)
    tag, strong = tag_fn(run, row)
    items.append({
      'src': blocks.picture(image), 'predicted': predicted, 'actual': actual,
      'tag': tag, 'strong': strong, 'wrong': _wrong(run, row),
      'name': run.predictions.name[row],
    })  # fmt: skip
  return {'kind': 'faces', 'items': items}


def faces(run):
  """Returns some test faces with prediction and label."""
  if not run.faces:
    return blocks.section('faces', 'Faces',
                   blocks.note('No faces were kept of this run.'))  # fmt: skip
  shown = _items(run, run.faces)
  key = ''
  if any(item['tag'] for item in shown['items']):
    key += 'The tag is the error in years, filled where it is over ten. '
  if any(item['wrong'] for item in shown['items']):
    key += 'A double underline marks a wrong gender.'
  return blocks.section('faces', 'Faces: predicted (actual)', shown,
                        blocks.note(key) if key else None)  # fmt: skip


def worst(run):
  """Returns the largest age errors."""
  if not run.worst:
    return {}
  shown = _items(run, run.worst)
  text = 'Predicted (actual)'
  if any(item['tag'] for item in shown['items']):
    text += ', the error in years as a tag'
  text += '. Look at the label first: some of these are mistakes of the data.'
  return blocks.section('worst', 'Largest age errors', shown, blocks.note(text))


def contradictory(run):
  """Returns the labels that the network contradicts most confidently."""
  if not run.contradictory:
    return {}
  return blocks.section(
    'contradictory', 'Most contradicted labels',
    _items(run, run.contradictory, _sure_tag),
    blocks.note('Predicted (labelled); the tag says how sure the network is of '
                'the other gender. A label here is either wrong or a case that '
                'the network has not learnt.'),
  )  # fmt: skip


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
  """Blends a heat map over the greys of a picture.

  Args:
    image: uint8 [H, W, 3].
    heat: float [h, w] in [0, 1].

  Returns:
    uint8 [H, W, 3]; the more heat, the less of the picture.
  """
  import matplotlib

  grey = Image.fromarray(image).convert('L')
  size = grey.size
  small = Image.fromarray(np.nan_to_num(heat).astype(np.float32))
  large = np.asarray(small.resize(size, Image.Resampling.BILINEAR))
  large = np.clip(large, 0, 1)
  color = 255 * matplotlib.colormaps[_MAP](0.2 + 0.8 * large)[..., :3]
  # No heat, no colour: the picture itself.
  part = 0.8 * large[..., None] ** 0.7
  mixed = np.asarray(grey, np.float64)[..., None] * (1 - part) + color * part
  return mixed.round().astype(np.uint8)


def overlays(run) -> list:
  """Returns (picture, row, {task: overlay}) of each explained picture."""
  return [
    (image, row, {task: overlay(image, heat) for task, heat in maps.items()})
    for image, row, maps in run.saliency[:MOST_FACES]
  ]


def saliency(run):
  """Returns where on each picture the network looked, a task beside another."""
  items = []
  for image, row, maps in overlays(run):
    predicted, actual = face_texts(run, row)
    pictures = [('picture', image), *maps.items()]
    items.append({
      'predicted': predicted, 'actual': actual, 'wrong': _wrong(run, row),
      'pictures': [{'label': label, 'src': blocks.picture(shown)}
                   for label, shown in pictures],
    })  # fmt: skip
  if not items:
    return {}
  # The key's colours: heat over a middle grey.
  grey = np.full((1, _STOPS, 3), 128, np.uint8)
  key = overlay(grey, np.linspace(0, 1, _STOPS)[None])
  stops = [f'rgb({r}, {g}, {b})' for r, g, b in key[0].tolist()]
  return blocks.section(
    'saliency', 'Where the network looks',
    {'kind': 'saliency', 'items': items, 'stops': stops},
    blocks.note('Grad-CAM (Selvaraju et al. 2017) on the last feature map, '
                'each picture on its own scale: what raises the age, or the '
                'gender that was predicted. It shows where, not why.'),
  )  # fmt: skip
