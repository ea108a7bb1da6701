import pathlib
import re

import pytest
from ml_collections import config_dict

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax import recipes as recipes_lib

ROOT = pathlib.Path(__file__).parent.parent


def test_every_field_is_read_by_code():
  code = '\n'.join(
    path.read_text()
    for path in sorted((ROOT / 'agegender_jax').rglob('*.py'))
    if path.name != 'config.py'
  )
  for name in config_lib.flatten(config_lib.default_config()):
    field = name.rpartition('.')[2]
    # As an attribute, as a key, or as the field of augment.Strengths.
    reads = rf'(config|data|train|optimizer|model|tasks)\S*\.{field}\b'
    reads += rf"|'{field}'|\['{field}'\]|^  {field}: (bool|float)"
    assert re.search(reads, code, re.MULTILINE), f'{name} is read nowhere'


def test_every_field_has_a_comment():
  lines = (ROOT / 'agegender_jax/config.py').read_text().splitlines()
  for name in config_lib.flatten(config_lib.default_config()):
    field = name.split('.')[1] if '.' in name else name
    at = next(i for i, line in enumerate(lines)
              if re.match(rf'  \w+\.{field} = ', line))  # fmt: skip
    # On its line, or on the lines above that it shares with its neighbour.
    block = [lines[at], lines[at - 1], lines[at - 2]]
    assert any('#' in line for line in block), name


def test_parse_arg_types_values_by_their_defaults():
  arg = recipes_lib.parse_arg('fold=2,runlocal,name=a', fold=0, runlocal=False,
                             name='', rate=0.5)  # fmt: skip
  assert (arg.fold, arg.runlocal, arg.name, arg.rate) == (2, True, 'a', 0.5)


@pytest.mark.parametrize(
  'text, message',
  [
    ('fodl=2', 'did you mean "fold"'),
    ('fold=x', 'wants int'),
    ('flag=maybe', 'true or false'),
  ],
)
def test_parse_arg_names_what_is_wrong(text, message):
  with pytest.raises(errors.UserError, match=message):
    recipes_lib.parse_arg(text, fold=0, flag=False)


def test_saved_config_comes_back(tmp_path):
  config = config_lib.default_config()
  config.train.batch_size = 12
  config_lib.save_config(config, str(tmp_path))
  loaded = config_lib.load_config(str(tmp_path))
  assert config_lib.flatten(loaded) == config_lib.flatten(config)


@pytest.mark.parametrize('begun', ['metrics.jsonl', 'checkpoints.json', 'run.json'])
def test_another_config_is_refused_once_training_began(tmp_path, begun):
  config = config_lib.default_config()
  config_lib.save_config(config, str(tmp_path))
  config.optimizer.learning_rate = 0.4  # Corrected before training began.
  assert config_lib.check_resume(config, str(tmp_path)) is None
  config_lib.save_config(config, str(tmp_path))
  (tmp_path / begun).write_text('{}')
  config.data.num_workers = 1  # Changes no number.
  assert config_lib.check_resume(config, str(tmp_path)) == []
  config.train.num_epochs = 20.0
  extended = config_lib.check_resume(config, str(tmp_path))
  assert extended == ['train.num_epochs was 10.0, is 20.0']
  config.optimizer.learning_rate = 0.5
  with pytest.raises(errors.UserError, match='optimizer.learning_rate was'):
    config_lib.check_resume(config, str(tmp_path))


def test_recipes_build_and_only_override():
  known = set(config_lib.flatten(config_lib.default_config()))
  recipes = sorted((ROOT / 'configs').glob('*.py'))
  assert recipes
  for path in recipes:
    module = recipes_lib.load(path)
    assert set(config_lib.flatten(module.get_config())) == known
    assert f'--config=configs/{path.name}' in module.__doc__


@pytest.mark.parametrize('name', ['seed', 'train.num_epochs', 'data.zoom'])
def test_numbers_below_zero_are_refused(name):
  config = config_lib.default_config()
  config_lib.check_values(config)
  config.update_from_flattened_dict({name: -1})
  with pytest.raises(errors.UserError, match=name):
    config_lib.check_values(config)


@pytest.mark.parametrize('name', ['seed', 'data.synthetic_seed'])
def test_seeds_fit_64_bits(name):
  config = config_lib.default_config()
  config.update_from_flattened_dict({name: 2**63 - 1})
  config_lib.check_values(config)
  config.update_from_flattened_dict({name: 2**63})
  with pytest.raises(errors.UserError, match=f'{name} = {2**63} .* below 9'):
    config_lib.check_values(config)


def test_an_error_without_text_is_one_line_too(tmp_path, monkeypatch):
  config_lib.save_config(config_lib.default_config(), str(tmp_path))

  def fail(*_):
    raise ValueError

  monkeypatch.setattr(config_dict.ConfigDict, 'update', fail)
  with pytest.raises(errors.UserError, match='does not fit this version: ValueError'):
    config_lib.load_config(str(tmp_path))


@pytest.mark.parametrize('name', ['model.drop_path', 'optimizer.layer_decay'])
def test_fractions_of_one_are_refused(name):
  config = config_lib.default_config()
  config.update_from_flattened_dict({name: 1.0})
  with pytest.raises(errors.UserError, match=f'{name} = 1.0 must be below 1'):
    config_lib.check_values(config)


@pytest.mark.parametrize('kind, is_refused', [('mse', False), ('group', True)])
def test_only_a_network_of_groups_keeps_its_groups(tmp_path, kind, is_refused):
  config = config_lib.default_config()
  config.tasks.age.kind = kind
  config_lib.save_config(config, str(tmp_path))
  config.data.age_groups = 'fairface'
  config.data.oversample = True  # Any network may be over-sampled.
  if not is_refused:
    config_lib.check_network(config, str(tmp_path))
    return
  with pytest.raises(errors.UserError, match="groups was 'adience'"):
    config_lib.check_network(config, str(tmp_path))


def test_a_resumed_run_keeps_its_number_of_cpu_devices(tmp_path, capsys):
  config = config_lib.default_config()
  assert config_lib.recorded(str(tmp_path), 'cpu_devices') == 0
  config_lib.save_config(config, str(tmp_path), cpu_devices=2, threads=4)
  assert config_lib.recorded(str(tmp_path), 'cpu_devices') == 2
  for count in (2, 0):  # None on a GPU.
    config_lib.check_cpu(str(tmp_path), count, 4)
  config_lib.check_cpu(str(tmp_path), 0, 1)
  assert not capsys.readouterr().out
  config_lib.check_cpu(str(tmp_path), 2, 1)
  assert 'began with 4 CPU threads per device and goes on with 1' in (
    capsys.readouterr().out
  )
  with pytest.raises(errors.UserError, match='for 2 devices, not 1: leave out'):
    config_lib.check_cpu(str(tmp_path), 1, 4)
  # It is no part of the experiment.
  (tmp_path / 'checkpoints' / '1').mkdir(parents=True)
  config = config_lib.default_config()
  config.train.cpu_devices = 1
  assert config_lib.check_resume(config, str(tmp_path)) == []
