"""Samples are brought to one canonical form before anything learns of them: weight 0 is absent, and 2 is twice.

What draws samples at random, or adds them up in floating point, depends on how they are listed. So that weights and
repetitions of samples give the same bits, equal samples are joined, and listed in an order that hangs on their content
alone. Samples that are neither weighted nor repeated stay as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

HASH_NUMBERS = 1 << 18  # that are hashed at a time: they stay in cache
FIRST_SEED = 100  # of the numbers that a hash multiplies by
# Weights that are integers count repetitions, where their sum is one that float64 holds exactly.
MOST_REPEATS = 1 << 53
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Canonical(NamedTuple):
    """Which samples are learnt from, and what they weigh.

    Attributes:
        rows: int64 ``[M]``, which of the N samples, each once; None: all, in their order.
        weight: float64 ``[M]``, > 0; None: 1 each.
    """

    rows: Tensor | None
    weight: Tensor | None

    def of(self, values: Tensor) -> Tensor:
        """Return the samples' rows of values ``[N, ...]``."""
        return values if self.rows is None else values[self.rows]


@torch.no_grad()
def canonical_form(content: Sequence[Tensor], weight: Tensor | None = None) -> Canonical:
    """Leave out samples of weight 0, join equal ones, and list them by content where that says how they are weighted.

    Where all weigh the same in the end, they stay in the order in which they first came. For 60,000 samples of 784
    features it takes a tenth of a second.

    Source: weights as repetitions of samples, the equivalence that scikit-learn asks of its estimators.

    Args:
        content: what makes samples equal, ``[N, ...]`` each, of any dtypes, compared by their bits.
        weight: ``[N]``, finite and >= 0; None: 1 each.
    """
    device, n = content[0].device, len(content[0])
    rows = torch.arange(n, device="cpu")
    weights = np.ones(n) if weight is None else weight.detach().cpu().double().numpy()
    if not weights.all():
        rows = torch.from_numpy(weights.nonzero()[0])
        weights = weights[rows.numpy()]
    everything = len(rows) == n
    if len(rows):
        order, starts = _grouped(content, rows, weights)
        if len(starts) < len(rows) or weights.min() != weights.max():
            weights = np.add.reduceat(weights[order], starts)
            kept = order[starts]
            if weights.min() == weights.max():
                kept = np.sort(kept)
            rows, everything = rows[torch.from_numpy(kept)], False
    return Canonical(
        None if everything else rows.to(device),
        None if (weights == 1).all() else torch.from_numpy(weights).to(device),
    )


def _grouped(content: Sequence[Tensor], rows: Tensor, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an order of ``rows`` in which equal ones are neighbours, and where in it each group of equals begins.

    The order hangs on content and weights alone, up to rows that have both in common; its first row of a group is the
    first given of those that weigh least.
    """
    parts = [_as_integers(part) for part in content]
    for seed in count(FIRST_SEED):
        keys = sum(_hashed(part, seed + i) for i, part in enumerate(parts))
        assert isinstance(keys, Tensor)
        hashes = keys.cpu().numpy()[rows.numpy()]
        order = np.argsort(hashes, kind="stable")
        equal = (hashes[order][1:] == hashes[order][:-1]).nonzero()[0]
        if len(equal):
            order = np.lexsort((weights, hashes))
            pairs = (rows[torch.from_numpy(order[equal + i])] for i in (0, 1))
            if not _all_equal(parts, *pairs):
                continue  # others that share a hash: with another one they do not
        starts = np.ones(len(order), dtype=bool)
        starts[equal + 1] = False
        return order, starts.nonzero()[0]
    raise AssertionError


def _as_integers(part: Tensor) -> Tensor:
    """Return the bits of rows ``[N, ...]`` as integers ``[N, K]``, 64 at a time where they come out even."""
    flat = part.detach().reshape(len(part), -1)
    flat = flat if flat.is_contiguous() else flat.contiguous()
    if flat.dtype == torch.bool:
        flat = flat.to(torch.uint8)
    if flat.element_size() == 4 and flat.shape[1] and flat.shape[1] % 2 == 0:
        return (flat if flat.storage_offset() % 2 == 0 else flat.clone()).view(torch.int64)
    return flat.view(INTEGERS.get(flat.element_size(), torch.int64))


def _hashed(part: Tensor, seed: int) -> Tensor:
    """Return a sum of each row's words times odd numbers, int64 ``[N]``: the same on every device."""
    width = part.shape[1]
    odd = np.random.SeedSequence(seed).generate_state(max(width, 1), np.uint64) | np.uint64(1)
    factors = torch.from_numpy(odd.view(np.int64)[:width].copy()).to(part.device)
    hashes = torch.empty(len(part), dtype=torch.int64, device=part.device)
    height = max(1, HASH_NUMBERS // max(width, 1))
    for begin in range(0, len(part), height):
        words = part[begin : begin + height].to(torch.int64)
        # Floats of few digits differ in their highest bits alone, and a product never carries those down.
        mixed = words >> 32
        mixed ^= words
        mixed ^= mixed >> 16
        mixed *= factors
        torch.sum(mixed, 1, out=hashes[begin : begin + height])
    return hashes


def _all_equal(parts: Sequence[Tensor], rows: Tensor, others: Tensor) -> bool:
    """Return whether every one of ``rows`` has the same content as its partner among ``others``."""
    for part in parts:
        height = max(1, HASH_NUMBERS // max(part.shape[1], 1))
        for mine, theirs in zip(rows.split(height), others.split(height), strict=True):
            if not torch.equal(part[mine.to(part.device)], part[theirs.to(part.device)]):
                return False
    return True


def count_repeats(weight: Tensor | None) -> Tensor | None:
    """Return for how many samples each counts, int64 ``[N]``; None: for one each.

    Args:
        weight: ``[N]``, >= 0; None: 1 each. Where all are integers they are counts; otherwise those > 0 count as one.
    """
    if weight is None:
        return None
    weight = weight.detach().double()
    if not bool((weight == weight.floor()).all()) or not float(weight.sum()) < MOST_REPEATS:
        return (weight > 0).long()
    return weight.long()
