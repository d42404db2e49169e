"""Integers of any size as messages carry them: in limbs of 40 bits, which sums over many parties do not overflow."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

LIMB_BITS = 40
# As many as hold sums over 2^35 samples: of float32 columns, of their squares, of the squares of a unit.
SUM_LIMBS, SQUARE_LIMBS, UNIT_LIMBS = 8, 16, 3
# The largest of what a party sends is an int32, of few samples: half the bytes.
MOST_INT32 = (1 << 31) - 1


def to_limbs(numbers: Iterable[int], n_limbs: int) -> Tensor:
    """Integers modulo 2^(40·n_limbs) as int64 ``[n_limbs, n]``, the lowest limb first.

    Limbs of several parties are added one by one; what they then stand for is the sum.
    """
    modulus, mask = 1 << LIMB_BITS * n_limbs, (1 << LIMB_BITS) - 1
    whole = [number % modulus for number in numbers]
    limbs = [[number >> LIMB_BITS * i & mask for number in whole] for i in range(n_limbs)]
    return torch.tensor(limbs, dtype=torch.int64, device="cpu")


def from_limbs(limbs: Tensor) -> list[int]:
    """And back, from the sum of what :func:`to_limbs` made of several parties' integers."""
    modulus = 1 << LIMB_BITS * len(limbs)
    totals = [
        sum(limb << LIMB_BITS * i for i, limb in enumerate(each)) % modulus for each in limbs.T.tolist()
    ]
    return [total - modulus if total >= modulus // 2 else total for total in totals]


def narrowed(sums: Tensor) -> Tensor:
    """Sums as int32 where that holds them all, int64 else."""
    return sums.int() if not sums.numel() or int(sums.max()) <= MOST_INT32 else sums
