"""Writes a traced JAX function as an ONNX model.

Each primitive of the jaxpr becomes one or a few nodes. Operations without the
batch are computed while writing. A broadcast stays a dimension of 1 until an
operation needs the whole array: ONNX broadcasts by itself.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from onnx import helper, numpy_helper

from agegender_jax import errors

OPSET, IR_VERSION = 17, 8
BATCH = 7919  # Stands for the batch in the trace: a prime that no layer has.
BATCH_NAME = 'N'

_ELEMENTWISE = {
  'add': 'Add', 'add_any': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div',
  'max': 'Max', 'min': 'Min', 'neg': 'Neg', 'exp': 'Exp', 'log': 'Log',
  'tanh': 'Tanh', 'sqrt': 'Sqrt', 'logistic': 'Sigmoid', 'abs': 'Abs', 'sign': 'Sign',
  'floor': 'Floor', 'erf': 'Erf', 'pow': 'Pow', 'gt': 'Greater', 'lt': 'Less',
  'ge': 'GreaterOrEqual', 'le': 'LessOrEqual', 'eq': 'Equal', 'and': 'And',
  'or': 'Or', 'not': 'Not', 'rsqrt': None, 'square': None,
  'integer_pow': None, 'select_n': None, 'clamp': None, 'ne': None,
  'stop_gradient': 'Identity', 'copy': 'Identity',
  'reduce_precision': 'Identity', 'convert_element_type': None,
}  # fmt: skip
_REDUCE = {
  'reduce_sum': 'ReduceSum', 'reduce_max': 'ReduceMax', 'reduce_min': 'ReduceMin'
}  # fmt: skip


def convert(
  function: Callable[[jax.Array], dict[str, jax.Array]],
  shape: Sequence[int],
  metadata: dict[str, Any],
  half: bool = False,
) -> bytes:
  """Converts a function of a batch of uint8 images.

  Args:
    function: image uint8 [B, *shape] -> {name: [B, ...]}.
    shape: of one image.
    metadata: stored as JSON under `agegender_jax`.
    half: store weights as float16.

  Returns:
    The model. Its input `image` and its outputs have any batch size.

  Raises:
    errors.UserError: an operation that is not supported.
  """
  image = jax.ShapeDtypeStruct((BATCH, *shape), np.uint8)
  closed, result = jax.make_jaxpr(function, return_shape=True)(image)
  writer = _Writer(half)
  writer.values[closed.jaxpr.invars[0]] = ('image', (BATCH, *shape))
  writer.run(closed.jaxpr, closed.consts)
  names = list(jax.tree.leaves({name: name for name in result}))
  for name, var in zip(names, closed.jaxpr.outvars, strict=True):
    writer.node('Identity', [writer.whole(var)], name=name)
  infos = [
    helper.make_tensor_value_info(
      name,
      helper.np_dtype_to_tensor_dtype(np.dtype(dtype)),
      [BATCH_NAME, *dims[1:]],
    )
    for name, dtype, dims in (
      ('image', np.uint8, image.shape),
      *((name, result[name].dtype, result[name].shape) for name in names),
    )
  ]
  graph = helper.make_graph(
    writer.nodes, 'agegender_jax', infos[:1], infos[1:], writer.arrays
  )
  model = helper.make_model(
    graph,
    opset_imports=[helper.make_opsetid('', OPSET)],
    ir_version=IR_VERSION,
    producer_name='agegender_jax',
  )
  helper.set_model_props(model, {'agegender_jax': json.dumps(metadata)})
  onnx.checker.check_model(model, full_check=True)
  return model.SerializeToString()


class _Writer:
  """The nodes so far, and what each variable of the jaxpr is in them.

  Attributes:
    values: variable -> an array, computed while writing, or (name, shape), where
      the shape has 1 for dimensions that are still to be broadcast.
  """

  def __init__(self, half: bool):
    self.half = half
    self.nodes: list[onnx.NodeProto] = []
    self.arrays: list[onnx.TensorProto] = []
    self.values: dict[Any, Any] = {}
    self.names: dict[Any, str] = {}  # Of arrays, by what they hold.

  def node(self, kind: str, inputs: Sequence[str], name: str = '', **attributes) -> str:
    """Adds a node with one output and returns the output's name."""
    name = name or f'v{len(self.nodes)}'
    self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
    return name

  def constant(self, array: np.ndarray) -> str:
    """Adds an array, once however often it is used, and returns its name."""
    array = np.ascontiguousarray(array)
    key = array.dtype.str, array.shape, array.tobytes()
    if key not in self.names:
      self.names[key] = self._add(array)
    return self.names[key]

  def _add(self, array: np.ndarray) -> str:
    name = f'c{len(self.arrays)}'
    if self.half and array.dtype == np.float32 and array.size > 64:
      self.arrays.append(numpy_helper.from_array(array.astype(np.float16), name))
      return self.node('Cast', [name], to=onnx.TensorProto.FLOAT)
    self.arrays.append(numpy_helper.from_array(array, name))
    return name

  def shape_of(self, values: Sequence[int]) -> str:
    """Adds a constant of whole numbers."""
    return self.constant(np.asarray(values, np.int64))

  def get(self, var) -> Any:
    """Returns an array, or (name, shape)."""
    if hasattr(var, 'val'):
      return np.asarray(var.val, var.aval.dtype)  # May be a Python number.
    return self.values[var]

  def lazy(self, var) -> str:
    """Returns the name of a value whose broadcasts may be left open."""
    value = self.get(var)
    return value[0] if isinstance(value, tuple) else self.constant(value)

  def whole(self, var) -> str:
    """Returns the name of a value in its full shape."""
    value, wanted = self.get(var), var.aval.shape
    if not isinstance(value, tuple):
      return self.constant(value)
    name, shape = value
    if shape == wanted:
      return name
    sizes = self.shape_of([1 if n == BATCH else n for n in wanted])
    if BATCH in wanted and BATCH not in shape:
      batch = self.node('Shape', ['image'], start=0, end=1)
      after = wanted[wanted.index(BATCH) + 1 :]
      parts = [batch, self.shape_of(after)] if after else [batch]
      sizes = self.node('Concat', parts, axis=0) if after else batch
    return self.node('Expand', [name, sizes])

  def run(self, jaxpr, consts) -> None:
    """Writes the equations of a jaxpr whose inputs are known."""
    for var, value in zip(jaxpr.constvars, consts, strict=True):
      self.values[var] = np.asarray(value)
    for equation in jaxpr.eqns:
      inner = next(
        (
          equation.params[name]
          for name in ('jaxpr', 'call_jaxpr', 'fun_jaxpr')
          if name in equation.params
        ),
        None,
      )
      if inner is not None:
        self._call(equation, inner)
        continue
      inputs = [self.get(var) for var in equation.invars]
      shapes = [var.aval.shape for var in equation.outvars]
      is_known = not any(isinstance(value, tuple) for value in inputs)
      if is_known and not any(BATCH in shape for shape in shapes):
        found = equation.primitive.bind(*inputs, **equation.params)
        found = found if equation.primitive.multiple_results else [found]
        for var, value in zip(equation.outvars, found, strict=True):
          self.values[var] = np.asarray(value)
        continue
      (out,) = equation.outvars
      self.values[out] = self._write(equation, out.aval)

  def _call(self, equation, inner) -> None:
    """Writes what a call calls, in its place."""
    jaxpr, consts = getattr(inner, 'jaxpr', inner), getattr(inner, 'consts', ())
    for var, outer in zip(jaxpr.invars, equation.invars, strict=True):
      self.values[var] = self.get(outer)
    self.run(jaxpr, consts)
    for outer, var in zip(equation.outvars, jaxpr.outvars, strict=True):
      self.values[outer] = self.get(var)

  def _write(self, equation, aval) -> tuple[str, tuple[int, ...]]:
    """Writes an equation; returns the name and the shape of its output."""
    name = equation.primitive.name
    if name in _ELEMENTWISE:
      return self._elementwise(equation, aval)
    if name == 'broadcast_in_dim':
      return self._broadcast(equation, aval)
    method = getattr(self, f'_{name}', None)
    if name in _REDUCE:
      method = self._reduce
    if method is None:
      raise errors.UserError(f'ONNX: the operation {name} is not supported')
    return method(equation, equation.params, aval), aval.shape

  def _elementwise(self, equation, aval):
    name, params = equation.primitive.name, equation.params
    inputs = [self.lazy(var) for var in equation.invars]
    shapes = []
    for var in equation.invars:
      value = self.get(var)
      shapes.append(value[1] if isinstance(value, tuple) else value.shape)
    shape = np.broadcast_shapes(*shapes)
    kind = _ELEMENTWISE[name]
    if kind:
      found = self.node(kind, inputs)
    elif name == 'rsqrt':
      found = self.node('Reciprocal', [self.node('Sqrt', inputs)])
    elif name == 'square':
      found = self.node('Mul', inputs * 2)
    elif name == 'integer_pow':
      power = self.constant(np.asarray(params['y'], aval.dtype))
      found = self.node('Pow', [*inputs, power])
    elif name == 'ne':
      found = self.node('Not', [self.node('Equal', inputs)])
    elif name == 'select_n' and len(inputs) == 3:
      found = self.node('Where', [inputs[0], inputs[2], inputs[1]])
    elif name == 'clamp':
      found = self.node('Min', [self.node('Max', inputs[:2]), inputs[2]])
    elif name == 'convert_element_type':
      found = self._cast(inputs[0], params['new_dtype'])
    else:
      raise errors.UserError(f'ONNX: the operation {name} is not supported')
    return found, tuple(shape)

  def _cast(self, name, dtype) -> str:
    return self.node(
      'Cast', [name], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    )

  def _reshaped(self, name, shape) -> str:
    sizes = [-1 if n == BATCH else n for n in shape]
    return self.node('Reshape', [name, self.shape_of(sizes)])

  def _broadcast(self, equation, aval):
    (var, *_), dims = equation.invars, equation.params['broadcast_dimensions']
    value = self.get(var)
    old = value[1] if isinstance(value, tuple) else value.shape
    shape = [1] * aval.ndim
    for n, dim in zip(old, dims, strict=True):
      shape[dim] = n
    return self._reshaped(self.lazy(var), shape), tuple(shape)

  def _reshape(self, equation, params, aval):
    return self._reshaped(self.whole(equation.invars[0]), aval.shape)

  _squeeze = _expand_dims = _reshape

  def _transpose(self, equation, params, aval):
    name = self.whole(equation.invars[0])
    return self.node('Transpose', [name], perm=params['permutation'])

  def _reduce(self, equation, params, aval):
    kind = _REDUCE[equation.primitive.name]
    name = self.whole(equation.invars[0])
    if kind == 'ReduceSum':
      return self.node(kind, [name, self.shape_of(params['axes'])], keepdims=0)
    return self.node(kind, [name], axes=params['axes'], keepdims=0)

  def _argmax(self, equation, params, aval):
    var, (axis,) = equation.invars[0], params['axes']
    name = self.whole(var)
    if var.aval.dtype == bool:
      name = self._cast(name, np.float32)
    kind = 'ArgMax' if equation.primitive.name == 'argmax' else 'ArgMin'
    return self._cast(self.node(kind, [name], axis=axis, keepdims=0), aval.dtype)

  _argmin = _argmax

  def _cumsum(self, equation, params, aval, name=''):
    axis = self.constant(np.asarray(params['axis'], np.int64))
    name = name or self.whole(equation.invars[0])
    return self.node('CumSum', [name, axis], reverse=int(params['reverse']))

  def _cumprod(self, equation, params, aval):
    logs = self.node('Log', [self.whole(equation.invars[0])])
    return self.node('Exp', [self._cumsum(equation, params, aval, logs)])

  def _cummin(self, equation, params, aval):
    if aval.ndim != 2 or params['axis'] != 1 or params['reverse']:
      raise errors.UserError('ONNX: cummin is supported along rows only')
    # A max pool of the negatives, padded so that it sees what came before.
    count = aval.shape[1]
    name = self.node('Neg', [self.whole(equation.invars[0])])
    name = self._reshaped(name, (*aval.shape[:1], 1, count))
    name = self.node('MaxPool', [name], kernel_shape=[count], pads=[count - 1, 0])
    return self.node('Neg', [self._reshaped(name, aval.shape)])

  def _iota(self, equation, params, aval):
    shape = [1] * aval.ndim
    dim = params['dimension']
    if aval.shape[dim] == BATCH:
      raise errors.UserError('ONNX: an operation that counts the batch')
    shape[dim] = aval.shape[dim]
    return self.constant(np.arange(shape[dim], dtype=aval.dtype).reshape(shape))

  def _concatenate(self, equation, params, aval):
    names = [self.whole(var) for var in equation.invars]
    return self.node('Concat', names, axis=params['dimension'])

  def _slice(self, equation, params, aval):
    start, end = params['start_indices'], params['limit_indices']
    end = [2**31 if n == BATCH else n for n in end]
    steps = params['strides'] or [1] * len(start)
    parts = (start, end, range(len(start)), steps)
    name = self.whole(equation.invars[0])
    return self.node('Slice', [name, *map(self.shape_of, parts)])

  def _rev(self, equation, params, aval):
    axes = params['dimensions']
    start, end, steps = ([n] * len(axes) for n in (-1, -(2**31), -1))
    parts = (start, end, axes, steps)
    name = self.whole(equation.invars[0])
    return self.node('Slice', [name, *map(self.shape_of, parts)])

  def _pad(self, equation, params, aval):
    config = params['padding_config']
    if any(inner or low < 0 or high < 0 for low, high, inner in config):
      raise errors.UserError('ONNX: the operation pad with gaps is not supported')
    pads = [low for low, _, _ in config] + [high for _, high, _ in config]
    name, value = self.whole(equation.invars[0]), self.lazy(equation.invars[1])
    return self.node('Pad', [name, self.shape_of(pads), value])

  def _dot_general(self, equation, params, aval):
    (left, right), (left_batch, right_batch) = params['dimension_numbers']
    a, b = (var.aval.ndim for var in equation.invars)
    letters = iter('abcdefghijklmnopqrstuvwxyz')
    first = [next(letters) for _ in range(a)]
    second = [''] * b
    pairs = (*zip(left, right, strict=True), *zip(left_batch, right_batch, strict=True))
    for i, j in pairs:
      second[j] = first[i]
    second = [letter or next(letters) for letter in second]
    kept = [first[i] for i in left_batch]
    kept += [n for i, n in enumerate(first) if i not in (*left, *left_batch)]
    kept += [n for j, n in enumerate(second) if j not in (*right, *right_batch)]
    names = [self.whole(var) for var in equation.invars]
    if (a, b, tuple(left), tuple(right)) == (2, 2, (1,), (0,)):
      return self.node('MatMul', names)
    text = f'{"".join(first)},{"".join(second)}->{"".join(kept)}'
    return self.node('Einsum', names, equation=text)

  def _conv_general_dilated(self, equation, params, aval):
    numbers = params['dimension_numbers']
    if set(params['lhs_dilation']) != {1} or params['batch_group_count'] != 1:
      raise errors.UserError('ONNX: transposed convolutions are not supported')
    image, kernel = equation.invars
    name = self.node('Transpose', [self.whole(image)], perm=numbers.lhs_spec)
    weights = self.get(kernel)
    if isinstance(weights, tuple):
      turned = self.node('Transpose', [self.whole(kernel)], perm=numbers.rhs_spec)
    else:
      turned = self.constant(weights.transpose(numbers.rhs_spec))
    lows, highs = zip(*params['padding'], strict=True)
    found = self.node(
      'Conv',
      [name, turned],
      strides=params['window_strides'],
      pads=[*lows, *highs],
      dilations=params['rhs_dilation'],
      group=params['feature_group_count'],
    )
    return self.node('Transpose', [found], perm=np.argsort(numbers.out_spec).tolist())

  def _reduce_window_max(self, equation, params, aval):
    return self._pool('MaxPool', equation, params)

  def _reduce_window_sum(self, equation, params, aval):
    found = self._pool('AveragePool', equation, params, count_include_pad=1)
    count = np.asarray(np.prod(params['window_dimensions']), aval.dtype)
    return self.node('Mul', [found, self.constant(count)])

  def _pool(self, kind, equation, params, **attributes):
    window, padding = params['window_dimensions'], params['padding']
    dilations = {*params['base_dilation'], *params['window_dilation']}
    if len(window) != 4 or window[0] != 1 or window[3] != 1 or dilations != {1}:
      raise errors.UserError('ONNX: only 2-D pools are supported')
    name = self.whole(equation.invars[0])
    found = self.node(
      kind,
      [self.node('Transpose', [name], perm=[0, 3, 1, 2])],
      kernel_shape=window[1:3],
      strides=params['window_strides'][1:3],
      pads=[padding[1][0], padding[2][0], padding[1][1], padding[2][1]],
      **attributes,
    )
    return self.node('Transpose', [found], perm=[0, 2, 3, 1])
