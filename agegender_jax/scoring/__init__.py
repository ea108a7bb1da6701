"""Scores predictions: on the host, NumPy and SciPy only, never jax.

`metrics.METRICS` is the one table of metrics. May import schema, errors, files.

  metrics, bootstrap < scores, subgroups, calibration
"""

from agegender_jax.scoring import metrics, scores, subgroups

METRICS = metrics.METRICS
Metric = metrics.Metric
calibration_curve = subgroups.calibration_curve
details = subgroups.details
headlines = metrics.headlines
majority_baseline = scores.majority_baseline
paired_difference = scores.paired_difference
score = scores.score
split_groups = subgroups.split_groups
