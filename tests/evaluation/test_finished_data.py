"""Whether a finished run saw the data that are named now."""

import json
import shutil

import faces_on_disk
import pytest

from agegender_jax import config as config_lib
from agegender_jax import errors
from agegender_jax.data import source
from agegender_jax.evaluation import summary


@pytest.fixture
def config(tmp_path):
  result = config_lib.default_config()
  result.data.source_dir = str(tmp_path / 'raw')
  result.data.data_dir = str(tmp_path / 'data')
  faces_on_disk.write_utkface(tmp_path / 'raw', 3)
  return result


@pytest.fixture
def workdir(config, tmp_path):
  """What matters here of a finished run."""
  result = tmp_path / 'run'
  config_lib.save_config(config, str(result))
  found = source.find_fingerprint(config.data)
  (result / 'data.json').write_text(json.dumps({'fingerprint': found}))
  return str(result)


def test_moved_data_are_the_same(config, workdir, tmp_path, capsys):
  summary.check_finished_data(config, workdir)
  config.data.source_dir = str((tmp_path / 'raw').rename(tmp_path / 'moved'))
  summary.check_finished_data(config, workdir)
  assert not capsys.readouterr().out
  assert not (tmp_path / 'data' / 'utkface').exists()  # Nothing is prepared for it.


def test_other_data_are_refused(config, workdir, tmp_path):
  faces_on_disk.write_utkface(tmp_path / 'other', 4)
  config.data.source_dir = str(tmp_path / 'other')
  with pytest.raises(errors.UserError, match='run" is finished, on other data'):
    summary.check_finished_data(config, workdir)


def test_data_that_changed_where_they_lie_are_refused(config, workdir, tmp_path):
  faces_on_disk.write_utkface(tmp_path / 'raw', 1, first=3)
  with pytest.raises(errors.UserError, match='on other data'):
    summary.check_finished_data(config, workdir)


def test_data_that_are_gone_are_not_compared(config, workdir, tmp_path, capsys):
  shutil.rmtree(tmp_path / 'raw')
  summary.check_finished_data(config, workdir)
  (line,) = capsys.readouterr().out.splitlines()
  assert 'are not compared: config.data.source_dir' in line
  config.data.source_dir = str(tmp_path / 'nowhere')
  with pytest.raises(errors.UserError, match='cannot be compared: .*nowhere'):
    summary.check_finished_data(config, workdir)


def test_a_run_without_fingerprint_goes_by_the_place(config, workdir, tmp_path, capsys):
  (tmp_path / 'run' / 'data.json').write_text('{}')
  summary.check_finished_data(config, workdir)
  assert 'recorded no fingerprint' in capsys.readouterr().out
  config.data.source_dir = str((tmp_path / 'raw').rename(tmp_path / 'moved'))
  with pytest.raises(errors.UserError, match='recorded no fingerprint'):
    summary.check_finished_data(config, workdir)
