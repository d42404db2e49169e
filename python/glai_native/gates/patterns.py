"""This module measures on packed bits what activation patterns have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from glai_native.gates.packed import PackedGates, require_unit_gates
from glai_native.gates.paths import Structure, count_paths, structure_gates

# Distances between samples that the indicator looks at; up to here all pairs are compared.
OUI_SHIFTS = 32
# Pairs of samples whose patterns exist at a time, side by side.
OUI_PAIRS = 2**17
# Path gates that exist at a time while they are counted (as bits, 34 MB).
COUNTED_GATES = 2**28


def oui(layers: Sequence[PackedGates], max_shifts: int = OUI_SHIFTS) -> float:
    """Compute the Overfitting-Underfitting Indicator of Fernández-Hernández et al., arXiv 2504.17160.

        OUI = mean over layers l and pairs of samples {i, j} of  min(1, 2·d_l(i, j)),
        d_l(i, j) = Hamming distance of the patterns of i and j in layer l / units of layer l

    0: all samples have the same pattern, the network is linear; 1: every two differ in half of the units or more. The
    authors found 0.6 to 0.8 early in training to go with the best weight decay. They draw pairs from a batch (and round
    half of the units down, which differs for odd widths). Here they are all pairs; or, where N-1 is more than
    ``max_shifts``, those ``s`` apart for so many evenly spaced s, in a fixed random order of the sorted patterns: the
    same for the same samples in any order, and never unpacked.

    Args:
        layers: unit bits per hidden layer of the same N samples.
        max_shifts: how many distances s at most, for all pairs N-1.

    Returns:
        In [0, 1]; NaN for fewer than two samples.
    """
    n = len(layers[0]) if layers else 0
    if n < 2:
        return float("nan")
    shifts: list[int] = (
        torch.linspace(1, n - 1, min(n - 1, max_shifts), dtype=torch.float32, device="cpu")
        .round()
        .long()
        .unique()
        .tolist()
    )
    if len(shifts) < n - 1:
        layers = _in_an_order_of_their_own(layers)
    together = max(1, OUI_PAIRS // n)
    total = sum(
        _differences(layer, shifts[i : i + together])
        for layer in layers
        for i in range(0, len(shifts), together)
    )
    return total / (len(layers) * sum(n - s for s in shifts))


def _differences(layer: PackedGates, shifts: Sequence[int]) -> float:
    """Sum min(1, 2·d / units) over the pairs of samples that are so many apart, in one call for all of them."""
    n = len(layer)
    ends = [torch.cat([layer.words[s:] for s in shifts]), torch.cat([layer.words[: n - s] for s in shifts])]
    first, second = (PackedGates(words, layer.n_gates) for words in ends)
    return float((2 * first.hamming(second).double() / layer.n_gates).clamp_(max=1).sum())


def _in_an_order_of_their_own(layers: Sequence[PackedGates]) -> list[PackedGates]:
    """Return the same samples in an order that hangs on their patterns alone, in which neighbours are unlike again."""
    order = torch.from_numpy(np.argsort(_patterns(layers), kind="stable"))
    order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(0), device="cpu")]
    return [layer[order.to(layer.device)] for layer in layers]


@dataclass(frozen=True)
class GateCounts:
    """In how many of N samples units and paths are on.

    Attributes:
        samples: N.
        units: int64 ``[h_l]`` per hidden layer.
        paths: int64 ``[P]``, the paths that the structure keeps.
    """

    samples: int
    units: list[Tensor]
    paths: Tensor


def count_gates(structure: Structure, layers: Sequence[PackedGates]) -> GateCounts:
    """Count gates from the unit bits of ``structure``'s samples; path gates are made a block of samples at a time."""
    require_unit_gates("count_gates", layers, structure.widths, structure.structure_id)
    kept = structure.kept_paths
    n_paths = count_paths(structure.widths) if kept is None else len(kept)
    paths = torch.zeros(n_paths, dtype=torch.int64, device=layers[0].device)
    rows = max(1, COUNTED_GATES // n_paths)
    for start in range(0, len(layers[0]), rows):
        block = [layer[start : start + rows] for layer in layers]
        paths += structure_gates("count_gates", structure, block).counts()
    return GateCounts(len(layers[0]), [layer.counts() for layer in layers], paths)


def pattern_sizes(layers: Iterable[PackedGates]) -> Tensor:
    """Count how many samples share each unique pattern of all ``layers`` together: int64, largest first."""
    _, sizes = np.unique(_patterns(layers), return_counts=True)
    return torch.from_numpy(np.sort(sizes)[::-1].copy())


def _patterns(layers: Iterable[PackedGates]) -> NDArray[np.void]:
    """Return as ``[N]`` each sample's words of all layers as one value that sorts."""
    words = torch.cat([layer.words for layer in layers], dim=1).cpu().contiguous().numpy()
    return words.view(np.dtype((np.void, words.dtype.itemsize * words.shape[1]))).reshape(-1)


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
    """Measure the agreement of two structures' layers on the same samples, units paired so that it is largest.

    Units are paired by the Hungarian method on the Hamming distances between them,
    ``d[i,j] = |a_i| + |b_j| - 2·a_i·b_j`` over samples.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(
            f"layer_agreement: both must hold gates of the same N >= 1 samples, got N={len(a)} and N={len(b)}"
        )
    both = torch.zeros((a.n_gates, b.n_gates), dtype=torch.float64, device="cpu")
    for start in range(0, len(a), MATCHED_ROWS):
        rows = slice(start, start + MATCHED_ROWS)
        both += (a[rows].unpack().float().T @ b[rows].unpack().float()).double().cpu()
    distance = a.counts().cpu().unsqueeze(1) + b.counts().cpu() - 2 * both
    row, column = linear_sum_assignment(distance.numpy())
    matched = 1 - float(distance[row, column].mean()) / len(a)
    return LayerAgreement(matched, len(row), a.agreement(b) if a.n_gates == b.n_gates else None)
