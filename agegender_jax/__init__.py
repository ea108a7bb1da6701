"""Age estimation and gender classification from faces, in JAX and Flax.

`load`, `Predictor` and `Face` are the Python API; JAX is imported when one of them
is first used.
"""

__version__ = '0.2.0'
__all__ = ['Face', 'Predictor', '__version__', 'load']


def __getattr__(name: str):
  if name in ('Face', 'Predictor', 'load'):
    from agegender_jax.inference import api

    return getattr(api, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
