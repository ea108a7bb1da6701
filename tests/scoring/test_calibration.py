import json

import numpy as np
import pytest

from agegender_jax import errors as errors_lib
from agegender_jax import files, schema, scoring
from agegender_jax.scoring import calibration, subgroups


@pytest.mark.parametrize(
  'count, level, expected',
  # The ceil((n + 1) level)-th smallest of 1, 2, ... n.
  [(9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (99, 0.8, 80), (3, 0.5, 2),
   (1, 0.5, 1), (8, 0.9, np.inf), (0, 0.5, np.inf)],
)  # fmt: skip
def test_quantile_has_the_rank_of_a_finite_sample(count, level, expected):
  errors = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
  assert calibration.conformal_quantile(errors, level) == expected


def test_a_bin_has_the_quantiles_of_its_own_errors():
  # Errors 1 .. 200 tenths below 50 predicted years, ten times that above.
  errors = np.tile(np.arange(1, 201) / 10, 2)
  errors[200:] *= 10
  predicted = np.repeat([40.0, 60.0], 200)
  fitted = calibration.fit_ages(predicted + errors, predicted)
  assert fitted['counts'] == [200, 200]
  for level, rank in [('0.5', 101), ('0.8', 161), ('0.9', 181)]:
    np.testing.assert_allclose(fitted['levels'][level], [rank / 10, rank], rtol=1e-12)
  low, high = calibration.age_interval(fitted, np.array([3.0, 100.0]), 0.5)
  np.testing.assert_allclose(low, [0, 0])  # Never below 0.
  np.testing.assert_allclose(high, [13.1, 201])


def test_intervals_cover_what_they_promise_in_every_bin():
  # The error grows with the age: a constant width would fail at both ends.
  random = np.random.default_rng(2)

  def draw(count):
    predicted = random.uniform(10, 80, count)
    return predicted + random.normal(0, predicted / 5), predicted

  fitted = calibration.fit_ages(*draw(20_000))
  assert len(fitted['counts']) == calibration.MAX_BINS
  age, predicted = draw(50_000)
  bins = np.searchsorted(fitted['edges'], predicted, side='right')
  for level in calibration.LEVELS:
    low, high = calibration.age_interval(fitted, predicted, level)
    inside = (low <= age) & (age <= high)
    for row in range(calibration.MAX_BINS):
      # Of 2,000 held-out and 5,000 new ones: sd 1.3 points at most.
      assert inside[bins == row].mean() == pytest.approx(level, abs=0.045)
  half = fitted['levels']['0.9']
  assert half[-1] > 4 * half[0]


def test_few_or_equal_predictions_share_one_bin():
  random = np.random.default_rng(3)
  few = calibration.fit_ages(random.uniform(0, 90, 399), np.linspace(0, 90, 399))
  assert few['edges'] == [] and few['counts'] == [399]
  equal = calibration.fit_ages(random.uniform(0, 90, 900), np.full(900, 30.0))
  assert equal['edges'] == [] and equal['counts'] == [900]


def test_unknown_ages_teach_nothing_and_too_few_give_nothing():
  age = np.array([10.0] * 9 + [schema.UNKNOWN] * 5)
  predicted = np.array([12.0] * 9 + [90.0] * 5)
  fitted = calibration.fit_ages(age, predicted)
  assert fitted['counts'] == [9]
  assert fitted['levels'] == {'0.5': [2.0], '0.8': [2.0], '0.9': [2.0]}
  assert calibration.fit_ages(age[1:], predicted[1:]) is None


@pytest.mark.parametrize('share', [0.6, 0.75, 0.95])
@pytest.mark.parametrize('logit', [0.5, 8.0])
def test_temperature_matches_its_closed_form(share, logit):
  # All logits +-L, a share p of them right: sigmoid(L / T) = p.
  count = 1000
  gender = np.tile([0, 1], count // 2)
  right = np.arange(count) < share * count
  sign = np.where(right == (gender == schema.FEMALE), 1.0, -1.0)
  gender = np.append(gender, schema.UNKNOWN)
  fitted = calibration.fit_gender(gender, np.append(sign * logit, 99.0))
  expected = logit / np.log(share / (1 - share))
  assert fitted['temperature'] == pytest.approx(expected, rel=1e-4)
  assert fitted['count'] == count
  entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
  assert fitted['nll_after'] == pytest.approx(entropy, abs=1e-6)
  assert fitted['nll_before'] >= fitted['nll_after']


@pytest.mark.parametrize('gender', [[0, 1], [1, 0], [-1, -1]])
def test_no_temperature_is_best_where_all_are_right_or_all_wrong(gender):
  assert calibration.fit_gender(np.array(gender), np.array([-2.0, 3])) is None


def test_applying_keeps_every_decision_and_softens_it():
  random = np.random.default_rng(4)
  logit = random.normal(0, 6, 500).astype(np.float32)
  gender = (random.uniform(size=500) < 1 / (1 + np.exp(-logit / 3))).astype(int)
  age = random.integers(1, 80, 500).astype(np.float32)
  table = {
    'age': age, 'age_pred': age + 3, 'gender': gender, 'gender_logit': logit,
  }  # fmt: skip
  fitted = calibration.fit(table)
  assert fitted['num_examples'] == 500
  assert fitted['gender']['temperature'] == pytest.approx(3, rel=0.2)
  found = calibration.apply(fitted, table)
  raw = 1 / (1 + np.exp(-logit.astype(np.float64)))
  np.testing.assert_array_equal(found['gender_prob'] > 0.5, raw > 0.5)
  assert (np.abs(found['gender_prob'] - 0.5) < np.abs(raw - 0.5)).all()
  np.testing.assert_allclose(found['age_low'], age, atol=1e-5)
  np.testing.assert_allclose(found['age_high'], age + 6, atol=1e-5)


def test_a_network_without_years_or_gender_gets_nothing_for_it():
  labels = {'age': np.arange(20.0), 'gender': np.arange(20) % 2}
  fitted = calibration.fit(labels)
  assert fitted == {'num_examples': 20, 'age': None, 'gender': None}
  columns = {'age_pred': np.ones(3), 'gender_logit': np.ones(3)}
  assert calibration.apply(fitted, columns) == {}


def test_a_file_comes_back_to_the_last_bit(tmp_path):
  random = np.random.default_rng(5)
  age = random.uniform(0, 90, 500)
  table = {'age': age, 'age_pred': age + random.normal(0, 7, 500)}
  fitted = {'step': 7, 'split': 'validation', 'fingerprint': 'f'}
  fitted |= calibration.fit(table | {'gender': age * 0})
  path = tmp_path / 'calibration.json'
  assert calibration.read(path) == {}
  files.write_json(path, fitted)
  assert calibration.read(path) == fitted
  without = {key: value for key, value in fitted.items() if key != 'fingerprint'}
  damaged = [without, fitted | {'step': '7'}, fitted | {'age': {'edges': 'x'}}]
  for text in ('{', '[]', '{"step": 7}', *map(json.dumps, damaged)):
    path.write_text(text)
    with pytest.raises(errors_lib.UserError, match='damaged'):
      calibration.read(path)


# Half widths of 2, 4, 6 years below 30 predicted years, ten times that above.
FITTED = {
  'edges': [30.0],
  'counts': [200, 200],
  'levels': {'0.5': [2.0, 20.0], '0.8': [4.0, 40.0], '0.9': [6.0, 60.0]},
}
PREDICTED = np.array([10.0, 10, 10, 10, 70, 70, 70])
AGE = np.array([10.0, 13, 15, 20, 40, 90, -1])


def rows_of(columns):
  rows = calibration.coverage(FITTED, AGE, PREDICTED, columns)
  return {(row['level'], row['column'], row['group']): row for row in rows}


def test_coverage_and_width_match_hand_counts():
  females = np.array([1, 1, 0, 0, 0, 0, 1], bool)
  rows = rows_of({'gender': [('female', females), ('nobody', females & False)]})
  assert len(rows) == 6  # All and females, at three levels.
  # |error| of the known: 0, 3, 5, 10; 30, 20.
  for level, inside, of_females in [(0.5, 2, 1), (0.8, 4, 2), (0.9, 5, 2)]:
    row = rows[level, '', '']
    assert row['count'] == 6 and row['coverage'] == inside / 6
    row = rows[level, 'gender', 'female']
    assert row['count'] == 2 and row['coverage'] == of_females / 2
  assert rows[0.5, '', '']['width'] == pytest.approx((4 * 4 + 2 * 40) / 6)
  # 70 - 60 to 130 on one side, 10 - 6 to 16 on the other.
  assert rows[0.9, '', '']['width'] == pytest.approx((4 * 12 + 2 * 120) / 6)


def test_bounds_are_wilsons():
  row = rows_of({})[0.8, '', '']
  z, n, p = 1.959964, 6, 4 / 6
  centre = (p + z * z / (2 * n)) / (1 + z * z / n)
  half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
  assert row['low'] == pytest.approx(centre - half, abs=1e-6)
  assert row['high'] == pytest.approx(centre + half, abs=1e-6)


def test_scores_have_coverage_and_width_of_each_level():
  found = calibration.apply({'age': FITTED, 'gender': None}, {'age_pred': PREDICTED})
  scores = scoring.score({'age': AGE} | found, 100)
  assert scores['age_coverage80'] == 4 / 6
  assert scores['age_width50'] == pytest.approx(16)
  assert scores['age_coverage90_low'] < 5 / 6 < scores['age_coverage90_high']


def test_bins_of_predicted_age_are_named_and_disjoint():
  bins = calibration.predicted_age_bins(
    {'edges': [24.06, 30.0]}, np.array([3.0, 24.06, 29, 30, 90])
  )
  names = ['below 24.1', '24.1 to 30.0', 'from 30.0']
  assert [name for name, _ in bins] == names
  members = [chosen.astype(int).tolist() for _, chosen in bins]
  assert members == [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
  ((name, chosen),) = calibration.predicted_age_bins({'edges': []}, AGE)
  assert name == 'all' and chosen.all()


def test_decades_are_disjoint():
  found = subgroups.by_age({'age': np.array([0.0, 5, 19.9, 20, 101])}, [])
  members = {name: np.flatnonzero(chosen).tolist() for name, chosen in found}
  assert members['0-9'] == [0, 1] and members['10-19'] == [2]
  assert members['20-29'] == [3] and members['80+'] == [4]


def test_ages_known_as_a_group_are_drawn_within_it():
  rng = np.random.default_rng(1)
  year = rng.integers(0, 80, 4000)
  distribution = np.exp(-0.5 * ((np.arange(117) - year[:, None]) / 5) ** 2)
  distribution /= distribution.sum(axis=1, keepdims=True)
  true = np.clip(np.round(year + 5 * rng.normal(size=4000)), 0, 116)
  low = 10 * (true // 10)
  spans = np.stack([low, low + 9], axis=1).astype(int)
  spans[:5] = schema.UNKNOWN
  drawn = calibration.draw_ages(distribution, spans)
  assert (drawn[:5] == schema.UNKNOWN).all()
  assert ((drawn >= spans[:, 0]) & (drawn <= spans[:, 1])).all()
  table = {
    'age': np.full(4000, float(schema.UNKNOWN)), 'age_pred': year.astype(float),
    'age_distribution': distribution, 'age_span': spans,
  }  # fmt: skip
  fitted = calibration.fit(table)['age']
  assert fitted['num_drawn'] == 3995
  # Where the distribution is right, the intervals are those of the true years.
  expected = calibration.fit_ages(true, table['age_pred'])
  for level in expected['levels']:
    np.testing.assert_allclose(
      fitted['levels'][level], expected['levels'][level], atol=2
    )
