"""torch computes with one thread where a second brings nothing; the kernels keep theirs.

torch's threads wait for each other in each of the many small operations of a training step, for milliseconds where
other programs have taken a core: a step of microseconds then takes a hundred times as long as with one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import get_num_threads

# Of an operation on each of so many values; torch takes less than a thousandth of a second for them.
FEW_VALUES = 1 << 20


class _Outside(threading.local):
    threads = 0  # torch's number before, within the below


OUTSIDE = _Outside()


@contextmanager
def one_torch_thread(small: bool) -> Iterator[None]:
    """Have torch compute with one thread within, where what it computes is small; then as before.

    torch keeps a number for each thread that calls it; those that call it for the first time meanwhile have one too.
    """
    if not small or OUTSIDE.threads:
        yield
        return
    OUTSIDE.threads = get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(OUTSIDE.threads)
        OUTSIDE.threads = 0


def kernel_threads() -> int:
    """Return how many threads the kernels compute with: torch's number, whatever it is within the above."""
    return OUTSIDE.threads or get_num_threads()
