"""Scores predictions: host side, NumPy only, never jax.

A score is one formula of weighted examples, which serves the value and every
bootstrap resample alike.

  measures, bootstrap < groups, scores < breakdown
"""

from agegender_jax.scoring import breakdown, groups, measures, scores

BEST_METRICS = scores.BEST_METRICS
GROUP_METRICS = breakdown.GROUP_METRICS
MEASURES = measures.MEASURES
calibration_curve = breakdown.calibration_curve
details = breakdown.details
paired_difference = scores.paired_difference
score = scores.score
split_groups = groups.split
trivial_scores = scores.trivial_scores
