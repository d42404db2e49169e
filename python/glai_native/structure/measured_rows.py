"""Which of the first samples units are measured on: a choice that no order, and no cut into parties, changes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Rows are counted by their hash, in so many classes; of the first classes, as many are measured as hold so many rows.
HASH_CLASSES = 1024
MEASURED_ROWS = 1024
HASH_NUMBERS = 1 << 18
MIX = 0x2545F4914F6CDD1D


def hash_rows(x: Tensor) -> Tensor:
    """Return a hash int64 ``[N]`` of each row of x float32 ``[N, D]``; its highest bits are the best mixed."""
    odd = torch.from_numpy(np.random.Philox(0).random_raw(x.shape[1]).view(np.int64)) | 1
    hashes = torch.empty(len(x), dtype=torch.int64, device="cpu")
    height = max(1, HASH_NUMBERS // x.shape[1])
    for part, out in zip(x.split(height), hashes.split(height), strict=True):
        out.copy_(((part + 0.0).view(torch.int32) * odd).sum(1))  # of -0 the bits of 0
    return (hashes ^ hashes >> 29) * MIX  # modulo 2^64


def hash_classes(x: Tensor) -> Tensor:
    """Return the class int64 ``[N]`` of each row of x float32 ``[N, D]``: ten bits of a hash of its numbers."""
    return hash_rows(x) >> 54 & (HASH_CLASSES - 1)


def count_classes(x: Tensor) -> Tensor:
    """Return how many rows each class has, int64 ``[HASH_CLASSES]``: counts of parts of the data add up."""
    return torch.bincount(hash_classes(x), minlength=HASH_CLASSES)


def measured_classes(counts: Tensor) -> tuple[int, int]:
    """Return how many classes, from the first on, are measured, and how many rows they have."""
    held = counts.cumsum(0)
    classes = min(int((held < MEASURED_ROWS).sum()) + 1, HASH_CLASSES)
    return classes, int(held[classes - 1])


def measured_rows(x: Tensor, classes: int) -> Tensor:
    """Return the rows of x ``[N, D]`` that are of the first so many classes."""
    return x[hash_classes(x) < classes]
