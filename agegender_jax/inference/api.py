"""The Python API: `load` a network, ask it about photos or face crops."""

import dataclasses
import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from PIL import Image

from agegender_jax import config as config_lib
from agegender_jax import errors, schema
from agegender_jax.data import images as images_lib
from agegender_jax.inference import (
  ahead,
  crops,
  detector,
  hub,
  photos,
  predictor,
  weights,
)
from agegender_jax.scoring import calibration

FACES = ('detect', 'crop')
ANSWERS = (
  'age', 'age_low', 'age_high', 'age_group', 'age_distribution', 'gender_prob',
)  # fmt: skip
# Faces in a full batch; on a CPU predictor.CPU_BATCH. One face alone is also compiled.
ACCELERATOR_BATCH = 64
NOT_FINITE = 'the answer of the network is not finite'
IN_FLIGHT = 2  # Batches at once: one alone leaves half of a CPU's cores idle.


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
  """What a network says of a face; None is what it does not say.

  Attributes:
    age: years.
    age_low: years; with age_high the interval that holds 90 % of true ages.
    age_high: years.
    age_group: such as '20-29' or '70+'.
    age_distribution: float [Y], the probability of each year of age from 0 on.
    gender: 'male' or 'female', the more probable one.
    gender_prob: probability of 'female', in [0, 1].
    box: left, top, right, bottom in pixels of the upright image; None where the
      image was taken as one face crop.
    landmarks: x and y in pixels of the eye on the left, the eye on the right, the
      nose, the left and the right corner of the mouth.
    score: of the detector, in [0, 1].
    error: why there is no answer, such as 'no face found'; '' if there is one.
  """

  age: float | None = None
  age_low: float | None = None
  age_high: float | None = None
  age_group: str | None = None
  age_distribution: np.ndarray | None = None
  gender: str | None = None
  gender_prob: float | None = None
  box: tuple[float, float, float, float] | None = None
  landmarks: tuple[tuple[float, float], ...] | None = None
  score: float | None = None
  error: str = ''

  @property
  def confidence(self) -> float | None:
    """Probability of `gender`, in [0.5, 1]."""
    if self.gender_prob is None:
      return None
    return max(self.gender_prob, 1 - self.gender_prob)


