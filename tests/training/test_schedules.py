import types

import numpy as np
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.training import schedules, trainer


def durations_of(num_examples=100, **fields):
  train = config_lib.default_config().train
  train.update({'batch_size': 8, 'num_epochs': 2.0} | fields)
  return schedules.create_durations(train, num_examples)


def test_epochs_become_steps():
  plan = durations_of()
  assert (plan.total, plan.per_epoch) == (25, 12.5)
  assert plan.evaluations == {12, 25}


def test_the_shortest_period_is_a_step():
  plan = durations_of(eval_every_epochs=5e-324)
  assert plan.evaluations == set(range(1, 26))


def test_the_last_step_is_evaluated():
  plan = durations_of(eval_every_epochs=0.0, eval_every_steps=10)
  assert plan.evaluations == {10, 20, 25}


@pytest.mark.parametrize('steps_per_call', [1, 4, 5, 12, 100])
@pytest.mark.parametrize('start', [0, 12])
def test_calls_have_every_step_once_and_cross_no_evaluation(start, steps_per_call):
  plan = durations_of()
  calls = plan.calls(start, steps_per_call)
  assert [step for call in calls for step in call] == list(range(start, 25))
  # Two lengths at most: each is compiled.
  assert {len(call) for call in calls} <= {1, steps_per_call}
  ends = {call.stop for call in calls}
  assert {step for step in plan.evaluations if step > start} <= ends


def test_a_finished_run_has_no_calls():
  assert durations_of().calls(25, 4) == []


def config(**fields):
  result = config_lib.default_config().optimizer
  result.update(fields)
  return result


def schedule(num_steps=1000, steps_per_epoch=10.0, **fields):
  durations = schedules.Durations(num_steps, steps_per_epoch, frozenset())
  return schedules.create_schedule(config(**fields), durations)


def test_step_decay_by_steps_is_the_papers():
  rate = schedule(schedule='step_decay', decay_every_steps=100)
  for step, expected in [(0, 1e-3), (99, 1e-3), (100, 1e-4), (250, 1e-5)]:
    assert float(rate(step)) == pytest.approx(expected), step


def test_step_decay_by_epochs_is_the_reports():
  rate = schedule(schedule='step_decay', decay_every_epochs=3.0)
  for step in (0, 15, 19, 20, 49, 50, 80):
    expected = 1e-3 * 0.1 ** ((1 + step // 10) // 3)
    assert float(rate(step)) == pytest.approx(expected), step


def test_time_decay_is_keras_decay():
  rate = schedule(schedule='time_decay', decay_every_steps=100)
  for step in (0, 1, 50, 100, 900):
    # The legacy optimizers' rate / (1 + decay * iterations), decay 0.01.
    expected = 1e-3 / (1 + 0.01 * step)
    assert float(rate(step)) == pytest.approx(expected), step


def test_time_decay_by_epochs_halves_after_as_many():
  rate = schedule(schedule='time_decay', decay_every_epochs=3.0)
  for epoch, expected in [(0, 1e-3), (1.5, 2e-3 / 3), (3, 5e-4), (9, 2.5e-4)]:
    assert float(rate(round(10 * epoch))) == pytest.approx(expected), epoch


def test_cosine_with_warmup_hits_its_corners():
  rate = schedule(schedule='cosine', warmup_epochs=10.0)
  assert float(rate(0)) == 0
  assert float(rate(50)) == pytest.approx(5e-4)
  assert float(rate(100)) == pytest.approx(1e-3)
  assert float(rate(550)) == pytest.approx(5e-4)
  assert float(rate(1000)) == pytest.approx(0, abs=1e-9)


def test_constant_is_constant():
  assert float(schedule()(0)) == float(schedule()(999)) == np.float32(1e-3)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'schedule': 'steps'}, 'unknown optimizer.schedule'),
    ({'schedule': 'step_decay'}, 'exactly one of'),
    ({'schedule': 'time_decay'}, 'exactly one of'),
    ({'warmup_steps': 1, 'warmup_epochs': 1.0}, 'exactly one of'),
  ],
)
def test_a_wrong_schedule_is_refused(fields, message):
  with pytest.raises(errors.UserError, match=message):
    schedule(**fields)


def test_a_longer_run_of_a_mixture_names_its_old_end(capsys):
  own = config_lib.default_config()
  own.update({'data': {'name': 'utkface+fairface', 'mix_weights': 'fairface=2'}})
  own.optimizer.schedule = 'cosine'
  own.train.update({'batch_size': 10, 'num_epochs': 2.0})
  longer = own.copy_and_resolve_references()
  longer.train.num_epochs = 3.0
  source = type('Mixture', (list,), {'sizes': (80, 20)})(range(100))
  durations = schedules.create_durations(longer.train, 120)
  run = types.SimpleNamespace(durations=durations, schedule=lambda step: 0.0)
  changed = types.SimpleNamespace(config=longer, run=run, splits={'train': source})
  trainer._extend(changed, own, 12, ['train.num_epochs'])
  assert 'ends at step 36 instead of 24' in capsys.readouterr().out
