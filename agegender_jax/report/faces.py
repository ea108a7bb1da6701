"""The sections that show faces with their predictions, and Grad-CAM."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from agegender_jax.report import blocks, plots

_FAR = 10  # Years; a larger error stands out.
_MAP = 'inferno'


def texts(run, row: int) -> tuple[str, str]:
  """Returns what was predicted of a row of the predictions, and what is actual.

  Such as (`31 F`, `28 F`); a group such as `25-32` where years are absent, `?`
  where nothing is known.
  """

  def text(age, group, gender):
    age, group, gender = (run.predictions[key][row] for key in (age, group, gender))
    years = '' if np.isnan(group) else run.group_names[int(group)]
    years = years if np.isnan(age) else f'{age:.0f}'
    return f'{years} {"" if np.isnan(gender) else "MF"[int(gender)]}'.strip() or '?'

  predicted = text('age_pred', 'age_group_pred', 'gender_pred')
  return predicted, text('age', 'age_group', 'gender')


def _is_wrong(run, row):
  gender, predicted = (run.predictions[key][row] for key in ('gender', 'gender_pred'))
  return bool(abs(gender - predicted) > 0)  # Unknown, NaN, is not wrong.


def _tag(run, row, is_confidence):
  """Returns a tag, the error in years or a confidence, and if it stands out."""
  keys = ('age', 'age_pred', 'gender_prob')
  age, predicted, female = (run.predictions[key][row] for key in keys)
  if is_confidence and _is_wrong(run, row):
    # Rounded down: 99.97 % is not certain.
    return f'{np.floor(100 * max(female, 1 - female)):.0f} %', True
  error = np.round(predicted - age) + 0.0  # An error of -0 has no sign.
  if np.isnan(error):
    return '', False
  return f'{error:+.0f}' if error else '0', bool(abs(error) > _FAR)


def _face(run, row):
  predicted, actual = texts(run, row)
  face = {'predicted': predicted, 'actual': actual, 'wrong': _is_wrong(run, row)}
  return face | {'name': run.predictions['name'][row]}


def _gallery(run, kind, is_confidence=False):
  items = []
  for image, row in run.faces[kind]:
    tag, strong = _tag(run, row, is_confidence)
    shown = {'src': blocks.image_uri(image), 'tag': tag, 'strong': strong}
    items.append(_face(run, row) | shown)
  return {'kind': 'faces', 'items': items} if items else {}


def faces(run) -> dict:
  """Returns some faces with their predictions."""
  shown = _gallery(run, 'faces')
  items = shown.get('items', [])
  text = '' if shown else 'No faces were kept.'
  if any(item['tag'] for item in items):
    text = 'The tag is the error in years. '
  if any(item['wrong'] for item in items):
    text += 'A double underline marks a wrong gender.'
  return blocks.section('faces', 'Faces: predicted (actual)', shown, text)


def worst(run) -> dict:
  """Returns the largest age errors."""
  text = (
    'Predicted (actual), with the error in years as a tag. Look at the label first: '
    'some of these are mistakes in the data.'
  )
  shown = _gallery(run, 'worst')
  return shown and blocks.section('worst', 'Largest age errors', shown, text)


def contradictory(run) -> dict:
  """Returns the labels that the network contradicts most confidently."""
  text = (
    'Predicted (labelled); the tag is the confidence in the other gender. A label here '
    'is wrong, or the network has not learned this case.'
  )
  shown = _gallery(run, 'contradictory', is_confidence=True)
  title = 'Most contradicted labels'
  return shown and blocks.section('contradictory', title, shown, text)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
  """Blends a heat map over the grey values of an image.

  Args:
    image: uint8 [H, W, 3].
    heat: float [h, w] in [0, 1].

  Returns:
    uint8 [H, W, 3]; the more heat, the less of the image.
  """
  import matplotlib

  grey = Image.fromarray(image).convert('L')
  small = Image.fromarray(np.nan_to_num(heat).astype(np.float32))
  large = np.asarray(small.resize(grey.size, Image.Resampling.BILINEAR)).clip(0, 1)
  color = 255 * matplotlib.colormaps[_MAP](0.2 + 0.8 * large)[..., :3]
  part = 0.8 * large[..., None] ** 0.7
  mixed = np.asarray(grey, np.float64)[..., None] * (1 - part) + color * part
  return mixed.round().astype(np.uint8)


def _explained(run):
  """Returns pairs of row and {`image` or task: uint8 [H, W, 3]}."""
  return [
    (
      row,
      {'image': image} | {task: overlay(image, heat) for task, heat in maps.items()},
    )
    for image, row, maps in run.saliency
  ]


def saliency(run) -> dict:
  """Returns which part of each image raises the prediction of each task."""
  items = []
  for row, shown in _explained(run):
    images = [{'label': k, 'src': blocks.image_uri(v)} for k, v in shown.items()]
    items.append(_face(run, row) | {'images': images})
  if not items:
    return {}
  # The key's colours: heat over a middle grey.
  key = overlay(np.full((1, 7, 3), 128, np.uint8), np.linspace(0, 1, 7)[None])
  stops = [f'rgb({r}, {g}, {b})' for r, g, b in key[0].tolist()]
  text = (
    'Grad-CAM (Selvaraju et al. 2017) on the last feature map, each image on its own '
    'scale: what raises the predicted age, or the predicted gender. It shows where, '
    'not why.'
  )
  shown = {'kind': 'saliency', 'items': items, 'stops': stops}
  return blocks.section('saliency', 'Where the network looks', shown, text)


def save_sheets(run, folder) -> None:
  """Writes the images that the page shows as contact sheets, one PNG per section."""
  for kind, found in run.faces.items():
    items = [(_caption(run, row), image) for image, row in found]
    _save_sheet(folder / f'{kind}.png', items, 5)
  items = [
    (_caption(run, row) if name == 'image' else name, image)
    for row, shown in _explained(run)
    for name, image in shown.items()
  ]
  _save_sheet(folder / 'saliency.png', items, 6)


def _caption(run, row):
  return '{} ({})'.format(*texts(run, row))


def _save_sheet(path, items, columns):
  """Writes (caption, image) pairs as one PNG, unless there are none."""
  if not items:
    return
  side, line = 180, 26  # Pixels of an image, and of its caption.
  size = min(columns, len(items)) * side, -(-len(items) // columns) * (side + line)
  sheet, font = Image.new('RGB', size, 'white'), ImageFont.load_default(17)
  draw = ImageDraw.Draw(sheet)
  for index, (caption, image) in enumerate(items):
    left, top = index % columns * side, index // columns * (side + line)
    draw.text((left + side / 2, top + 5), caption, 'black', font, anchor='ma')
    shown = Image.fromarray(image).resize((side - 6, side - 6))
    sheet.paste(shown, (left + 3, top + line))
  # Before the pixels: a report deletes the sheets of the one before.
  info = PngImagePlugin.PngInfo()
  info.add_text('Software', plots.SOFTWARE)
  sheet.save(path, pnginfo=info)
