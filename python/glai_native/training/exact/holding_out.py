"""About a fifth of the samples is held out, and their own content says which: whatever the history, the same ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from glai_native.data.labels import Label
from glai_native.solvers.exact.ledger import hash_samples
from glai_native.solvers.exact.sums import IntegerStatistics
from glai_native.structure.integer_features import IntegerFeatures

EVERY = 5


def held_out_rows(features: IntegerFeatures, x: Tensor) -> Tensor:
    """Return which samples are held out, bool ``[N]``; equal ones are, or are not, together."""
    hashes = hash_samples(features.inputs(x), [b""] * len(x))
    first = np.frombuffer(hashes.tobytes(), dtype="<u8")[::2]  # the first half of 16 bytes
    return torch.from_numpy(first % EVERY == 0)


def held_out_labels(statistics: IntegerStatistics, held_out: IntegerStatistics) -> list[Label]:
    """Return the labels of classes that the sums over held-out samples lack, in the order of all sums."""
    known = held_out.class_labels or []
    return (statistics.class_labels or [])[len(known) :]
