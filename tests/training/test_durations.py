import pytest

from agegender_jax import config as config_lib
from agegender_jax.training import durations


def durations_of(num_examples=100, **fields):
  train = config_lib.default_config().train
  train.update({'batch_size': 8, 'num_epochs': 2.0} | fields)
  return durations.create_durations(train, num_examples)


def test_epochs_become_steps():
  plan = durations_of()
  assert (plan.total, plan.per_epoch) == (25, 12.5)
  assert plan.evaluations == {12, 25}


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
