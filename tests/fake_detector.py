"""A stand-in for CenterFace: white squares of 8 pixels are faces of 40."""

import numpy as np


def write(path, size=32):
  """Writes an ONNX file fixed to `size` pixels, as CenterFace's is.

  Args:
    path: of the file.
    size: height and width of its input.
  """
  import onnx
  from onnx import TensorProto, helper, numpy_helper

  brightness = np.full((1, 3, 4, 4), 1 / (3 * 16 * 255), np.float32)
  zero = np.zeros((10, 3, 4, 4), np.float32)
  points = [0.3, 0.3, 0.3, 0.7, 0.5, 0.5, 0.7, 0.35, 0.7, 0.65]  # y, x
  biases = {
    'heatmap': np.array([-0.01], np.float32),
    'scale': np.full(2, np.log(10), np.float32),
    'offset': np.zeros(2, np.float32),
    'landmarks': np.array(points, np.float32),
  }
  nodes, arrays = [], []
  for name, bias in biases.items():
    kernel = brightness if name == 'heatmap' else zero[: len(bias)]
    arrays += [
      numpy_helper.from_array(kernel, f'{name}_w'),
      numpy_helper.from_array(bias, f'{name}_b'),
    ]
    nodes.append(
      helper.make_node(
        'Conv', ['image', f'{name}_w', f'{name}_b'], [name], strides=[4, 4]
      )
    )
  graph = helper.make_graph(
    nodes,
    'stand_in',
    [helper.make_tensor_value_info('image', TensorProto.FLOAT, [10, 3, size, size])],
    [
      helper.make_tensor_value_info(
        name, TensorProto.FLOAT, [10, len(bias), size // 4, size // 4]
      )
      for name, bias in biases.items()
    ],
    arrays,
  )
  opset = helper.make_opsetid('', 17)
  model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
  onnx.save(model, path)
