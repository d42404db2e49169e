"""Sparse inputs become dense ones, where those fit in memory: gates and numbers read every feature."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from scipy.sparse import issparse

from glai_native.machine.memory import require_memory

# Of each number while a learner reads it: as float32, and as z beside it.
BYTES_BESIDE = 4 + 4


def dense(owner: str, x: Any) -> NDArray[Any]:
    """Return x ``[N, D]`` as it is, or a sparse one (scipy.sparse) as a dense array of its dtype.

    Raises:
        MemoryError: as dense numbers it takes more memory than there is.
    """
    if not issparse(x):
        array: NDArray[Any] = x
        return array
    n, d = x.shape
    require_memory(
        owner,
        f"sparse X as dense numbers [N={n:,}, D={d:,}]",
        n * d * (x.dtype.itemsize + BYTES_BESIDE),
        torch.device("cpu"),
        "give fewer features, scikit-learn's TruncatedSVD makes them of sparse X, or fewer samples at a time",
    )
    filled: NDArray[Any] = x.toarray()
    return filled
