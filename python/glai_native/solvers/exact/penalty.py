"""The ridge penalty of integer sums is chosen by generalised cross-validation, or by samples held out.

Penalties are quarters of powers of ten, so that a few samples more or less seldom choose another. Up to
``SPECTRUM_SIZE`` unknowns one eigendecomposition gives the score at every penalty. Beyond, a penalty takes a Cholesky
factorisation in float32, half the price of the solution's: it gives the score and its slope, the trace by probes, and
from both of few penalties cubics give the least score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from glai_native.solvers.exact.cholesky import factorise, solve_factorised
from glai_native.solvers.exact.system import CentredSystem, FeatureSums, columns_weight, symmetric_product

SPECTRUM_SIZE = 512
STEPS_PER_DECADE = 4
# Powers of ten, of the mean diagonal: where the walk starts, and how far it goes.
FIRST, WEAKEST, STRONGEST = -2.0, -6.0, 2.0
STRIDE = 1.5
TRIES = 3
NARROW = 0.5  # decades between two penalties, which a cubic between them tells apart
MARGIN = 0.1  # of the way between two, that the next keeps from both
LOG_TEN = math.log(10)
PROBES, CODES = 64, 64
SCORED_PROBES = 32  # of a penalty that is only tried
# Weaker penalties, of the mean diagonal, take float64: float32 rounds the matrix by as much as they add.
LEAST_SINGLE = 1e-4
SEED = 20_240_815
ROWS = 256  # of a gram matrix that are floats at a time
HELD_OUT_POWERS = range(-8, 9)  # of ten, of a column's mean square: RanPAC's seventeen


def choose_by_gcv(system: CentredSystem, on_penalty: Callable[[], object] = lambda: None) -> float:
    """Choose the penalty with the least ``(|residuals|² / N·C) / (1 - (1 + tr H) / N)²``, H = F·(gram + l2·I)⁻¹·Fᵀ.

    The one is the constant's degree of freedom. ``on_penalty`` is called after each factorisation.

    Source: Golub, Heath and Wahba, "Generalized cross-validation as a method for choosing a good ridge parameter"
    (1979); the trace: Hutchinson (1990), by probes that are the same for every penalty.
    """
    unit = mean_diagonal(system)
    if not unit:
        return 1.0  # every feature is constant, and its weight is zero at any penalty
    if system.size <= SPECTRUM_SIZE:
        grid = _grid(unit)
        scores = _spectral_scores(system, system.rhs.new_tensor(grid))
        return grid[int(scores.nan_to_num(math.inf, math.inf).argmin())]
    return _walk(_Scorer(system, unit), unit, on_penalty)


def choose_by_held_out(
    rest: CentredSystem, held_out: FeatureSums, on_penalty: Callable[[], object] = lambda: None
) -> float:
    """Choose the penalty whose solution of the other samples errs least, in squares, on those held out.

    Source: RanPAC (McDonnell et al., arXiv 2307.02251), which tries seventeen powers of ten on a fifth of the samples.

    Args:
        rest: of the samples that are not held out.
        held_out: sums over the others.
        on_penalty: called after each penalty.
    """
    held_out.require_whole()
    unit = mean_diagonal(rest) / rest.n_samples or 1.0
    best, least = 1.0, math.inf
    for power in HELD_OUT_POWERS:
        l2 = unit * 10.0**power
        factor = factorise(rest.gram(), l2)
        on_penalty()
        if factor is None:
            continue
        solution = solve_factorised(factor, rest.rhs)
        weight = columns_weight(solution, rest.scale, rest.mean, rest.target_mean)
        error = squared_error(held_out, weight)
        if error < least:
            best, least = l2, error
    return best


def cross_validated_error(system: CentredSystem, factor: Tensor, solution: Tensor, l2: float) -> float:
    """Return the mean square, over samples and outputs, that a solution errs by on others: the score itself.

    Args:
        system: that was solved.
        factor: its Cholesky factor at the penalty.
        solution: ``[K, C]``.
        l2: the penalty.

    Returns:
        0 where nothing is left to err by, or no degree of freedom.
    """
    explained = float((solution * system.rhs).sum() + l2 * solution.square().sum())
    halves = torch.linalg.solve_triangular(factor, _signs(system.size, PROBES, factor), upper=False)
    left = (
        system.n_samples - 1 - system.size + l2 * float(halves.square().sum()) / PROBES
    ) / system.n_samples
    mean = (system.squares - explained) / (system.weight_sum * solution.shape[1])
    return max(mean, 0.0) / left**2 if left > 0 else 0.0


def squared_error(sums: FeatureSums, weight: Tensor) -> float:
    """Return the sum of squared errors, less that of the targets' squares, of weights ``[M, C]`` on summed samples."""
    product = symmetric_product(_rows_of(sums.gram), weight)
    return float((weight * (product - 2 * sums.cross.double())).sum())


