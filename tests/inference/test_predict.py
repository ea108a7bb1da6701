import csv
import dataclasses
import io
import json
import types

import numpy as np
import pytest
from PIL import Image

from agegender_jax import errors, files, schema
from agegender_jax.evaluation import score_file
from agegender_jax.inference import annotate, api, photos, predict
from agegender_jax.report import run

FACES = [
  api.Face(31.24, 18.04, 44.4, '25-32', gender='male', gender_prob=0.07),
  api.Face(60.0, 40.0, 80.0, '60+', gender='female', gender_prob=0.5124),
]
FOUND = dataclasses.replace(
  FACES[0], box=(1.0, 2.0, 30.25, 40.0), landmarks=((5.0, 6.0),) * 5, score=0.91
)


def test_a_row_has_the_contracts_columns():
  row = predict.format_row('a.jpg', FACES[0], 'adience')
  assert tuple(row) == (*schema.PREDICTION_COLUMNS, 'confidence', 'error')
  assert row['name'] == 'a.jpg' and row['error'] == ''
  assert (row['age_pred'], row['age_low'], row['age_high']) == (
    '31.2', '18.0', '44.4',
  )  # fmt: skip
  assert (row['gender_prob'], row['confidence']) == ('0.0700', '0.9300')
  assert row['age_group_pred'] == '4'
  assert row['age'] == row['gender'] == ''  # Labels that nobody gave.


def test_a_row_of_a_found_face_says_where_it_is_first():
  row = predict.format_row('a.jpg', FOUND, 'adience', 2)
  assert tuple(row) == (
    'name', 'face', 'face_left', 'face_top', 'face_right', 'face_bottom',
    'landmarks', 'face_score', *schema.PREDICTION_COLUMNS[1:], 'confidence', 'error',
  )  # fmt: skip
  assert (row['face'], row['face_right'], row['face_score']) == ('2', '30.2', '0.9100')
  assert row['landmarks'].split() == ['5.0', '6.0'] * 5
  assert predict.format_line(row, 'adience', 9).startswith('a.jpg [2]    31.2')
  none = predict.format_row('b.jpg', api.Face(error=photos.NO_FACE), 'adience', 1)
  assert tuple(none) == tuple(row) and none['face'] == ''
  assert predict.format_line(none, 'adience', 5) == 'b.jpg  no face found'


def test_an_unreadable_image_has_an_error_and_nothing_else():
  row = predict.format_row('b.jpg', api.Face(error='what is wrong'), 'adience')
  filled = {name: value for name, value in row.items() if value}
  assert filled == {'name': 'b.jpg', 'error': 'what is wrong'}


def test_lines_of_the_table_stand_below_their_heading():
  head = predict.format_line({}, 'adience', 8)
  lines = [
    predict.format_line(predict.format_row('a.jpg', face, 'adience'), 'adience', 8)
    for face in FACES
  ]  # fmt: skip
  assert lines[0] == 'a.jpg       31.2    18.0 - 44.4  male    93.0%'
  assert lines[1].endswith('female  51.2%')
  assert head.index('gender') == lines[0].index('male')
  assert head.index('90 %') + 4 == lines[0].index('44.4') + 4
  row = predict.format_row('c.jpg', api.Face(age_group='60+'), 'adience')
  assert predict.format_line(row, 'adience', 8).split() == ['c.jpg', '60+']
  broken = predict.format_row('d.jpg', api.Face(error='cut short'), 'adience')
  line = predict.format_line(broken, 'adience', 8)
  assert line == 'd.jpg     unreadable: cut short'


def test_a_name_that_is_not_utf8_can_be_shown():
  row = predict.format_row('caf\udce9.jpg', FACES[0], 'adience')
  assert predict.format_line(row, 'adience', 4).startswith('caf\\xe9.jpg')


def test_the_last_lines_count_and_name_a_few_broken_ones():
  text = predict.summarise(10_000, [f'{row}.jpg' for row in range(12)], 40.0, {})
  lines = text.splitlines()
  assert lines[0] == ('10000 images, 12 of them with an error, 40.0 s, 250.0 images/s')
  assert lines[1] == 'error: 0.jpg' and len(lines) == 12
  assert lines[-1] == 'and 2 more, see column "error"'
  assert predict.summarise(2, [], 1.0, {}).count('\n') == 0
  counts = {'faces': 3, 'faceless': 1}
  assert '1 without a face, 3 faces, 1.0 s' in predict.summarise(2, [], 1.0, counts)


def test_a_reader_that_leaves_stops_the_table_only(monkeypatch):
  class Closed(io.StringIO):
    def write(self, text):
      raise BrokenPipeError

  monkeypatch.setattr(predict.sys, 'stdout', Closed())
  with monkeypatch.context():
    predict._print(print, 'one')
    predict._print(print, 'two')
  predict.sys.stdout.close()


def test_a_terminal_that_is_not_utf8_gets_backslashes(monkeypatch):
  stream = io.TextIOWrapper(io.BytesIO(), encoding='cp1252')
  monkeypatch.setattr(predict.sys, 'stdout', stream)
  predict._print(print, '\u00e9 \u4eba')
  stream.flush()
  assert stream.buffer.getvalue() == b'\xe9 \\u4eba\n'


