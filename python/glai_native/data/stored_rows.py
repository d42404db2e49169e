"""Features that need not fit in memory stay where they are stored, and some rows of them are read at a time."""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glai_native.data.features import float_features

# Rows that lie beside each other where they are stored, and are read at once.
BLOCK_ROWS = 256
# Features of a window, and its rows at least. Two windows are in memory: the one that is read, the one that is used.
WINDOW_BYTES, WINDOW_ROWS = 1 << 23, 8192
MOST_BYTES = 1 << 26  # of a window, however wide its rows

Rows = slice | NDArray[np.int64]
Key = TypeVar("Key")
Value = TypeVar("Value")


class Window(NamedTuple):
    """Some rows, in memory.

    Attributes:
        rows: which they are.
        x: float32 or float64 ``[n, D]``.
        order: drawn, of these n.
    """

    rows: Tensor
    x: Tensor
    order: Tensor


class StoredRows:
    """Rows of features ``[N, ...]`` that stay in a memory map, or an array.

    Args:
        owner: of them, named in the errors.
        x: numbers of any dtype, N >= 1.

    Attributes:
        n_features: D, the product of what a row is made of.
        centred_in: what they become, float32 or float64; None: as each of the rows that are read needs it.
    """

    def __init__(self, owner: str, x: NDArray[Any]) -> None:
        if x.ndim < 2 or not len(x):
            raise ValueError(f"{owner}: x must be [N >= 1, D], got {list(x.shape)}")
        self.owner = owner
        self.centred_in: torch.dtype | None = None
        self.n_features = int(np.prod(x.shape[1:]))
        self._x, self._file = np.asarray(x), _File.of(x)
        self._rows: NDArray[np.int64] | None = None  # which are meant, in increasing order

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, D)``."""
        return len(self), self.n_features

    def __len__(self) -> int:
        return len(self._x if self._rows is None else self._rows)

    @property
    def n_bytes(self) -> int:
        """How large all of them are as float32."""
        return 4 * len(self) * self.n_features

    def as_floats(self, dtype: torch.dtype) -> StoredRows:
        """Return the same rows, read as float32 or float64."""
        rows = copy(self)
        rows.centred_in = dtype
        return rows

    def part(self, rows: Rows) -> StoredRows:
        """Return some of them, in increasing order, which stay where they are."""
        part = copy(self)
        if self._rows is not None:
            part._rows = self._rows[rows]
        else:
            part._rows = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        return part

    def read(self, rows: Rows) -> Tensor:
        """Return some of them as floats ``[n, D]`` in memory (:func:`float_features`).

        Raises:
            ValueError: a value is no number, or not finite; its row, of those that are stored, is named.
        """
        if self._rows is not None:
            rows = self._rows[rows]
        x = np.array(self._x[rows]) if self._file is None else self._file.read(rows)
        x = x.reshape(len(x), -1)
        try:
            return torch.from_numpy(float_features(self.owner, x, centred_in=self.centred_in))
        except ValueError as error:
            if x.dtype.kind == "f" and not np.isfinite(x).all():
                place = int((~np.isfinite(x)).any(1).argmax())
                row = int(np.arange(len(self._x))[rows][place])
                raise ValueError(f"{error}; it is row {row:,} of {len(self._x):,}") from None
            raise

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield all rows, a window at a time, in the order in which they are stored."""
        height = self._height(1)
        return _read_ahead(self.read, (slice(at, at + height) for at in range(0, len(self), height)))

    def windows(self, generator: torch.Generator, multiple: int, passes: int = 1) -> Iterator[Window]:
        """Yield all rows, each window with an order of its rows.

        A window is of blocks drawn from all over the data, so that data that are stored by class are mixed, as far as
        there are blocks of each class in it.

        Args:
            generator: what order is drawn by.
            multiple: of rows that each window has, the last one excepted.
            passes: how often each row comes, once in each pass.
        """
        blocks = [
            torch.randperm(-(-len(self) // BLOCK_ROWS), generator=generator, device="cpu")
            for _ in range(passes)
        ]
        windows = self._rows_of(torch.cat(blocks), self._height(multiple))

        def ordered(read: tuple[Tensor, Tensor]) -> Window:
            return Window(*read, torch.randperm(len(read[0]), generator=generator, device="cpu"))

        # No loop, which would keep a window while it is used, though its user may have done with it.
        yield from map(ordered, _read_ahead(lambda rows: self.read(rows.numpy()), windows))

    def _rows_of(self, blocks: Tensor, height: int) -> Iterator[Tensor]:
        """Yield the rows of blocks, so many at a time, each time in increasing order."""
        rows = torch.empty(0, dtype=torch.int64, device="cpu")
        for some in blocks.split(-(-height // BLOCK_ROWS)):
            more = (some.unsqueeze(1) * BLOCK_ROWS + torch.arange(BLOCK_ROWS, device="cpu")).flatten()
            rows = torch.cat([rows, more[more < len(self)]])
            while len(rows) >= height:
                yield rows[:height].sort().values
                rows = rows[height:]
        if len(rows):
            yield rows.sort().values

    def _height(self, multiple: int) -> int:
        """Return the rows of a window, a multiple."""
        row = 4 * self.n_features
        rows = max(WINDOW_ROWS, WINDOW_BYTES // row)
        return max(1, min(-(-rows // multiple), MOST_BYTES // row // multiple)) * multiple


def _read_ahead(read: Callable[[Key], Value], keys: Iterable[Key]) -> Iterator[tuple[Key, Value]]:
    """Yield each key with what was read of it; a thread reads the next one meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="glai-read-ahead") as pool:
        ahead: list[tuple[Key, Future[Value]]] = []
        for key in keys:
            ahead.append((key, pool.submit(read, key)))
            if len(ahead) > 1:
                yield _first(ahead)
        if ahead:
            yield _first(ahead)


def _first(ahead: list[tuple[Key, Future[Value]]]) -> tuple[Key, Value]:
    """Take the first out, so that nobody here keeps what was read."""
    key, read = ahead.pop(0)
    return key, read.result()


class _File:
    """The file that a memory map's rows lie in.

    Pages that a map has read count as memory of its process, sixteen of them for a row that somebody asks for: rows are
    read from the file instead.
    """

    def __init__(self, path: str, begin: int, x: NDArray[Any]) -> None:
        self._path, self._begin, self._bytes = path, begin, math.prod(x.shape[1:]) * x.itemsize
        self._shape, self._dtype = x.shape, x.dtype
        self._file = os.open(path, os.O_RDONLY)
        self.close = weakref.finalize(self, os.close, self._file)

    @classmethod
    def of(cls, x: NDArray[Any]) -> _File | None:
        """Return where rows lie beside each other in a file; None: nowhere, or no longer in the file of that name."""
        if not isinstance(x, np.memmap) or x.mode not in ("r", "r+") or not x.flags.c_contiguous:
            return None
        root: Any = x
        while isinstance(root.base, np.ndarray):
            root = root.base
        if not isinstance(root, np.memmap) or not isinstance(root.base, mmap.mmap) or root.filename is None:
            return None
        try:
            file = cls(str(root.filename), root.offset + x.ctypes.data - root.ctypes.data, x)
        except OSError:
            return None
        some = np.unique(np.linspace(0, len(x) - 1, 3).astype(np.int64)) if len(x) else np.empty(0, np.int64)
        try:
            same = file.read(some).tobytes() == np.asarray(x)[some].tobytes()
        except ValueError:  # it has become shorter
            same = False
        root.base.madvise(mmap.MADV_DONTNEED)  # what was looked at
        return file if same else None

    def read(self, rows: Rows) -> NDArray[Any]:
        """Return some rows, in increasing order where they are numbers."""
        if isinstance(rows, slice):
            first, end, _ = rows.indices(self._shape[0])
            runs = np.array([[first, max(first, end)]])
        else:
            cuts = np.flatnonzero(np.diff(rows) != 1) + 1
            begins, ends = np.append(0, cuts), np.append(cuts, len(rows)) - 1
            runs = (
                np.stack([rows[begins], rows[ends] + 1], axis=1) if len(rows) else np.empty((0, 2), np.int64)
            )
        x = np.empty((int((runs[:, 1] - runs[:, 0]).sum()), *self._shape[1:]), dtype=self._dtype)
        content, at = x.reshape(-1).view(np.uint8).data, 0
        for first, end in runs.tolist():
            size, begin = (end - first) * self._bytes, self._begin + first * self._bytes
            done = 0
            while done < size:
                count = os.preadv(self._file, [content[at + done : at + size]], begin + done)
                if not count:
                    raise ValueError(f"{self._path}: is truncated")
                done += count
            at += size
        return x


def in_memory(rows: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of rows of an array; those of a memory map are read from its file, as :class:`StoredRows` are."""
    file = _File.of(rows)
    if file is None:
        return np.array(rows)
    try:
        return file.read(slice(None))
    finally:
        file.close()
