"""The section on the network: its layers, and what each costs."""

import re

from agegender_jax.report import blocks

# More layers than this are summed up by block.
_MOST_ROWS = 24
_DRAWN = ('Conv', 'Dense')
_FLOPS = ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k'))


def count_text(value) -> str:
  """Formats a large number as `1.23 G`."""
  for size, letter in _FLOPS:
    if value >= size:
      return f'{value / size:.3g} {letter}'
  return f'{value:.0f}'


def block_of(name) -> str:
  """Returns the block of a layer: its stage in the backbone, or its branch.

  Args:
    name: path, such as `backbone/layer1_0/conv1`.

  Returns:
    Such as `backbone/layer1`, or `branch_age` of `branch_age/dense1`.
  """
  parts = re.split(r'[/.]', name)
  if len(parts) < 2:
    return name
  stage = re.sub(r'_\d+$', '', parts[1])
  return f'{parts[0]}/{stage}' if stage != parts[1] or len(parts) > 2 else (
    parts[0])  # fmt: skip


def _blocks_of(layers):
  """Sums layers up by block, in the order of the forward pass."""
  found = {}
  for layer in layers:
    found.setdefault(block_of(layer['name']), []).append(layer)
  result = []
  for name, inside in found.items():
    weighted = [layer for layer in inside if layer['parameters']] or inside
    result.append({
      'name': name,
      'kind': f'{len(weighted)} layer{"s" * (len(weighted) > 1)}',
      'output': inside[-1]['output'],
      'parameters': sum(layer['parameters'] for layer in inside),
      'flops': sum(layer['flops'] for layer in inside),
    })  # fmt: skip
  return result


def shape_text(output) -> str:
  """Formats a shape as `32 × 32 × 64`."""
  return ' \N{MULTIPLICATION SIGN} '.join(map(str, output))


def _table(layers, caption=''):
  total = {key: sum(layer[key] for layer in layers)
           for key in ('parameters', 'flops')}  # fmt: skip
  rows = []
  for place, layer in enumerate(layers):
    cells = [
      blocks.cell(layer['name'], place),
      blocks.cell(layer['kind']),
      blocks.cell(shape_text(layer['output']), layer['output'][0]
                  if layer['output'] else 0),
    ]  # fmt: skip
    for key, text in (('parameters', f'{layer["parameters"]:,}'),
                      ('flops', count_text(layer['flops']))):  # fmt: skip
      share = f'{100 * layer[key] / total[key]:.1f} %' if layer[key] else ''
      cells.append(blocks.cell(text, layer[key], share))
    rows.append(cells)
  last = [
    blocks.cell('total'), blocks.cell(''), blocks.cell('', 0),
    blocks.cell(f'{total["parameters"]:,}', total['parameters']),
    blocks.cell(count_text(total['flops']), total['flops']),
  ]  # fmt: skip
  header = ['Layer', 'Kind', 'Output', 'Parameters', 'FLOPs']
  return blocks.table(caption, header, rows, last)


def _drawing(layers):
  """Returns the boxes of each part of the network: backbone and branches."""
  drawn = [
    layer for layer in layers
    if any(kind in layer['kind'] for kind in _DRAWN)
  ] or layers  # fmt: skip
  if len(drawn) > _MOST_ROWS:
    drawn = _blocks_of(layers)
  parts = {}
  for layer in drawn:
    part, _, name = layer['name'].partition('/')
    parts.setdefault(part, []).append({
      'name': name or part, 'kind': layer['kind'],
      'output': shape_text(layer['output']),
      'parameters': count_text(layer['parameters']),
    })  # fmt: skip
  items = [
    {'name': name.replace('_', ' '), 'boxes': boxes} for name, boxes in parts.items()
  ]
  return {'kind': 'drawing', 'items': items}


def layers(run):
  """Returns the network's parts as a drawing, and its layers as a table."""
  if not run.layers:
    return {}
  note = blocks.note(
    'Of one picture, forward: a multiplication and an addition are two FLOPs; '
    'convolutions and dense layers count.'
  )
  if len(run.layers) <= _MOST_ROWS:
    return blocks.section('network', 'Network', _drawing(run.layers),
                          _table(run.layers), note)  # fmt: skip
  return blocks.section(
    'network', 'Network', _drawing(run.layers),
    _table(_blocks_of(run.layers), 'By block'), note,
    blocks.fold(f'All {len(run.layers)} layers', _table(run.layers)),
  )  # fmt: skip
