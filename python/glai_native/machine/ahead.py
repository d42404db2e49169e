"""What takes time to read is read ahead of whoever uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def read_ahead(read: Callable[[Key], Value], keys: Iterable[Key]) -> Iterator[tuple[Key, Value]]:
    """Yield each key with what was read of it; a thread reads the next one meanwhile, so that two are in memory."""
    with ThreadPoolExecutor(1, thread_name_prefix="glai-read-ahead") as pool:
        before: tuple[Key, Future[Value]] | None = None
        for key in keys:
            following = pool.submit(read, key)
            if before is not None:
                yield before[0], before[1].result()
            before = key, following
        if before is not None:
            yield before[0], before[1].result()
