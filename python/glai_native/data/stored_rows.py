"""Features that need not fit in memory stay where they are stored, and some rows of them are read at a time."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glai_native.data.features import float_features

ROWS = 16_384  # that are checked at a time


class StoredRows:
    """Rows of features ``[N, ...]`` that stay in a memory map, or an array.

    Args:
        owner: of them, named in the errors.
        x: numbers of any dtype, N >= 1.

    Attributes:
        n_features: D, the product of what a row is made of.
        centred_in: what they become, float32 or float64; None: as each of the rows that are read needs it.
    """

    def __init__(self, owner: str, x: NDArray[Any], centred_in: torch.dtype | None = None) -> None:
        if x.ndim < 2 or not len(x):
            raise ValueError(f"{owner}: x must be [N >= 1, D], got {list(x.shape)}")
        self.owner, self.centred_in = owner, centred_in
        self.n_features = int(np.prod(x.shape[1:]))
        self._x, self._map = np.asarray(x), _map_of(x)

    def __len__(self) -> int:
        return len(self._x)

    def read(self, rows: NDArray[np.int64] | slice) -> NDArray[Any]:
        """Return some rows as floats ``[n, D]`` in memory (:func:`float_features`)."""
        x = self._x[rows]
        if isinstance(rows, slice):
            x = np.array(x)
        if self._map is not None:  # pages that were read would count as memory of this process
            self._map.madvise(mmap.MADV_DONTNEED)
        return float_features(self.owner, x.reshape(len(x), -1), centred_in=self.centred_in)

    def require_finite(self) -> Iterator[int]:
        """Read all rows once; yield how many, a part at a time.

        Raises:
            ValueError: a value is not finite, or no number; its row and column are named.
        """
        for begin in range(0, len(self), ROWS):
            try:
                rows = self.read(slice(begin, begin + ROWS))
            except ValueError as error:
                raise ValueError(f"{error}; of the rows from {begin:,} on") from None
            yield len(rows)


def _map_of(x: NDArray[Any]) -> mmap.mmap | None:
    """Return the map that an array lies in, if it is one of a file whose pages can be read again."""
    if not isinstance(x, np.memmap) or x.mode not in ("r", "r+"):
        return None
    base: Any = x
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None
