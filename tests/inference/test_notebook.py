import json
import pathlib

import matplotlib
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[2] / 'docs' / 'predict.ipynb'


@pytest.mark.nightly
def test_the_notebook_runs(monkeypatch):
  matplotlib.use('agg')
  monkeypatch.setattr('matplotlib.figure.Figure.show', lambda _: None)
  cells = json.loads(NOTEBOOK.read_text('utf-8'))['cells']
  code = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
  names = {}
  for source in code:
    exec(compile(source, NOTEBOOK.name, 'exec'), names)
  assert len(names['answers']['age']) == 4 and len(code) == 7
  assert all(
    (names['again'][key] == names['answers'][key]).all() for key in names['again']
  )
