"""This module moves weights of paths and units that change their numbers: folded, dropped, put among new ones."""

from __future__ import annotations

import torch
from torch import Tensor

from glai_native.estimator.estimator import PathEstimator


@torch.no_grad()
def move_paths(
    estimator: PathEstimator, position: Tensor, n_paths: int, share: Tensor | None = None, seed: int = 0
) -> PathEstimator:
    """Make an estimator of ``n_paths`` paths, each the sum of those that move there, zero where none does.

    With output directions, paths take theirs along: those that move to one place, the last excepted, must have equal
    ones. Where none moves they are random, of the mean square of the others.

    Args:
        estimator: the weights before, of P paths; left as it is.
        position: int64 ``[P]``, where each path goes; -1: nowhere. The last path, always on, stays the last.
        n_paths: of the result, which states no structure.
        share: float64 ``[P]``, how much of its weights each path takes along; None: all.
        seed: of random directions.

    Returns:
        Sums are computed in float64. Paths that move together are on together, or the one that stays is on more often:
        ``on_counts`` takes the largest. ``samples_seen``, what outputs mean, and the temperature stay.
    """
    device = estimator.on_counts.device
    position = position.to(device)
    goes = position >= 0
    to = position[goes]
    if share is not None:
        share = share.to(device)[goes]
    directions = estimator.directions
    moved = PathEstimator(
        n_paths,
        estimator.in_features,
        estimator.out_features,
        None if directions is None else _moved_directions(directions, goes, to, n_paths, seed),
        dtype=estimator.dtype,
        device=device,
    )
    if directions is None:
        moved.weight.copy_(_summed(estimator.weight[goes], to, n_paths, share))
        moved.bias.copy_(_summed(estimator.bias[goes], to, n_paths, share))
    else:
        u, beta = (_shared(t[goes], share) for t in (estimator.u, estimator.beta))
        last = to == n_paths - 1
        v = directions[goes][last].double()
        moved.constant_weight.copy_(estimator.constant_weight + u[last].T @ v)
        moved.constant_bias.copy_(estimator.constant_bias + beta[last] @ v)
        moved.u.copy_(_summed(u[~last], to[~last], n_paths))
        moved.beta.copy_(_summed(beta[~last], to[~last], n_paths))
    counts = estimator.on_counts[goes]
    moved.on_counts.scatter_reduce_(0, to.unsqueeze(1).expand_as(counts), counts, "amax")
    _take_rest(moved, estimator)
    return moved


@torch.no_grad()
def move_units(
    estimator: PathEstimator, position: Tensor, n_units: int, constant: Tensor | None = None
) -> PathEstimator:
    """Make an estimator of ``n_units`` units from one of units; what flows out of the new ones is zero.

    Args:
        estimator: the weights before, of h_L units; left as it is.
        position: int64 ``[h_L]``, which unit each becomes; -1: none.
        n_units: of the result, which states no structure.
        constant: float64 ``[D + 1, C]``, what joins the weights of z and the bias; None: nothing.
    """
    before, position = estimator.n_units, position.to(estimator.weight.device)
    moved = PathEstimator(
        1,
        estimator.in_features - before + n_units,
        estimator.out_features,
        n_units=n_units,
        dtype=estimator.dtype,
        device=estimator.weight.device,
    )
    units, inputs = estimator.weight[0, :before], estimator.weight[0, before:]
    moved.weight[0, position[position >= 0]] = units[position >= 0]
    moved.weight[0, n_units:] = inputs if constant is None else inputs + constant[:-1]
    moved.bias.copy_(estimator.bias if constant is None else estimator.bias + constant[-1])
    moved.on_counts.copy_(estimator.on_counts)
    _take_rest(moved, estimator)
    return moved


@torch.no_grad()
def path_norms(estimator: PathEstimator) -> Tensor:
    """Return ``(|w_p|² + |b_p|²)^½`` of each path: float64 ``[P]``; with directions that of the last path is 0."""
    if estimator.directions is None:
        weight, bias = estimator.weight.double(), estimator.bias.double()
        return (weight.square().sum((1, 2)) + bias.square().sum(1)).sqrt()
    u, beta = estimator.u.double(), estimator.beta.double()
    length: Tensor = torch.linalg.vector_norm(estimator.directions.double(), dim=1)
    return length * (u.square().sum(1) + beta.square()).sqrt()


def _take_rest(moved: PathEstimator, estimator: PathEstimator) -> None:
    moved.samples_seen.copy_(estimator.samples_seen)
    moved.take_outputs(estimator)
    moved.temperature = estimator.temperature


def _summed(weights: Tensor, to: Tensor, n_paths: int, share: Tensor | None = None) -> Tensor:
    total = torch.zeros((n_paths, *weights.shape[1:]), dtype=torch.float64, device=weights.device)
    return total.index_add_(0, to, _shared(weights, share))


def _shared(weights: Tensor, share: Tensor | None) -> Tensor:
    wide = weights.double()
    return wide if share is None else wide * share.view(-1, *[1] * (wide.ndim - 1))


def _moved_directions(directions: Tensor, goes: Tensor, to: Tensor, n_paths: int, seed: int) -> Tensor:
    scale = directions[:-1].double().square().mean().sqrt() if len(directions) > 1 else 1.0
    drawn = torch.randn(
        (n_paths, directions.shape[1]),
        generator=torch.Generator("cpu").manual_seed(seed),
        dtype=torch.float64,
        device="cpu",
    )
    moved = (drawn.to(directions.device) * scale).to(directions.dtype)
    moved[to] = directions[goes]
    moved[-1] = 0
    return moved
