"""Samples are added here to the sums of statistics, or taken out of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from glai_native.gates.packed import PackedGates
from glai_native.machine.memory import require_memory
from glai_native.ops.gated_matmul import gated_matmul_weight_grad
from glai_native.ops.path_matrices import path_gram
from glai_native.solvers.samples import Samples
from glai_native.solvers.statistics.unknowns import PathSums

# Samples that are widened to the statistics' dtype at a time: no more numbers than the gram matrix has, or of
# LEAST_ROWS, and no more than path_gram takes in one pass, each of which reads and writes the whole matrix.
LEAST_ROWS, CHUNK_ROWS = 1024, 4096
# Up to here what is left after samples were taken out is factored, a tenth of a second at most.
CHECKED_UNKNOWNS = 2048


def require_memory_of_sums(
    n_paths: int, in_features: int, out_features: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Raise MemoryError, before they are made, where the sums of such an estimator take more than there is."""
    size = n_paths * (in_features + 1)
    require_memory(
        "PathStatistics",
        f"the gram matrix of P={n_paths} paths over D={in_features} features, {size:,} squared,",
        size * size * dtype.itemsize,
        device,
        "use fewer paths, or project z to fewer components",
    )
    require_memory(
        "PathStatistics",
        f"the sums of {size:,} path features for C={out_features:,} outputs",
        size * out_features * dtype.itemsize,
        device,
        "number classes 0, 1, ... without gaps",
    )


@torch.no_grad()
def require_held(before: PathSums, after: PathSums, n_left: int) -> None:
    """Raise where samples were taken out that sums did not hold, so far as the sums that are left can tell.

    Sums of squares, and what no linear model explains of them, cannot be negative beyond rounding, and of no samples
    all are 0, which they are then made. That holds too for some samples that were never there: others like them are.

    Args:
        before: the sums with the samples.
        after: without them.
        n_left: how many samples there are left.
    """
    rounding = torch.finfo(after.gram.dtype).eps ** 0.5
    held = ValueError(
        "downdate: the samples must be among those that the statistics hold, got some that are not, or that were taken "
        "out before: the sums that would be left are of no samples"
    )
    for sums, whole in ((after.gram.diagonal(), before.gram.diagonal()), (after.squares, before.squares)):
        if bool((sums < -rounding * whole.max()).any()):
            raise held
        if not n_left and bool((sums > rounding * whole.max()).any()):
            raise held
    if not n_left:
        for sums in (after.gram, after.rhs, after.squares):
            sums.zero_()
    size = len(after.gram)
    if not n_left or size > CHECKED_UNKNOWNS:
        return
    shifted = after.gram.clone()
    shifted.diagonal().add_(rounding * float(after.gram.diagonal().max()))
    factor, info = torch.linalg.cholesky_ex(shifted, upper=True)  # which reads the upper triangle
    if int(info):
        raise held
    explained = torch.linalg.solve_triangular(factor.mT, after.rhs.reshape(size, -1), upper=False)
    if bool((explained.square().sum(0) > after.squares + rounding * after.squares.max()).any()):
        raise held


@torch.no_grad()
def add_samples(sums: PathSums, samples: Samples, sign: int) -> None:
    """Add samples ``sign`` times, 1 or -1, in place, to all but the counts; what fails leaves a part of them there."""
    for chunk in samples.chunks(chunk_rows(len(sums.gram)), sums.gram.dtype):
        _add_chunk(sums, sign, *chunk)
        del chunk  # before the next is made


def _add_chunk(
    sums: PathSums, sign: int, z: Tensor, gates: PackedGates, values: Tensor, weight: Tensor | None
) -> None:
    if sign < 0:
        weight = -(z.new_ones(len(z)) if weight is None else weight)
    _add_products(sums, z, gates, values, weight)
    path_gram(z, gates, weight, out=sums.gram)


def chunk_rows(n_unknowns: int) -> int:
    """Return how many samples are added to the sums of so many unknowns at a time."""
    return min(max(LEAST_ROWS, n_unknowns), CHUNK_ROWS)


def are_a_chunk(samples: Samples, n_unknowns: int) -> bool:
    """Return whether samples are few enough for :func:`prepare_chunk`, and there are some."""
    return 0 < len(samples) <= chunk_rows(n_unknowns)


@torch.no_grad()
def prepare_chunk(sums: PathSums, samples: Samples) -> tuple[PathSums, Callable[[], object]]:
    """Add samples of one chunk to copies of all sums but the gram matrix, which alone is large, and the counts.

    Returns:
        the sums, and what adds the samples to the gram matrix in place: one native call, which has nothing left that
        could fail once it writes.
    """
    ((z, part, values, weight),) = samples.chunks(len(samples), sums.gram.dtype)
    added = sums._replace(rhs=sums.rhs.clone(), squares=sums.squares.clone())
    _add_products(added, z, part, values, weight)
    return added, lambda: path_gram(z, part, weight, out=sums.gram)


def _add_products(
    sums: PathSums, z: Tensor, gates: PackedGates, values: Tensor, weight: Tensor | None
) -> None:
    features = torch.cat([z, z.new_ones((len(z), 1))], dim=1)
    weighted = values if weight is None else values * weight.unsqueeze(1)
    gated_matmul_weight_grad(features, gates, weighted, out=sums.rhs, accumulate=True)
    sums.squares.add_((weighted * values).sum(0))
