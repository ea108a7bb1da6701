"""Work done ahead of its reader, in threads, in order and in constant memory."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

Input = TypeVar('Input')
Output = TypeVar('Output')


def map_ahead(
  function: Callable[[Input], Output], inputs: Iterable[Input], threads: int
) -> Iterator[Output]:
  """Yields function(input) of each input; at most 2 * threads are under way."""
  waiting: collections.deque[futures.Future] = collections.deque()
  with futures.ThreadPoolExecutor(threads) as pool:
    for one in inputs:
      waiting.append(pool.submit(function, one))
      if len(waiting) > 2 * threads:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
