import io

import numpy as np

from agegender_jax import schema
from agegender_jax.inference import predict

COLUMNS = {
  'age_pred': np.array([31.24, 60.0]),
  'age_low': np.array([18.04, 40.0]),
  'age_high': np.array([44.4, 80.0]),
  'age_group_pred': np.array([4, 7]),
  'gender_prob': np.array([0.07, 0.5124]),
}


def test_a_row_has_the_contracts_columns():
  row = predict.format_row('a.jpg', COLUMNS, 0, '')
  assert tuple(row) == (*schema.PREDICTION_COLUMNS, 'confidence', 'error')
  assert row['name'] == 'a.jpg' and row['error'] == ''
  assert (row['age_pred'], row['age_low'], row['age_high']) == (
    '31.2', '18.0', '44.4',
  )  # fmt: skip
  assert (row['gender_prob'], row['confidence']) == ('0.0700', '0.9300')
  assert row['age'] == row['gender'] == ''  # Labels that nobody gave.


def test_an_unreadable_picture_has_an_error_and_nothing_else():
  row = predict.format_row('b.jpg', COLUMNS, 0, 'what is wrong')
  filled = {name: value for name, value in row.items() if value}
  assert filled == {'name': 'b.jpg', 'error': 'what is wrong'}


def test_lines_of_the_table_stand_below_their_heading():
  head = predict.format_line({}, 'adience', 8)
  lines = [
    predict.format_line(predict.format_row('a.jpg', COLUMNS, row, ''),
                        'adience', 8)
    for row in (0, 1)
  ]  # fmt: skip
  assert lines[0] == 'a.jpg       31.2    18.0 - 44.4  male    93.0%'
  assert lines[1].endswith('female  51.2%')
  assert head.index('gender') == lines[0].index('male')
  assert head.index('90 %') + 4 == lines[0].index('44.4') + 4
  groups = {'age_group_pred': np.array([7])}
  row = predict.format_row('c.jpg', groups, 0, '')
  assert predict.format_line(row, 'adience', 8).split() == ['c.jpg', '60+']
  broken = predict.format_row('d.jpg', COLUMNS, 0, 'cut short')
  line = predict.format_line(broken, 'adience', 8)
  assert line == 'd.jpg     unreadable: cut short'


def test_a_name_that_is_not_utf8_can_be_shown():
  row = predict.format_row('caf\udce9.jpg', COLUMNS, 0, '')
  assert predict.format_line(row, 'adience', 4).startswith('caf\\xe9.jpg')


def test_the_last_lines_count_and_name_a_few_broken_ones():
  text = predict.summarise(10_000, [f'{row}.jpg' for row in range(12)], 40.0)
  lines = text.splitlines()
  assert lines[0] == ('10000 pictures, 12 of them unreadable, 40.0 s, 250.0 images/s')
  assert lines[1] == 'unreadable: 0.jpg' and len(lines) == 12
  assert lines[-1] == 'and 2 more, see column "error"'
  assert predict.summarise(2, [], 1.0).count('\n') == 0


def test_a_reader_that_leaves_stops_the_table_only(monkeypatch):
  class Closed(io.StringIO):
    def write(self, text):
      raise BrokenPipeError

  monkeypatch.setattr(predict.sys, 'stdout', Closed())
  with monkeypatch.context():
    predict._print(print, 'one')
    predict._print(print, 'two')
  predict.sys.stdout.close()
