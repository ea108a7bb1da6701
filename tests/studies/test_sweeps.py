"""The record of a sweep: what may be added to it, and what is none."""

import json

import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.studies import sweeps


def head_of(*flags, arg='', recipe='a.py', sweep='folds'):
  return sweeps.create_head(recipe, arg, sweep, flags)


def run_of(seed=0, fold=None, error=''):
  return sweeps.Run('net', fold, seed, f'net_fold{fold}_seed{seed}', (), error)


STEPS = '--config.train.num_steps=3'


@pytest.mark.parametrize(
  'other, words',
  [
    (head_of(), 'holds .*num_steps=3, not .*no flags: choose'),
    (head_of('--config.train.num_steps=4'), 'num_steps=3, not .*num_steps=4'),
    (head_of(STEPS, arg='target=age'), 'not .*with target=age --config'),
    (head_of(STEPS, sweep='x'), 'holds the sweep "folds" of a.py'),
    (head_of(STEPS, recipe='b.py'), 'not the sweep "folds" of b.py'),
  ],
)
def test_a_folder_holds_one_sweep(tmp_path, other, words):
  sweeps.write_record(tmp_path, head_of(STEPS), [run_of()])
  with pytest.raises(errors.UserError, match=words):
    sweeps.write_record(tmp_path, other, [run_of(seed=1)])
  assert sweeps.read_record(tmp_path) == (head_of(STEPS), [run_of()])


@pytest.mark.parametrize(
  'other',
  [
    head_of(arg='target=age,fold=1'),
    head_of(arg='fold=1,target=age'),
    head_of('--config.data.source_dir=/x', arg='target=age'),
  ],
)
def test_seed_fold_and_place_may_differ(tmp_path, other):
  first = head_of('--config.data.source_dir=/y', arg='target=age,fold=0')
  sweeps.write_record(tmp_path, first, [run_of(fold=0)])
  sweeps.write_record(tmp_path, other, [run_of(fold=1)])
  assert [run.fold for run in sweeps.read_record(tmp_path)[1]] == [0, 1]


def test_a_call_replaces_what_it_names_again(tmp_path):
  sweeps.write_record(tmp_path, head_of(), [run_of(), run_of(1, error='why')])
  sweeps.write_record(tmp_path, head_of(), [run_of(1), run_of(2)])
  assert sweeps.read_record(tmp_path)[1] == [run_of(), run_of(1), run_of(2)]


def test_failed_runs_bind_no_later_call(tmp_path):
  sweeps.write_record(tmp_path, head_of(STEPS), [run_of(error='no such field')])
  sweeps.write_record(tmp_path, head_of(), [run_of(seed=1)])
  assert sweeps.read_record(tmp_path) == (head_of(), [run_of(seed=1)])


def test_free_flags_are_fields_that_change_no_number():
  assert set(sweeps.FREE_FLAGS) <= set(config_lib._FREE_FIELDS)


@pytest.mark.parametrize(
  'text',
  [
    '[]', '{', 'null', '{"recipe": "a.py"}', '"\udcff"',
    json.dumps(head_of() | {'runs': {}}), json.dumps(head_of() | {'runs': ['a']}),
    json.dumps(head_of() | {'runs': [{'folder': 'a'}]}),
    json.dumps({'recipe': 'a.py', 'sweep': 'folds', 'runs': []}),
  ],
)  # fmt: skip
def test_a_broken_record_is_named(tmp_path, text):
  path = tmp_path / sweeps.RECORD
  path.write_bytes(text.encode('utf-8', 'surrogateescape'))
  for use in (
    lambda: sweeps.read_record(tmp_path),
    lambda: sweeps.write_record(tmp_path, head_of(), [run_of()]),
  ):
    with pytest.raises(errors.UserError, match='sweep.json is broken: delete'):
      use()
