"""Published folders of the Hugging Face hub, named `hf:owner/name[@revision]`."""

import functools

from agegender_jax import errors

PREFIX = 'hf:'
FILES = ('*.json', 'model.safetensors')


@functools.cache
def local(source: str) -> str:
  """Returns a folder as it is; one of the hub is downloaded, once per process.

  Raises:
    errors.UserError: huggingface_hub is absent, or the download fails.
  """
  if not source.startswith(PREFIX):
    return source
  try:
    import huggingface_hub
  except ImportError:
    raise errors.UserError(
      f"{source} needs huggingface_hub: pip install 'agegender_jax[hub]'"
    ) from None
  repo, _, revision = source.removeprefix(PREFIX).partition('@')
  try:
    return huggingface_hub.snapshot_download(
      repo, revision=revision or None, allow_patterns=list(FILES)
    )
  except Exception as error:  # Of several libraries: network, names, tokens.
    text = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    raise errors.UserError(
      f'{source} cannot be downloaded and is not in the cache ({text})'
    ) from None
