"""Programs kept on disk: traced once, the same results, nothing stale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agegender_jax.runtime import devices, programs
from agegender_jax.training import state


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setattr(programs, '_folder', None)
  programs.keep_in(tmp_path / 'programs')
  return tmp_path / 'programs'


def steps(first, data, batches, key):
  noise = jax.random.normal(key, first.params['w'].shape)
  total = devices.psum(batches['x'].sum())
  params = {'w': first.params['w'] * total + noise}
  report = {'loss': (total[None], jnp.ones(1))}
  return first.replace(step=first.step + 1, params=params), report


def never(*_):
  raise AssertionError('traced again')


def arguments():
  first = state.TrainState(
    step=jnp.zeros((), jnp.int32),
    params={'w': jnp.arange(3.0)},
    batch_stats={},
    opt_state=(),
  )
  batch = devices.shard_steps({'x': np.arange(8.0, dtype=np.float32)}, 1)
  return devices.replicate(first), {}, batch, jax.random.key(5)


def equal(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)
  return jax.tree.structure(left) == jax.tree.structure(right)


def test_a_kept_step_is_the_step_and_is_traced_once(folder, monkeypatch):
  kept = devices.pmap_train_steps(steps, 'terms')(*arguments())
  # As the next process would: another function object, the same terms.
  again = devices.pmap_train_steps(never, 'terms')(*arguments())
  monkeypatch.setattr(programs, '_folder', None)
  plain = devices.pmap_train_steps(steps, 'terms')(*arguments())
  assert equal(kept, plain) and equal(again, plain)
  assert len(list(folder.iterdir())) == 1


def test_a_report_is_one_array_and_comes_back_by_name(folder, monkeypatch):
  def two_steps(first, *args):
    pair = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
    return first, {'loss': pair, 'age_mae': (pair[1], 2 * pair[1])}

  def reported():
    _, report = devices.pmap_train_steps(two_steps, 'terms')(*arguments())
    assert len(jax.tree.leaves(report)) == 1  # Each more costs every step.
    return jax.tree.map(np.ndarray.tolist, devices.read(report))

  expected = {'loss': ([1, 2], [3, 4]), 'age_mae': ([3, 4], [6, 8])}
  assert reported() == expected
  assert reported() == expected  # By the kept program.
  monkeypatch.setattr(programs, '_folder', None)
  assert reported() == expected


def test_the_state_of_a_kept_step_is_donated(folder):
  first, *others = arguments()
  devices.pmap_train_steps(steps, 'terms')(first, *others)
  assert first.params['w'].is_deleted()


def test_a_kept_prediction_is_the_prediction(folder):
  image = np.ones((2, 3, 4, 4, 3), np.uint8)
  variables = devices.replicate({'w': jnp.arange(3.0)})

  def step(variables, image):
    return {'logits': {'age': image.mean((1, 2)) * variables['w'][None]}}

  kept = devices.pmap_predict_step(step, 'terms')(variables, image)
  again = devices.pmap_predict_step(never, 'terms')(variables, image)
  assert equal(kept, jax.pmap(step)(variables, image))
  assert equal(again, kept)


@pytest.mark.parametrize('change', ['terms', 'shapes', 'source', 'settings'])
def test_what_a_program_follows_from_names_it(folder, monkeypatch, change):
  args = arguments()
  terms = 'terms'
  devices.pmap_train_steps(steps, terms)(*args)
  first, data, batch, key = arguments()
  if change == 'terms':
    terms = 'other'
  elif change == 'shapes':
    batch = devices.shard_steps({'x': np.ones(4, np.float32)}, 1)
  elif change == 'source':
    monkeypatch.setattr(programs, '_source_digest', lambda: 'edited')
    programs.keep_in(folder)
  precision = 'highest' if change == 'settings' else None
  with jax.default_matmul_precision(precision):
    with pytest.raises(AssertionError, match='traced again'):
      devices.pmap_train_steps(never, terms)(first, data, batch, key)


def test_a_torn_file_is_written_anew(folder):
  kept = devices.pmap_train_steps(steps, 'terms')(*arguments())
  (path,) = folder.iterdir()
  content = path.read_bytes()
  for torn in (b'', content[:100], content[:-1], content[:-1] + b'!'):
    path.write_bytes(torn)
    again = devices.pmap_train_steps(steps, 'terms')(*arguments())
    assert equal(again, kept)
    assert path.read_bytes() == content


def test_nothing_is_kept_without_a_folder(folder, monkeypatch):
  monkeypatch.setattr(programs, '_folder', None)
  devices.pmap_train_steps(steps, 'terms')(*arguments())
  assert not folder.exists()


def test_a_place_that_takes_no_file_stops_no_run(tmp_path, folder):
  (tmp_path / 'file').write_text('')
  programs.keep_in(tmp_path / 'file' / 'programs')
  first, report = devices.pmap_train_steps(steps, 'terms')(*arguments())
  assert int(first.step[0]) == 1


def test_a_file_that_cannot_be_read_is_as_none(folder):
  devices.pmap_train_steps(steps, 'terms')(*arguments())
  (path,) = folder.iterdir()
  path.unlink()
  path.mkdir()
  first, report = devices.pmap_train_steps(steps, 'terms')(*arguments())
  assert int(first.step[0]) == 1


def test_source_that_was_edited_since_the_start_keeps_nothing(folder, monkeypatch):
  monkeypatch.setattr(programs, '_source_digest', lambda: 'edited')
  devices.pmap_train_steps(steps, 'terms')(*arguments())
  assert not folder.exists()


def test_what_cannot_be_written_down_runs_all_the_same(folder, capfd):
  def with_a_look(first, *args):
    jax.debug.print('step {}', first.step)
    return steps(first, *args)

  first, report = devices.pmap_train_steps(with_a_look, 't')(*arguments())
  jax.effects_barrier()
  assert int(first.step[0]) == 1 and not folder.exists()
  assert 'step 0' in capfd.readouterr().out