@pytest.mark.parametrize('suffix', ['.csv', '.jsonl', '.parquet'])
def test_a_table_is_written_in_each_form(tmp_path, suffix):
  if suffix == '.parquet':
    parquet = pytest.importorskip('pyarrow.parquet')
  path = tmp_path / 'new' / f'a{suffix}'
  with predict.open_table(str(path), predict.DETECT_COLUMNS) as write_row:
    for number, face in enumerate((FOUND, api.Face(error='broken')), 1):
      write_row(predict.format_row('caf\udce9.jpg', face, 'adience', number))
  if suffix == '.csv':
    with path.open(encoding='utf-8', errors='surrogateescape') as file:
      rows = list(csv.DictReader(file))
    assert rows[0]['name'] == 'caf\udce9.jpg'
    assert (rows[0]['face'], rows[1]['face']) == ('1', '')
    return
  if suffix == '.jsonl':
    rows = [json.loads(line) for line in path.read_text('utf-8').splitlines()]
  else:
    rows = parquet.read_table(path).to_pylist()
  assert rows[0]['name'] == 'caf\\xe9.jpg'
  assert (rows[0]['face'], rows[1]['face']) == (1, None)
  assert rows[0]['age_pred'] == 31.2 and rows[1]['error'] == 'broken'
  assert list(rows[0]) == list(predict.DETECT_COLUMNS)


def test_another_suffix_is_refused(tmp_path):
  table = predict.open_table(str(tmp_path / 'a.xlsx'), predict.COLUMNS)
  with pytest.raises(errors.UserError, match=r'\.csv, \.jsonl, \.parquet'), table:
    pass


@pytest.mark.parametrize('suffix', ['.csv', '.jsonl', '.parquet'])
def test_an_interrupted_table_leaves_no_file(tmp_path, suffix):
  if suffix == '.parquet':
    pytest.importorskip('pyarrow')
  path = tmp_path / f'a{suffix}'
  path.write_text('older')
  with (
    pytest.raises(KeyboardInterrupt),
    predict.open_table(str(path), predict.COLUMNS) as write_row,
  ):
    write_row(predict.format_row('a.jpg', FACES[0], 'adience'))
    raise KeyboardInterrupt
  assert [file.name for file in tmp_path.iterdir()] == [path.name]
  assert path.read_text() == 'older'


NAMES = ['=1+1.jpg', '+a', '-b', '@c', "'=d", "''=e", "it's", '\ttab', 'plain', '']


def test_a_spreadsheet_runs_no_name_and_we_read_it_back(tmp_path):
  path = tmp_path / 'a.csv'
  with predict.open_table(str(path), predict.COLUMNS) as write_row:
    for name in NAMES:
      write_row(predict.format_row(name, FACES[0], 'adience'))
  with path.open(newline='') as file:
    cells = [row['name'] for row in csv.DictReader(file)]
  assert not any(cell.startswith(files.FORMULA) for cell in cells)
  assert cells[0] == "'=1+1.jpg" and cells[6] == "it's"
  assert run.read_predictions(path)['name'] == NAMES
  assert score_file.read_predictions(str(path))[0] == NAMES


def test_a_terminal_gets_no_control_characters():
  row = predict.format_row('\x1b[31m\u202e\n.jpg', FACES[0], 'adience')
  assert predict.format_line(row, 'adience', 4).startswith(
    r'\x1b[31m\u202e\n.jpg  '
  )  # fmt: skip
  row = predict.format_row('a', api.Face(error='\x07'), 'adience')
  assert predict.format_line(row, 'adience', 1) == r'a  unreadable: \x07'
  text = predict.summarise(1, ['\x1b\x9b'], 1.0, {})
  assert text.splitlines()[1] == r'error: \x1b\x9b'


def test_annotated_images_have_the_box_and_a_label_each(tmp_path):
  assert annotate.label_of(FACES[0]) == '31 (18-44), male 93 %'
  assert annotate.label_of(api.Face(age_group='60+')) == '60+'
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    Image.new('RGB', (400, 300), 'grey').save(tmp_path / name / 'x.png')
  face = dataclasses.replace(FOUND, box=(100.0, 100.0, 200.0, 200.0))
  write = annotate.create_writer(str(tmp_path / 'out'))
  Image.new('RGB', (40, 30)).save(tmp_path / 'x_2.png')
  for name in ('a/x', 'b/x', 'x_2'):
    write(str(tmp_path / f'{name}.png'), [face])
  found = sorted(path.name for path in (tmp_path / 'out').iterdir())
  assert found == ['x.jpg', 'x_2.jpg', 'x_2_2.jpg']
  with Image.open(tmp_path / 'out' / 'x.jpg') as image:
    grey = np.asarray(image.convert('L')).astype(int)
  # Black and white beside each other on each side of the box.
  for strip in (grey[150, 96:106], grey[150, 195:205], grey[195:205, 150]):
    assert strip.min() < 60 and strip.max() > 190
  assert abs(grey[250, 350] - 128) < 6


def test_an_image_that_cannot_be_drawn_costs_no_row(tmp_path, capsys):
  paths = [str(tmp_path / name) for name in ('gone.png', 'large.png')]
  Image.new('RGB', (4, 3)).save(paths[0])
  Image.new('L', (10_100, 10_000)).save(paths[1], compress_level=1)

  def stream(found, largest_face):
    (tmp_path / 'gone.png').unlink()
    return ([FACES[0]] for _ in found)

  network = types.SimpleNamespace(
    fitted={}, info={'age_groups': 'adience'}, faces='crop', batch_size=8, stream=stream
  )
  output, folder = tmp_path / 'a.csv', tmp_path / 'drawn'
  predict.predict(network, paths, str(output), str(folder))
  assert output.read_text().count(',31.2,') == 2
  assert [path.name for path in folder.iterdir()] == ['large.jpg']
  assert f'{paths[0]} is not in {folder}' in capsys.readouterr().out