def _rows_of(gram: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Yield ``begin, end`` and rows ``[begin:end, begin:M]`` of an integer gram matrix, as float64."""
    for begin in range(0, len(gram), ROWS):
        end = min(begin + ROWS, len(gram))
        yield begin, end, gram[begin:end, begin:].double()


def mean_diagonal(system: CentredSystem) -> float:
    """Return the mean of the centred gram matrix's diagonal over the columns that vary, 0 where none does."""
    diagonal = system.diagonal()
    varying = diagonal[diagonal > 0]
    return float(varying.mean()) if len(varying) else 0.0


def _signs(rows: int, columns: int, like: Tensor) -> Tensor:
    """Return 1 and -1 ``[rows, columns]``, always the same."""
    generator = torch.Generator().manual_seed(SEED)
    drawn = torch.randint(0, 2, (rows, columns), generator=generator, dtype=torch.float64, device="cpu")
    return (2 * drawn - 1).to(like)


def _grid(unit: float) -> list[float]:
    """Return the penalties from the weakest to the strongest."""
    least, most = (round((math.log10(unit) + power) * STEPS_PER_DECADE) for power in (WEAKEST, STRONGEST))
    return [_penalty(step) for step in range(least, most + 1)]


def _penalty(step: int) -> float:
    """Return the penalty at a step of the grid."""
    return float(10 ** (step / STEPS_PER_DECADE))


def _spectral_scores(system: CentredSystem, penalties: Tensor) -> Tensor:
    """Return the score at each of ``penalties [L]``."""
    values, axes = torch.linalg.eigh(system.gram(), UPLO="U")
    values = values.clamp_(min=0).unsqueeze(1)
    energies = (axes.T @ system.rhs).square().sum(1)
    shifted = values + penalties
    squares: Tensor = system.squares - energies @ ((shifted + penalties) / shifted.square())
    left = 1 - (1 + (values / shifted).sum(0)) / system.n_samples
    rounding = torch.finfo(values.dtype).eps * system.size
    known = (left > rounding) & (squares >= rounding * system.squares)
    scores: Tensor = squares.where(known, math.nan) / left.square()
    return scores


class _Scorer:
    """Gives the logarithm of the score at a penalty, and its slope over the logarithm of the penalty."""

    def __init__(self, system: CentredSystem, unit: float) -> None:
        self._system, self._unit = system, unit
        rhs, self._squares = system.rhs, system.squares
        if system.has_classes and rhs.shape[1] > CODES:
            # Random sums of the classes stand for them all: the same squares in expectation.
            codes = _signs(rhs.shape[1], CODES, rhs) / math.sqrt(CODES)
            rhs = rhs @ codes
            totals = system.target_mean * system.weight_sum
            self._squares = float(
                (totals @ codes.square() - (system.target_mean @ codes).square() * system.weight_sum).sum()
            )
        self._columns = rhs.shape[1]
        self._rhs = torch.cat([rhs, _signs(system.size, SCORED_PROBES, rhs)], 1)
        self._single: Tensor | None = system.gram(torch.float32)

    def __call__(self, l2: float) -> tuple[float, float] | None:
        """Return score and slope; None where the system is singular or the score is rounding."""
        system, targets = self._system, self._columns
        single = l2 >= LEAST_SINGLE * self._unit
        if single:
            gram = self._single.clone() if self._single is not None else system.gram(torch.float32)
        else:  # one copy in float64 takes the place of two in float32, and no stronger penalty will follow
            self._single = None
            gram = system.gram()
        factor = factorise(gram, l2)
        if factor is None:
            return None
        half = torch.linalg.solve_triangular(factor, self._rhs.to(gram.dtype), upper=False)
        whole = torch.linalg.solve_triangular(factor.T, half, upper=True)
        beyond = torch.linalg.solve_triangular(factor, whole[:, :targets], upper=False)
        halves, wholes = half.double().square().sum(0), whole.double().square().sum(0)
        n = system.n_samples
        squares = self._squares - float(halves[:targets].sum() + l2 * wholes[:targets].sum())
        squares_slope = 2 * l2 * l2 * float(beyond.double().square().sum())
        inverse, inverse_square = float(halves[targets:].mean()), float(wholes[targets:].mean())
        left = n - 1 - system.size + l2 * inverse
        left_slope = l2 * inverse - l2 * l2 * inverse_square
        rounding = torch.finfo(gram.dtype).eps * math.sqrt(system.size)
        if left <= rounding * n or squares <= rounding * self._squares:
            return None
        score = math.log(squares) - 2 * math.log(left / n)
        return score, squares_slope / squares - 2 * left_slope / left


def _walk(scorer: _Scorer, unit: float, on_penalty: Callable[[], object]) -> float:
    """Walk downhill until the slope changes its sign, then into the least of a cubic between."""
    place = least = math.log(unit) + FIRST * LOG_TEN
    below: _Scored | None = None  # the strongest penalty so far that is too weak
    above: _Scored | None = None  # the weakest that is too strong
    for _ in range(TRIES):
        scored = scorer(math.exp(place))
        on_penalty()
        if scored is None:
            below = _Scored(place, math.inf, -math.inf)
        elif scored[1] < 0:
            below = _Scored(place, *scored)
        else:
            above = _Scored(place, *scored)
        if below is None:
            place, least = place - STRIDE * LOG_TEN, place
        elif above is None:
            place, least = place + STRIDE * LOG_TEN, place
        else:
            place = least = _least_between(below, above)
            if above.place - below.place <= NARROW * LOG_TEN:
                break
    return _penalty(round(least / LOG_TEN * STEPS_PER_DECADE))


class _Scored(NamedTuple):
    """Logarithms of a penalty and of its score, and the slope of one over the other."""

    place: float
    score: float
    slope: float


def _least_between(below: _Scored, above: _Scored) -> float:
    """Return where the cubic through two scores and slopes, which fall and rise, is least; of one, nearer to it."""
    width = above.place - below.place
    if not math.isfinite(below.score):
        return above.place - width / 3
    mixed = 3 * (below.score - above.score) / width + below.slope + above.slope
    root = math.sqrt(mixed**2 - below.slope * above.slope)
    share = (above.slope + root - mixed) / (above.slope - below.slope + 2 * root)
    return above.place - width * min(max(share, MARGIN), 1 - MARGIN)
