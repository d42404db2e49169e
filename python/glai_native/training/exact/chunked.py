"""Exact learners learn data that do not fit in memory: from a path, a memory map, or an iterator of chunks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from glai_native.gates.dataset import GateDataset
from glai_native.gates.store import GateStore
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


def without_gates(owner: str, samples: Samples) -> Samples:
    """Return samples that come with stored gates as the arrays that they are beside them.

    Units of an exact learner are its own, which it computes from x: it reads no gates.

    Raises:
        TypeError: there are gates alone.
        ValueError: x or y are not beside them, or y is given twice.
    """
    x, y = samples.x, samples.y
    if isinstance(x, GateStore):
        raise TypeError(
            f"{owner}: X must be samples, got a GateStore, which holds the gates of {len(x):,} and no x; "
            "GateDataset(store, x, y) has both"
        )
    if not isinstance(x, GateDataset):
        return samples
    expected = ("x", "y") if y is None else ("x",)
    if len(x.tensors) != len(expected):
        told = "" if y is None else ", since y is given"
        raise ValueError(
            f"{owner}: X must be a GateDataset of {' and '.join(expected)}{told}, got one of {len(x.tensors)} tensors"
        )
    whole = [tensor.detach().cpu().numpy() for tensor in x.tensors]
    return samples._replace(x=whole[0], y=y if y is not None else whole[1])


def chunks_of(owner: str, samples: Samples) -> Iterator[Chunk]:
    """Yield the samples of a path or memory map."""
    return Source.of(owner, *samples, ROWS).chunks


def opened(owner: str, data: Any, targets: Any, sample_weight: Any, ids: Any) -> tuple[Any, Chunk, int]:
    """Look at the first samples of data, of which none is lost.

    Returns:
        data as :meth:`~glai_native.IntegerStatistics.accumulate` takes them, from the first on; the first of them, and
        the number of its chunk.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there are no samples, or it is no data.
    """
    goes_on = hasattr(data, "__next__")
    source = Source.of(owner, data, targets, sample_weight, ids, ROWS)
    pulled: list[Chunk] = []
    first = next(source.chunks, None)
    while first is not None and not len(first.x):
        pulled.append(first)
        first = next(source.chunks, None)
    if first is None:
        raise ValueError(f"{owner}: data must hold samples, got none")
    number = len(pulled)
    if goes_on:
        data = CountedChunks(
            handed_on([*map(tuple, pulled), tuple(first)], map(tuple, source.chunks)), source.total
        )
    return data, first, number
