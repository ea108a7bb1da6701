"""The record of a sweep: what may be added to it, and what is none."""

import json

import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.studies import sweeps

HEAD = {'recipe': 'a.py', 'sweep': 'folds'}


def run_of(*flags, arg='', setting='net', fold=None, seed=0):
  return sweeps.Run(setting, fold, seed, f'{setting}_fold{fold}_seed{seed}', (
    f'--config=a.py:{arg}', *flags, f'--config.seed={seed}'
  ))  # fmt: skip


def test_repeats_of_a_setting_have_the_same_flags(tmp_path):
  first = run_of('--config.train.num_steps=3')
  sweeps.write_record(tmp_path, HEAD, [first], {})
  more = run_of('--config.train.num_steps=4', seed=1)
  with pytest.raises(
    errors.UserError, match='seed0 has .*steps=3, its setting .*steps=4: choose'
  ):
    sweeps.write_record(tmp_path, HEAD, [more], {})
  with pytest.raises(errors.UserError, match='now asked with fewer: choose'):
    sweeps.write_record(tmp_path, HEAD, [run_of(seed=1)], {})
  assert len(sweeps.read_record(tmp_path)['runs']) == 1
  # Asked for again, a run is compared with its own folder instead.
  again = run_of('--config.train.num_steps=4')
  sweeps.write_record(tmp_path, HEAD, [again], {})
  sweeps.write_record(tmp_path, HEAD, [again, more], {})
  assert len(sweeps.read_record(tmp_path)['runs']) == 2


@pytest.mark.parametrize(
  'more, is_same',
  [
    (run_of(arg='target=age,fold=1', fold=1), True),
    (run_of(arg='fold=1,target=age', fold=1), True),
    (run_of(arg='target=gender,fold=1', fold=1), False),
    (run_of(arg='target=gender,fold=1', setting='other', fold=1), True),
    (run_of('--config.data.source_dir=/x', arg='target=age', seed=1), True),
    (run_of('--config.train.batch_size=8', arg='target=age', seed=1), False),
  ],
)
def test_seed_fold_and_place_may_differ(tmp_path, more, is_same):
  first = run_of('--config.data.source_dir=/y', arg='target=age,fold=0', fold=0)
  sweeps.write_record(tmp_path, HEAD, [first], {})
  if is_same:
    sweeps.write_record(tmp_path, HEAD, [more], {})
  else:
    with pytest.raises(errors.UserError, match='its setting is now asked'):
      sweeps.write_record(tmp_path, HEAD, [more], {})


def test_a_failed_run_binds_no_repeat(tmp_path):
  first = run_of('--config.train.num_steps=3')
  sweeps.write_record(tmp_path, HEAD, [first], {first.folder: 'no such field'})
  sweeps.write_record(tmp_path, HEAD, [run_of(seed=1)], {})


def test_free_flags_are_fields_that_change_no_number():
  free = set(sweeps.FREE_FLAGS) - {'seed'}
  assert free <= set(config_lib._FREE_FIELDS)


@pytest.mark.parametrize(
  'text',
  [
    '[]', '{', 'null', '{"recipe": "a.py"}', '"\udcff"',
    json.dumps(HEAD | {'runs': {}}), json.dumps(HEAD | {'runs': ['a']}),
    json.dumps(HEAD | {'runs': [{'folder': 'a'}]}),
  ],
)  # fmt: skip
def test_a_broken_record_is_named(tmp_path, text):
  path = tmp_path / sweeps.RECORD
  path.write_bytes(text.encode('utf-8', 'surrogateescape'))
  for use in (
    lambda: sweeps.read_record(tmp_path),
    lambda: sweeps.write_record(tmp_path, HEAD, [run_of()], {}),
  ):
    with pytest.raises(errors.UserError, match='sweep.json is broken: delete'):
      use()
