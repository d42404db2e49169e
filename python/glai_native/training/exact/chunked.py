"""Exact learners learn data that do not fit in memory: from a path, a memory map, or an iterator of chunks."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from glai_native.solvers.exact.chunks import Chunk, CountedChunks, Source, handed_on

ROWS = 16_384  # that are read at a time, and that the features' mean and scale are settled by


class Samples(NamedTuple):
    """What ``fit`` and ``partial_fit`` are given, in the order of their arguments."""

    x: Any
    y: Any
    sample_weight: Any
    ids: Any


def comes_in_chunks(x: Any, y: Any) -> bool:
    """Return whether samples are given as a path, as a memory map of many rows, or by an iterator."""
    if isinstance(x, np.memmap):
        return len(x) > ROWS
    return isinstance(x, str | os.PathLike) or (y is None and hasattr(x, "__next__"))


def opened(owner: str, data: Any, targets: Any, sample_weight: Any, ids: Any) -> tuple[Any, Chunk]:
    """Look at the first samples of data, of which none is lost.

    Returns:
        data as :meth:`~glai_native.IntegerStatistics.accumulate` takes them, from the first on, and the first of them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there are no samples, or it is no data.
    """
    goes_on = hasattr(data, "__next__")
    source = Source.of(owner, data, targets, sample_weight, ids, ROWS, 0)
    first = next(source.chunks, None)
    if first is None or not len(first.x):
        raise ValueError(f"{owner}: data must hold samples, got none")
    if goes_on:
        data = CountedChunks(handed_on([tuple(first)], map(tuple, source.chunks)), source.total)
    return data, first
