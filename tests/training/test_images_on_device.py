"""Images that stay on the devices."""

import numpy as np
import pytest

from agegender_jax import errors
from agegender_jax.training import trainer


class Large:
  """A source of a hundred images."""

  def __len__(self):
    return 100

  def gather(self, rows):
    return np.zeros((len(rows), 8, 8, 3), np.uint8)


def test_images_larger_than_a_device_are_refused(monkeypatch):
  class Small:
    def memory_stats(self):
      return {'bytes_limit': 1000}

  monkeypatch.setattr(trainer.jax, 'local_devices', lambda: [Small()])
  with pytest.raises(errors.UserError, match='cache=memmap or a smaller'):
    trainer.load_images(Large())
