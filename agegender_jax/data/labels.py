"""Reads what label files write, and checks how much of it was read."""

import collections
import math

from absl import logging

from agegender_jax import errors, schema

OLDEST = 120  # Years; a label beyond is not an age.
MAX_UNREAD = 0.01  # A larger share of unread labels means another coding.
UNKNOWN_WORDS = ('', '-1', 'nan', 'na', 'n/a', 'none', 'null', 'unknown', '?', 'u')
_MEN = (
  'm male man men boy boys 0 uomo maschio ragazzo homme masculin garçon '
  'hombre masculino chico niño mann männlich junge homem rapaz 男'
)
_WOMEN = (
  'f female woman women girl girls 1 donna femmina ragazza femme féminin fille '
  'mujer femenino chica niña frau weiblich mädchen mulher feminino rapariga 女'
)
GENDERS = (
  dict.fromkeys(UNKNOWN_WORDS, schema.UNKNOWN)
  | dict.fromkeys(_MEN.split(), schema.MALE)
  | dict.fromkeys(_WOMEN.split(), schema.FEMALE)
)
# What is known, for a message.
KNOWN = {
  'age': f'years from 0 to {OLDEST}',
  'gender': '0, m, male, man, boy (male) and 1, f, female, woman, girl (female)',
  'race': '0 to 4',
  'name': 'age_gender_race_date.jpg',
  'split': 'train, validation, test',
}
_MOST_SHOWN = 8  # Values of a column in a line.
_MOST_KEPT = 40  # Values of a column kept with prepared data.


def parse_age(text: str | None) -> float | None:
  """Returns years, UNKNOWN where the text says so, None where it is no age."""
  text = (text or '').strip().lower()
  if text in UNKNOWN_WORDS:
    return float(schema.UNKNOWN)
  try:
    age = float(text)
  except ValueError:
    return None
  if age == schema.UNKNOWN:
    return age
  return age if math.isfinite(age) and 0 <= age <= OLDEST else None


def parse_gender(text: str | None) -> int | None:
  """Returns a gender, UNKNOWN where the text says so, None where it is none.

  Numbers may have been through a spreadsheet or pandas: `0.0`, `1.00`.
  """
  text = (text or '').strip().lower()
  try:
    number = float(text)
    text = str(int(number)) if number == int(number) else text
  except (ValueError, OverflowError):
    pass
  return GENDERS.get(text)


class Tally:
  """Counts, per column, which values were seen and how each was read."""

  def __init__(self):
    # Column -> (value as written, how it was read) -> number.
    self._columns = collections.defaultdict(collections.Counter)

  def add(self, column: str, value: object, reading: object) -> None:
    """Counts a value.

    Args:
      column: of the label.
      value: as written.
      reading: the label that it became; UNKNOWN or '' for none, None where it
        could not be read.
    """
    if reading is not None and reading in (schema.UNKNOWN, ''):
      text = 'unknown'
    elif column == 'gender' and reading is not None:
      text = schema.GENDERS[int(reading)]
    else:
      text = '' if reading is None else 'read'
    self._columns[column][str(value), text] += 1

  def summary(self) -> dict[str, dict]:
    """Returns what is kept with prepared data.

    Returns:
      Column -> `rows`, `unknown` and `unread` (numbers of rows), `distinct`
      (number of values), `values`: [value, how it was read, number] of the
      commonest, and of the commonest unread ones ('').
    """
    result = {}
    for column, counts in self._columns.items():
      shown = counts.most_common(_MOST_KEPT)
      unread = [item for item in counts.most_common() if not item[0][1]]
      shown += [item for item in unread[:_MOST_KEPT] if item not in shown]
      result[column] = {
        'rows': sum(counts.values()),
        'unknown': sum(n for (_, how), n in counts.items() if how == 'unknown'),
        'unread': sum(n for _, n in unread),
        'distinct': len(counts),
        'values': [[value, how, n] for (value, how), n in shown],
      }
    return result


def describe(summary: dict[str, dict]) -> list[str]:
  """Returns a line per column: values, how they were read, share dropped."""
  lines = []
  for column, found in summary.items():
    read = [row for row in found['values'] if row[1] != '']
    named = any(how not in ('read', 'unknown') for _, how, _ in read)
    parts = [
      f'{value or "empty"!s}{f" = {how}" if named or how == "unknown" else ""} ({n:,})'
      for value, how, n in read[:_MOST_SHOWN]
    ]
    rest = found['distinct'] - len(parts)
    rest -= sum(row[1] == '' for row in found['values'])
    parts += [f'{rest:,} more values'] if rest > 0 else []
    dropped = found['unread'] / max(1, found['rows'])
    lines.append(
      f'{column}: {", ".join(parts) or "nothing read"}; '
      f'not read: {found["unread"]:,} of {found["rows"]:,} ({dropped:.1%})'
    )
  return lines


def check(
  where: str, summary: dict[str, dict], known: dict[str, str], allow_unread: bool
) -> None:
  """Checks that nearly all labels could be read.

  Args:
    where: name of the data set, for the message.
    summary: of a `Tally`.
    known: column -> what can be read.
    allow_unread: only warn.

  Raises:
    errors.UserError: more than 1 % of a column could not be read.
  """
  for column, found in summary.items():
    if found['unread'] <= MAX_UNREAD * found['rows']:
      continue
    unread = [row for row in found['values'] if row[1] == '']
    # The other values too: 1 of a coding 1 and 2 was read, as something else.
    shown = found['values'] if found['distinct'] <= _MOST_SHOWN else unread
    values = ', '.join(
      f'{value!r} ({n:,} times)' for value, _, n in shown[:_MOST_SHOWN]
    )
    text = (
      f'{where}: {found["unread"]:,} of {found["rows"]:,} labels of {column} cannot '
      f'be read; the values are {values}{", ..." if len(shown) > _MOST_SHOWN else ""}'
      f'; known: {known.get(column, "see docs/data.md")}'
    )
    if not allow_unread:
      raise errors.UserError(
        f'{text}; correct them or set --config.data.allow_unread_labels=True'
      )
    logging.warning('%s', text)
