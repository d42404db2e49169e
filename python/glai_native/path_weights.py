"""Weights of paths that change their numbers: folded into others, dropped, or put among new ones."""

from __future__ import annotations

import torch
from torch import Tensor

from glai_native.estimator import PathEstimator


@torch.no_grad()
def move_paths(
    estimator: PathEstimator, position: Tensor, n_paths: int, share: Tensor | None = None
) -> PathEstimator:
    """An estimator of ``n_paths`` paths, each the sum of those that move there, zero where none does.

    Args:
        estimator: the weights before, of P paths; left as it is.
        position: int64 ``[P]``, where each path goes; -1: nowhere.
        n_paths: of the result, which states no structure.
        share: float64 ``[P]``, how much of its weights each path takes along; None: all.

    Returns:
        Sums are computed in float64. Paths that move together are on together, or the one that stays is on more often:
        ``on_counts`` takes the largest. ``samples_seen`` stays.
    """
    position = position.to(estimator.on_counts.device)
    goes = position >= 0
    to = position[goes]
    moved = PathEstimator(
        n_paths,
        estimator.in_features,
        estimator.out_features,
        dtype=estimator.weight.dtype,
    ).to(estimator.weight.device)
    for name in ("weight", "bias"):
        before, after = estimator.get_parameter(name)[goes].double(), moved.get_parameter(name)
        if share is not None:
            before *= share.to(before.device)[goes].view(-1, *[1] * (before.ndim - 1))
        total = torch.zeros_like(after, dtype=torch.float64)
        after.copy_(total.index_add_(0, to, before))
    counts = estimator.on_counts[goes]
    moved.on_counts.scatter_reduce_(0, to.unsqueeze(1).expand_as(counts), counts, "amax")
    moved.samples_seen.copy_(estimator.samples_seen)
    return moved


def path_norms(estimator: PathEstimator) -> Tensor:
    """``(|w_p|² + |b_p|²)^½`` of each path: float64 ``[P]``."""
    weight, bias = estimator.weight.detach().double(), estimator.bias.detach().double()
    return (weight.square().sum((1, 2)) + bias.square().sum(1)).sqrt()