class Predictor:
  """A trained network with its calibration and its way to cut out faces.

  Get one from `load`. It may be used from several threads.

  Attributes:
    info: what the network is: name, step, data, backbone, image_size (pixels),
      age_groups, faces ('detect' or 'crop'), calibrated, num_parameters.
    faces: 'detect' looks for faces in an image; 'crop' takes it as one.
  """

  def __init__(self, config, source: str, faces: str = '', detector_path: str = ''):
    """Loads the network of a source with its configuration, overrides on it.

    A run that is not finished, or another step than its chosen one, is read from
    the checkpoints. Args and Raises: see `load`.
    """
    if faces not in ('', *FACES):
      raise errors.unknown('faces', faces, FACES)
    self.config, self.folder = config, hub.local(source)
    own = config_lib.check_network(config, self.folder)
    self.network = network = predictor.Network(config)
    stored = weights.find(self.folder)
    is_chosen = config.train.select == own.train.select
    if stored and is_chosen and not config.train.restore_step:
      variables, self.step, recipe = weights.read(stored, network.shapes())
    else:
      variables, self.step = predictor.read_selected(
        config, network, self.folder, network.shapes()
      )
      recipe = crops.recipe_of(config.data.name)
    fitted = calibration.read(calibration.path(config, self.folder))
    self.fitted = fitted if fitted.get('step') == self.step else None
    self.faces = faces or ('detect' if recipe else 'crop')
    # The recipe that is stored with the network, and the one in use.
    self.known_recipe, self.recipe, self._find_faces = recipe, recipe, None
    if self.faces == 'detect':
      path = detector_path or config.photos.detector
      self._find_faces = detector.shared_detector(path)
      self.recipe = recipe or crops.RECIPES['fairface']
    self._variables = jax.device_put(variables)
    self._compiled: dict[int, Any] = {}
    self._lock = threading.Lock()
    is_local = self.folder == source
    self.info = {
      'name': os.path.basename(os.path.normpath(source)) if is_local else source,
      'step': self.step,
      'data': config.data.name,
      'backbone': config.model.backbone,
      'image_size': config.data.image_size,
      'age_groups': config.data.age_groups,
      'tasks': {task.name: config.tasks[task.name].kind for task in network.tasks},
      'faces': self.faces,
      'crop': self.recipe and dataclasses.asdict(self.recipe),
      'calibrated': self.fitted is not None,
      'num_parameters': sum(x.size for x in jax.tree.leaves(variables['params'])),
    }

  @property
  def variables(self) -> dict[str, Any]:
    """`params` and `batch_stats` as NumPy arrays."""
    return jax.device_get(self._variables)

  def __call__(self, images, largest_face: bool = False):
    """Predicts the faces in an image, or in each of a list of them.

    Args:
      images: a path, encoded bytes, a PIL image or uint8 [H, W, 3]; or a list of
        such.
      largest_face: only the largest face of each image.

    Returns:
      The Faces of an image, the largest first; of a list a list of them. An image
      without a face, or that cannot be read, has one Face with `error`.
    """
    if isinstance(images, (list, tuple)):
      return list(self.stream(images, largest_face))
    return next(self.stream([images], largest_face))

  def stream(
    self, images: Iterable[Any], largest_face: bool = False
  ) -> Iterator[list[Face]]:
    """Yields the Faces of each image, in order and in constant memory."""
    read = photos.create_read(
      self.config.data, self.recipe, self._find_faces, largest_face
    )

    def predict(group):
      return group, self._predict(np.concatenate([photo.crops for photo in group]))

    found = ahead.map_ahead(read, images, photos.READ_THREADS)
    groups = photos.group(found, self.batch_size)
    for group, columns in ahead.map_ahead(predict, groups, IN_FLIGHT):
      first = 0
      for photo in group:
        rows = range(first, first + len(photo.crops))
        first = rows.stop
        yield self._faces(photo, columns, rows)

  def _faces(self, photo: photos.Photo, columns, rows) -> list[Face]:
    if photo.error:
      return [Face(error=photo.error)]
    result = []
    names = schema.age_group_names(self.config.data.age_groups)
    for row, detection in itertools.zip_longest(rows, photo.detections):
      values = {name: column[row] for name, column in columns.items()}
      found: dict[str, Any] = {}
      if not all(np.isfinite(value).all() for value in values.values()):
        found, values = {'error': NOT_FINITE}, {}
      for name in ('age', 'age_low', 'age_high', 'gender_prob'):
        if name in values:
          found[name] = float(values[name])
      if 'age_group' in values:
        found['age_group'] = names[values['age_group']]
      if 'age_distribution' in values:
        found['age_distribution'] = values['age_distribution']
      if 'gender_prob' in found:
        found['gender'] = schema.GENDERS[int(found['gender_prob'] > 0.5)]
      if detection:
        found['box'] = tuple(map(float, detection.box))
        found['landmarks'] = tuple((float(x), float(y)) for x, y in detection.landmarks)
        found['score'] = detection.score
      result.append(Face(**found))
    return result

  def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Predicts face crops.

    Args:
      images: uint8 [N, H, W, 3], RGB, cut out as the network's data are; any N,
        any size.

    Returns:
      Arrays [N], as far as the network gives them: `age`, `age_low`, `age_high`
      (years), `age_group` (row of schema.AGE_GROUPS), `age_distribution`
      [N, years], `gender_prob` (of female).

    Raises:
      ValueError: another shape or dtype.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
      raise ValueError(
        f'images must be uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}'
      )
    data = self.config.data
    size = data.image_size
    is_ready = images.shape[1:3] == (size, size) and not (data.crop or data.filter)
    if not is_ready:
      prepared = [
        images_lib.prepare(Image.fromarray(image), size, data.crop, data.filter)
        for image in images
      ]
      images = np.reshape(np.array(prepared, np.uint8), (-1, size, size, 3))
    return self._predict(images)

  @property
  def batch_size(self) -> int:
    """Faces in a full batch."""
    return predictor.CPU_BATCH if jax.default_backend() == 'cpu' else ACCELERATOR_BATCH

  def _predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Predicts uint8 [N, S, S, 3], padding the last batch."""
    outputs = []
    for first in range(0, max(1, len(images)), self.batch_size):
      part = images[first : first + self.batch_size]
      size = 1 if len(part) == 1 else self.batch_size
      padded = np.zeros((size, *images.shape[1:]), np.uint8)
      padded[: len(part)] = part
      output = jax.device_get(self._step(size)(self._variables, padded))
      outputs.append(output)
    # Only the last batch may be padded, so all that is padded is at the end.
    joined = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(images)], *outputs)
    columns = predictor.predictions(joined, self.config.data.age_groups)
    columns |= calibration.apply(self.fitted, columns) if self.fitted else {}
    named = {name.removesuffix('_pred'): column for name, column in columns.items()}
    return {name: named[name] for name in ANSWERS if name in named}

  def _step(self, size: int):
    """Returns the compiled step for a batch of `size`."""
    with self._lock:  # Two threads would compile the same.
      if size not in self._compiled:
        shape = (size, *[self.config.data.image_size] * 2, 3)
        step = jax.jit(self.network.predict_step)
        image = jax.ShapeDtypeStruct(shape, np.uint8)
        self._compiled[size] = step.lower(self._variables, image).compile()
    return self._compiled[size]

  def save(self, folder: str | os.PathLike, dtype: str = '') -> str:
    """Writes a folder that `load` and the Hugging Face hub read.

    Args:
      folder: where to, created if needed.
      dtype: of the stored weights, such as 'float16'; '' keeps float32.

    Returns:
      The folder.
    """
    from agegender_jax.inference import export

    export.export(self, folder, 'folder', dtype)
    return os.fspath(folder)

  def export(self, path: str | os.PathLike, format: str = '') -> str:
    """Exports the network, checked against this predictor before it is kept.

    Args:
      path: of the file, or of the folder.
      format: onnx, stablehlo, torch or folder; '' goes by the suffix (.onnx,
        .stablehlo, .safetensors or none).

    Returns:
      One line: what was written and how far its answers differ.
    """
    from agegender_jax.inference import export

    return export.export(self, path, format)


def load(
  source: str | os.PathLike = '',
  *,
  faces: str = '',
  detector_path: str = '',
) -> Predictor:
  """Loads a network.

  Most of a start is compiling; JAX_COMPILATION_CACHE_DIR keeps what is compiled. The
  caller's jax.config is left as it is.

  Args:
    source: a run's workdir, a published folder, or `hf:owner/name[@revision]`; ''
      is the network that ships with the package.
    faces: 'detect' looks for faces in images, 'crop' takes each image as one face
      crop; '' detects where it is known how the network's faces were cut out.
    detector_path: another ONNX file of the detector's family; '' is the one that
      `agegender install-detector` installs.

  Raises:
    errors.UserError: no network there, it is damaged, or faces cannot be found
      because onnxruntime or the detector is absent.
  """
  source = os.path.expanduser(os.fspath(source)) or str(config_lib.SHIPPED)
  config = config_lib.load_config(hub.local(source))
  return Predictor(config, source, faces, detector_path)
