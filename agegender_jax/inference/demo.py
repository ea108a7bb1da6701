"""A local page: photos in, boxes with age, interval and gender out.

Nothing leaves the machine: it is bound to 127.0.0.1, Gradio serves its own files,
its analytics are off, and uploads are deleted after each answer.
"""

import base64
import io
import os
import shutil

from PIL import Image

from agegender_jax import errors
from agegender_jax.inference import annotate, api, photos
from agegender_jax.runtime import process

HOST = '127.0.0.1'
COLUMNS = ('face', 'age', '90 % interval', 'gender', 'probability')
LIMITS = (
  'An estimate from one image, not a fact about a person. Errors of several years are '
  'common, and larger for children, old people and groups that are rare in the '
  'training data. "Gender" is how annotators saw a face. Do not use it to decide about '
  'anybody.'
)


def rows_of(faces: list[api.Face]) -> list[list[str]]:
  """Returns the table's rows, see COLUMNS."""
  rows = []
  for number, face in enumerate(faces, 1):
    if face.error:
      rows.append(['', face.error, '', '', ''])
      continue
    age = face.age_group or '' if face.age is None else f'{face.age:.0f}'
    interval = ''
    if face.age_low is not None and face.age_high is not None:
      interval = f'{face.age_low:.0f} - {face.age_high:.0f}'
    confidence = '' if face.confidence is None else f'{face.confidence:.0%}'
    rows.append([str(number), age, interval, face.gender or '', confidence])
  return rows


def html_of(image: Image.Image) -> str:
  """Returns an image as HTML that needs no file."""
  stream = io.BytesIO()
  image.save(stream, 'JPEG', quality=90)
  data = base64.b64encode(stream.getvalue()).decode()
  return (
    f'<img src="data:image/jpeg;base64,{data}" alt="the photo with a box and a label '
    'for each face" style="max-width: 100%">'
  )


def figure_of(face: api.Face | None):
  """Returns a figure of a face's age distribution, or None without one."""
  if face is None or face.age_distribution is None:
    return None
  from matplotlib import figure

  drawn = figure.Figure(figsize=(6, 2.5), layout='constrained')
  axes = drawn.subplots()
  axes.bar(range(len(face.age_distribution)), face.age_distribution, color='#0072b2')
  axes.set(xlabel='age, years', ylabel='probability')
  return drawn


def create_page(network: api.Predictor, folder: str):
  """Creates the page.

  Args:
    network: see api.load.
    folder: where Gradio keeps uploads; emptied after each answer.

  Returns:
    A gradio.Blocks.

  Raises:
    errors.UserError: Gradio is absent.
  """
  os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
  os.environ['GRADIO_TEMP_DIR'] = folder
  os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'
  errors.import_extra('gradio', 'demo', 'the demo')
  import gradio

  def answer(image):
    if image is None:
      return [gradio.skip()] * 6
    image = photos.decode(image)
    faces = network(image)
    empty_folder(folder)
    numbers = [str(n) for n, face in enumerate(faces, 1) if not face.error]
    return [
      None,  # The next photo goes here.
      html_of(annotate.draw(image, faces)),
      rows_of(faces),
      gradio.update(choices=numbers, value=numbers[0] if numbers else None),
      figure_of(faces[0] if numbers else None),
      faces,
    ]

  def choose(number, faces):
    return figure_of(faces[int(number) - 1] if number and faces else None)

  def predict(image: gradio.FileData) -> list[dict]:
    faces = network(image['path'] if isinstance(image, dict) else image.path)
    empty_folder(folder)
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows_of(faces)]

  info = network.info
  with gradio.Blocks(title='Age and gender', analytics_enabled=False) as page:
    gradio.Markdown(f'# Age and gender from a photo\n\n{LIMITS}')
    with gradio.Row():  # Below each other on a phone.
      with gradio.Column(min_width=320):
        sources = ['upload', 'clipboard', 'webcam']
        image = gradio.Image(type='pil', sources=sources, label='photo')
      with gradio.Column(min_width=320):
        shown = gradio.HTML()
    table = gradio.Dataframe(headers=list(COLUMNS), label='answers', interactive=False)
    number = gradio.Radio([], label='face whose age distribution is shown')
    plot = gradio.Plot(label='age distribution')
    state = gradio.State([])
    outputs = [image, shown, table, number, plot, state]
    image.input(answer, image, outputs, api_visibility='private')
    number.input(choose, [number, state], plot, api_visibility='private')
    gradio.api(predict, api_name='predict')
    gradio.Markdown(
      f'Network: {info["name"]}, {info["backbone"]}, trained on {info["data"]}'
      f'{"" if info["calibrated"] else ", not calibrated: no intervals"}. Photos stay '
      'on this machine and are deleted after each answer. Software: Apache-2.0; face '
      'detector CenterFace: MIT.\n\n'
      'From a program:\n\n```python\n'
      "client = gradio_client.Client('http://127.0.0.1:7860')\n"
      "client.predict(gradio_client.handle_file('photo.jpg'), api_name='/predict')\n```"
    )
  return page


def empty_folder(folder: str) -> None:
  """Deletes all that lies in a folder, which stays its owner's alone."""
  shutil.rmtree(folder, ignore_errors=True)
  os.makedirs(folder, 0o700, exist_ok=True)


def serve(network: api.Predictor, port: int) -> None:
  """Serves the page until interrupted (`--mode=demo`).

  Args:
    network: see api.load.
    port: of 127.0.0.1.
  """
  with process.temporary_folder('agegender_demo_') as folder:
    page = create_page(network, folder)
    try:
      _, url, _ = page.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
      )
    except OSError as error:
      raise errors.UserError(
        f'port {port} of {HOST} cannot be used ({error}): name another --port'
      ) from None
    print(f'page: {url} (Ctrl+C ends it)', flush=True)
    page.block_thread()
