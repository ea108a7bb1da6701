"""What follows training: calibrates and scores the chosen step, writes."""

import json

import jax

from agegender_jax import report
from agegender_jax.evaluation import artifacts, evaluate, grad_cam, held_out, summary
from agegender_jax.scoring import calibration


def finish(
  config, workdir: str, network, variables, step: int, splits, calibrating
) -> None:
  """Calibrates, scores and records the step that training chose.

  Args:
    config: the run's configuration.
    workdir: output folder.
    network: see predictor.
    variables: of the step, replicated over the devices.
    step: the chosen one.
    splits: `train` and `test` -> source.
    calibrating: see held_out.open_held_out.
  """
  fitted = held_out.calibrate(config, network, variables, step, *calibrating)
  if fitted:
    calibration.write(calibration.path(config, workdir), fitted)
  scores, table = evaluate.score_step(
    config,
    network,
    variables,
    splits['test'],
    config.data.test_split,
    step,
    splits['train'].hashes,
    fitted,
  )
  artifacts.write_results(workdir, scores, table, splits['test'], config, fitted)
  grad_cam.write_saliency(network, variables, splits['test'], workdir)
  leaves = jax.tree.leaves(variables['params'])
  speed = summary.run_summary(
    workdir, config, sum(leaf.size // len(leaf) for leaf in leaves)
  )
  summary.write_json(workdir, 'run.json', speed)
  page = report.write_report(workdir)
  print(json.dumps(scores, indent=2))
  summary.print_speed(speed)
  print(f'report: {page}')
