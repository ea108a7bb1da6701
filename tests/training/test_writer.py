"""What a run logs, and what that may cost."""

import subprocess
import sys

CODE = """
import sys
from agegender_jax.evaluation import artifacts
from agegender_jax.training import writer
log = writer.Writer(sys.argv[1], 0, 2)
log.write(1, 0.5, {'train/loss': 1.5})
log.close()
assert artifacts.read_metrics(sys.argv[1]) == [
  {'step': 1, 'epoch': 0.5, 'train/loss': 1.5}
]
print('torch' in sys.modules)
"""


def test_tensorboard_is_written_without_importing_torch(tmp_path):
  result = subprocess.run(
    [sys.executable, '-c', CODE, str(tmp_path)],
    capture_output=True,
    text=True,
    check=True,
  )
  assert result.stdout == 'False\n'
  (events,) = (tmp_path / 'tensorboard').iterdir()
  assert b'train/loss' in events.read_bytes()
