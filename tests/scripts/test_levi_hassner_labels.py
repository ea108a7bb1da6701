import pathlib

import pytest

from agegender_jax import errors, recipes

script = recipes.load(
  pathlib.Path(__file__).parents[2] / 'scripts' / 'levi_hassner_labels.py'
)


def test_counts_what_the_printed_code_mislabels(tmp_path):
  rows = [
    ('1', '(25, 32)', 'f'), ('2', '(8, 12)', 'm'), ('3', '35', 'u'),
    ('4', '(38, 48)', ''), ('5', 'None', 'm'), ('6', '', 'm'),
  ]  # fmt: skip
  lines = ['user_id\toriginal_image\tface_id\tage\tgender']
  lines += [f'a\tb.jpg\t{face}\t{age}\t{gender}' for face, age, gender in rows]
  for fold in range(5):
    text = lines[:1] + lines[1 + fold :: 5] + ['cut\tshort'] * (fold == 0)
    (tmp_path / f'fold_{fold}_data.txt').write_text('\n'.join(text) + '\n')
  assert script.count(tmp_path) == {
    'rows': 7, 'mislabelled_age': 6, 'mislabelled_gender': 3,
  }  # fmt: skip


def test_absent_label_files_are_named(tmp_path):
  with pytest.raises(errors.UserError, match='holds no Adience; give'):
    script.count(tmp_path)


def test_the_real_label_files(shared):
  folder = shared / 'data' / 'adience'
  if not folder.is_dir():
    pytest.skip(f'{folder} is absent (set AGEGENDER_SHARED)')
  assert script.count(folder) == {
    'rows': 19_370, 'mislabelled_age': 4_101, 'mislabelled_gender': 1_878,
  }  # fmt: skip
