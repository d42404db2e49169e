"""How far two structures switch on together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment

from glai_native.gates import PackedGates

# Samples that exist unpacked at a time while units are matched.
MATCHED_ROWS = 8192


@dataclass(frozen=True)
class LayerAgreement:
    """How far two layers switch on together.

    Attributes:
        matched: share of equal bits over the matched pairs of units.
        pairs: how many, the smaller of the two widths.
        numbered: share of equal bits with units paired by number; None where the widths differ.
    """

    matched: float
    pairs: int
    numbered: float | None


def layer_agreement(a: PackedGates, b: PackedGates) -> LayerAgreement:
    """Agreement of two structures' layers on the same samples, units paired so that it is largest.

    The Hungarian method on the Hamming distances between units, ``d[i,j] = |a_i| + |b_j| - 2·a_i·b_j`` over samples.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(
            f"layer_agreement: both must hold gates of the same N >= 1 samples, got N={len(a)} and N={len(b)}"
        )
    both = torch.zeros((a.n_gates, b.n_gates), dtype=torch.float64)
    for start in range(0, len(a), MATCHED_ROWS):
        rows = slice(start, start + MATCHED_ROWS)
        both += (a[rows].unpack().float().T @ b[rows].unpack().float()).double().cpu()
    distance = a.counts().cpu().unsqueeze(1) + b.counts().cpu() - 2 * both
    row, column = linear_sum_assignment(distance.numpy())
    matched = 1 - float(distance[row, column].mean()) / len(a)
    return LayerAgreement(matched, len(row), a.agreement(b) if a.n_gates == b.n_gates else None)
