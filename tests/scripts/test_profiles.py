"""Where a step's time goes: names of operations and layers."""

import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'scripts'))

from benchmarking import profiles, tables  # noqa: E402, found by the path above.

NET = 'jit(_fun)/jvp(MultiBranchCNN)/backbone/conv2'


@pytest.mark.parametrize(
  'op_name, kind, layer',
  [
    (f'{NET}/conv_general_dilated', 'conv_general_dilated, forward',
     'backbone/conv2'),
    ('jit(_fun)/transpose(jvp(ResNet))/backbone/layer1_0/conv1/while/body/'
     'closed_call/tnc,tnd->tcd/dot_general', 'dot_general, backward',
     'backbone/layer1_0'),
    ('jit(_fun)/jvp(Net)/branch_age/logits/add', 'add, forward',
     'branch_age/logits'),
    ('jit(joined)/shard_map/jvp(Net)/branch_age/logits/add', 'add, forward',
     'branch_age/logits'),
    ('jit(joined)/shard_map/jvp(Net)', 'unknown, forward', ''),
    ('jit(_fun)/jvp()/sub', 'sub, forward', ''),
    ('jit(_fun)/sqrt', 'sqrt, update', ''),
    ('jit(_fun)/jvp(Net)', 'unknown, forward', ''),
  ],
)  # fmt: skip
def test_an_operation_has_a_kind_and_a_layer(op_name, kind, layer):
  assert profiles.describe_operation(op_name) == (kind, layer)


def test_operations_are_read_from_a_compiled_program():
  program = (
    '  %dot.1 = f32[2,2]{1,0} dot(%a, %b), metadata={op_name="jit(f)/dot" '
    'stack_frame_id=1}\n  ROOT %add-fusion.2 = f32[2]{0} fusion(%dot.1), '
    'metadata={op_name="jit(f)/add"}\n  %p = f32[2]{0} parameter(0)\n'
  )
  assert profiles.parse_operations(program) == {
    'dot.1': 'jit(f)/dot',
    'dot_1': 'jit(f)/dot',
    'add-fusion.2': 'jit(f)/add',
    'add_fusion_2': 'jit(f)/add',
  }


def test_a_program_is_profiled():
  def product(x):
    return jnp.tanh(x @ x)

  x = jnp.ones((300, 300))
  compiled = jax.jit(product).lower(x).compile()
  found = profiles.record(
    lambda count: [compiled(x).block_until_ready() for _ in range(count)],
    5,
    compiled.as_text(),
  )
  assert 'dot_general, update' in found['operations']
  total = sum(found['operations'].values())
  assert 0 < total == pytest.approx(sum(found['layers'].values()))


def test_a_gpus_kernels_count_and_not_what_its_host_does(monkeypatch):
  def event(name, milliseconds, **stats):
    return types.SimpleNamespace(
      name=name, duration_ns=milliseconds * 1e6, stats=stats.items()
    )

  def plane(name, *events):
    return types.SimpleNamespace(
      name=name, lines=[types.SimpleNamespace(events=events)]
    )

  planes = [
    plane('/host:CPU', event('dot_1', 7), event('conv.2', 7)),
    plane(
      '/device:GPU:0',
      event('dot_1', 4),
      event('sm90_xmma_fprop', 6, hlo_op='conv.2'),
      event('MemcpyD2D', 9),
    ),
  ]
  monkeypatch.setattr(
    jax.profiler.ProfileData,
    'from_file',
    lambda path: types.SimpleNamespace(planes=planes),
  )
  program = (
    '%dot.1 = f32[2] dot(), metadata={op_name="jit(f)/jvp(Net)/backbone/a/dot"}'
    '\n%conv.2 = f32[2] custom-call(), metadata={op_name="jit(f)/update"}'
  )
  found = profiles.record(lambda steps: None, 2, program)
  assert found['operations'] == {'update, update': 3, 'dot, forward': 2}
  assert found['layers'] == {'outside of layers': 3, 'backbone/a': 2}


def test_the_longest_parts_are_shown_with_their_share():
  times = {f'op{n}': float(20 - n) for n in range(20)}
  text = tables.to_markdown({'profile': {'operations': times}})
  assert '| op0 | 20.0 | 10% |' in text and 'op12' not in text
  assert '| all | 210.0 | 100% |' in text
