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
  huggingface_hub = errors.import_extra('huggingface_hub', 'hub', source)
  repo, _, revision = source.removeprefix(PREFIX).partition('@')
  try:
    return huggingface_hub.snapshot_download(
      repo, revision=revision or None, allow_patterns=list(FILES)
    )
  except Exception as error:  # Of several libraries: network, names, tokens.
    text = errors.one_line(error)
    raise errors.UserError(
      f'{source} cannot be downloaded and is not in the cache ({text})'
    ) from None
