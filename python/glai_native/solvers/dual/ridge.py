"""Ridge regression over samples gets its coefficients by Cholesky, and its l2 by leave-one-out."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from glai_native.machine.progress import multiply_adds_bar
from glai_native.solvers.dual.cholesky import BLOCK, BlockCholesky, NotPositiveDefiniteError
from glai_native.solvers.dual.features import PathFeatures

# What l2 is chosen from, as multiples of the mean diagonal of the kernel, each sample times its weight. The walk begins
# in the middle, and its first steps are of two: of ten tables, two seeds each, the error had one valley, and the walk
# found its floor by five or six of the nine solutions.
L2_GRID = tuple(10 ** (exponent / 2) for exponent in range(-6, 3))
FIRST, STRIDES = len(L2_GRID) // 2, (2, 1)

# Of more samples than the least, l2 is tried on a share: six solutions of a quarter take a tenth of the time of one of
# all.
TRIAL_LEAST = 1000
TRIAL_SHARE = 4
TRIAL_MOST = 5000


@dataclass(frozen=True)
class KernelFit:
    """What a fit over samples finds.

    Attributes:
        centres: the M samples that carry coefficients.
        alpha: their coefficients ``[M, C]``.
        residuals: leave-one-out ``[R, C]``, of the samples that it was asked for; None where they are not known.
        unsolved: relative residual of the equations, where they were solved step by step.
        rows: int64 ``[M]``, which of the samples the centres are; None: all, in their order.
    """

    centres: PathFeatures
    alpha: Tensor
    residuals: Tensor | None
    unsolved: float = 0.0
    rows: Tensor | None = None


def fit_by_cholesky(
    features: PathFeatures,
    targets: Tensor,
    sample_weight: Tensor,
    l2: float,
    progress: bool,
    left_out: Tensor | None = None,
) -> KernelFit:
    """Fit with every sample a centre, from the whole kernel matrix at once.

    The arguments are as in :func:`solve_kernel_ridge`; ``left_out``: rows ``[R]`` whose leave-one-out residuals are
    asked for (None: all), which become the last ones: what the residuals cost then is in R³, not N³.

    Raises:
        NotPositiveDefiniteError: l2 is too small for the precision.
    """
    last, order = len(features), None
    if left_out is not None:
        last, others = len(left_out), torch.ones_like(sample_weight, dtype=torch.bool)
        others[left_out] = False
        order = torch.cat([others.nonzero()[:, 0], left_out])
        features, targets, sample_weight = features[order], targets[order], sample_weight[order]
    with multiply_adds_bar("kernel ridge", solve_cost(len(features), last), progress) as advance:
        alpha, residuals = solve_kernel_ridge(features.kernel(), targets, sample_weight, l2, last, advance)
    return KernelFit(features, alpha, residuals, rows=order)


def cholesky_bytes(n: int, n_outputs: int, itemsize: int) -> int:
    """Return the bytes that :func:`fit_by_cholesky` holds at most.

    It holds the kernel matrix, block columns, and arrays like the targets.
    """
    return itemsize * (n * n + 3 * n * BLOCK + 4 * n * n_outputs)


def solve_kernel_ridge(
    kernel: Tensor,
    targets: Tensor,
    sample_weight: Tensor,
    l2: float,
    last: int,
    advance: Callable[[float], object] = float,
) -> tuple[Tensor, Tensor]:
    """Find ``alpha = (K + l2·diag(1/s))⁻¹·Y``, which minimises ``sum_n s_n·|y_n - (K·alpha)_n|² + l2·alphaᵀ·K·alpha``.

    Args:
        kernel: ``[N, N]``; what lies below its diagonal is overwritten, and read by nobody.
        targets: Y, ``[N, C]``.
        sample_weight: s, ``[N]``, all positive.
        l2: what the squares of the path weights cost.
        last: R, of how many samples, the last ones, residuals are asked for.
        advance: called with the multiply-adds done since the last call.

    Returns:
        alpha ``[N, C]``, and the leave-one-out residuals ``[R, C]``: what each sample's target lacks when the other
        samples predict it, ``alpha_n / ((K + l2·diag(1/s))⁻¹)_nn``, exactly, without a second fit.

    Raises:
        NotPositiveDefiniteError: l2 is too small for the precision.
    """
    factor = BlockCholesky(kernel, l2 / sample_weight, advance)
    alpha = factor.solve(targets)
    return alpha, alpha[len(alpha) - last :] / factor.inverse_diagonal(last).unsqueeze(1)


def solve_cost(n: int, last: int) -> float:
    """Return the multiply-adds of :func:`solve_kernel_ridge`: a factor, and half an inverse of the last ones."""
    return (n**3 + last**3) / 6


def mean_square(residuals: Tensor, sample_weight: Tensor) -> float:
    """Return ``sum_n s_n·|r_n|² / sum_n s_n``."""
    return float((residuals.square().sum(1) * sample_weight).sum() / sample_weight.sum())


def choose_kernel_l2(
    features: PathFeatures, targets: Tensor, sample_weight: Tensor, budget: int, seed: int, progress: bool
) -> float:
    """Choose the l2 of the grid with the least leave-one-out residual, on some of the samples where there are many.

    More samples want a larger l2, though less than in proportion (on BANKING77 a quarter of the samples chose
    one to five times less than all did, where the curve is flat), so the square root of the ratio is multiplied in.

    Args:
        features: N samples.
        targets: ``[N, C]``.
        sample_weight: ``[N]``, all positive.
        budget: bytes; fewer samples are looked at where their kernel matrix would take more than half of it.
        seed: of the choice of samples.
        progress: show a bar.

    Raises:
        NotPositiveDefiniteError: no l2 of the grid is large enough.
    """
    n = len(features)
    most = max(2, math.isqrt(budget // (2 * targets.element_size())))
    count = min(n, most, max(TRIAL_LEAST, min(TRIAL_MOST, n // TRIAL_SHARE)))
    rows = (
        torch.randperm(n, generator=torch.Generator().manual_seed(seed), device="cpu")[:count].sort().values
    )
    rows = rows.to(features.z.device)
    kernel, targets, sample_weight = features[rows].kernel(), targets[rows], sample_weight[rows]
    # l2 is spread over the samples as l2 / s: weights of another scale want an l2 of that scale.
    mean_diagonal = float((kernel.diagonal().double() * sample_weight).mean())
    errors: dict[int, float] = {}  # by place in the grid
    with multiply_adds_bar("l2", len(L2_GRID) * solve_cost(count, count), progress) as advance:

        def error(place: int) -> float:
            if place not in errors:
                errors[place] = math.inf
                with suppress(NotPositiveDefiniteError):
                    l2 = L2_GRID[place] * mean_diagonal
                    _, residuals = solve_kernel_ridge(kernel, targets, sample_weight, l2, count, advance)
                    found = mean_square(residuals, sample_weight)
                    errors[place] = math.inf if math.isnan(found) else found
            return errors[place]

        best = _walk_downhill(error)
    if errors[best] == math.inf:
        raise NotPositiveDefiniteError
    return L2_GRID[best] * mean_diagonal * math.sqrt(n / count)


def _walk_downhill(error: Callable[[int], float]) -> int:
    """Return the place in the grid of the least error, infinite where l2 is too small: steps of two, then of one."""
    best, last = FIRST, len(L2_GRID) - 1
    for stride in STRIDES:
        for step in (stride, -stride):
            while 0 <= best + step <= last and (
                error(best + step) < error(best) or (step > 0 and error(best) == math.inf)
            ):
                best += step
    return best
