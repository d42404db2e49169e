"""The ridge penalty is chosen by generalised or exact leave-one-out cross-validation, from sufficient statistics.

Penalties are tried relative to the mean of the gram matrix's diagonal. Up to ``SPECTRUM_SIZE`` unknowns one
eigendecomposition gives the score at every penalty of a fine grid. Beyond, each penalty costs a Cholesky factorisation
(M³/6 multiply-adds), and its inverse (M³/3) or a second pass over the samples (n·M²/2), so a coarse grid is walked
downhill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from glai_native.solvers.statistics.ridge import RidgeSystem, SingularSystem, factorise, relative_rounding

# Measured on two cores: 0.6 s for 2,048 unknowns; for 4,000, 4.5 s, where a penalty by Cholesky takes 0.7 s, and the
# steps of an eigendecomposition suffer more than those of the others where cores are shared.
SPECTRUM_SIZE = 2048
# Powers of ten, of the mean diagonal. Where samples are few or separable, the score is least at the weakest penalty.
# At 1e-8 the order in which sums were added showed in the weights at 3e-8 of the largest (digits, two classes, then the
# others one by one), which are to be those of joint training to 1e-8; at 1e-6 at 4e-10, and test accuracy was no worse.
WEAKEST, STRONGEST, FIRST = -6, 2, -2
STEPS_PER_DECADE = 4
# A sum of squared residuals counts from so many roundings of the targets' squares on. At 1.3 of them, in float32, 36
# samples of as many unknowns chose a penalty of twice the least score, with one thread and not with two.
ROUNDINGS = 2


@dataclass(frozen=True)
class SampleRows:
    """The rows of the features that belong to n samples, r for each, and what they should give.

    Attributes:
        features: ``[n, r, M]``.
        targets: ``[n, r, K]``.
        weight: of the samples, ``[n]``, or None.
        repeated: weights are numbers of repetitions, of which one is left out at a time; otherwise all of a sample is.
    """

    features: Tensor
    targets: Tensor
    weight: Tensor | None
    repeated: bool = False


Passes = Callable[[], Iterable[SampleRows]]
"""A pass over all samples, as often as it is called."""


def choose_by_gcv(system: RidgeSystem, on_penalty: Callable[[], object] = lambda: None) -> float:
    """Choose the penalty with the least ``(|residuals|² / n·K) / (1 - tr(H) / n)²``, H = F·(gram + l2·I)⁻¹·Fᵀ.

    Golub, Heath and Wahba, "Generalized cross-validation as a method for choosing a good ridge parameter" (1979).
    ``on_penalty`` is called after each that takes a factorisation of its own.
    """
    if system.size <= SPECTRUM_SIZE:
        grid = _grid(system)
        return _least(grid, Spectrum(system).gcv(grid))

    def score(l2: float) -> float:
        found = _gcv_by_cholesky(system, l2)
        on_penalty()
        return found

    return _walk(system, score)


def choose_by_loo(system: RidgeSystem, passes: Passes) -> float:
    """Choose the penalty with the least sum of squares over samples, each predicted by the solution without it.

    ``e = (I - H_n)⁻¹·r`` gives them without another fit: r are the residuals of a sample's rows, H_n its block of the
    hat matrix. One pass over the samples up to ``SPECTRUM_SIZE`` unknowns, one for each penalty tried beyond.
    """
    if system.size <= SPECTRUM_SIZE:
        spectrum, grid = Spectrum(system), _grid(system)
        return _least(grid, torch.stack([spectrum.loo(rows, grid) for rows in passes()]).sum(0))
    return _walk(system, lambda l2: _loo_by_cholesky(system, passes, l2))


class Spectrum:
    """``gram = U·diag(s)·Uᵀ``: the solution at any penalty for a product.

    Attributes:
        values: s ``[M]``, >= 0.
        axes: U ``[M, M]``.
        rhs: Uᵀ·rhs ``[M, K]``.
    """

    def __init__(self, system: RidgeSystem) -> None:
        values, self.axes = torch.linalg.eigh(system.gram, UPLO="U")
        self.values = values.clamp_(min=0)
        self.rhs = self.axes.T @ system.rhs
        self.system = system

    def gcv(self, penalties: Tensor) -> Tensor:
        """Return the generalised cross-validation score at each of ``penalties [L]``."""
        shifted = self.values.unsqueeze(1) + penalties
        energies = self.rhs.square().sum(1)
        explained = energies @ ((shifted + penalties) / shifted.square())
        return _gcv(self.system, self.system.squares - explained, (self.values.unsqueeze(1) / shifted).sum(0))

    def loo(self, rows: SampleRows, penalties: Tensor) -> Tensor:
        """Return the sum of squared leave-one-out errors of ``rows`` at each of ``penalties [L]``."""
        rotated = rows.features @ self.axes
        shrinking = 1 / (self.values.unsqueeze(1) + penalties)
        alone = rotated.square() @ shrinking if rotated.shape[1] == 1 else None
        scores = []
        for i, shrunk in enumerate(shrinking.T):
            hat = (rotated * shrunk) @ rotated.mT if alone is None else alone[:, :, i : i + 1]
            residuals = rows.targets - rotated @ (self.rhs * shrunk.unsqueeze(1))
            scores.append(_left_out(residuals, hat, rows))
        return torch.stack(scores)


def _least(penalties: Tensor, scores: Tensor) -> float:
    """Return the penalty of the least score; one without a score (0 / 0, infinite) is not taken."""
    return float(penalties[scores.nan_to_num(math.inf, math.inf).argmin()])


def _grid(system: RidgeSystem) -> Tensor:
    """Return penalties ``[L]``, none so weak that rounding alone could make the system singular."""
    steps = torch.arange(WEAKEST * STEPS_PER_DECADE, STRONGEST * STEPS_PER_DECADE + 1, device="cpu")
    grid = torch.stack(
        [system.gram.new_tensor(_penalty(system, step / STEPS_PER_DECADE)) for step in steps.tolist()]
    )
    return grid[grid > 4 * relative_rounding(system) * system.gram.diagonal().max()]


def _penalty(system: RidgeSystem, power: float) -> float:
    return math.pow(10.0, power) * (float(system.gram.diagonal().mean()) or 1.0)


def _walk(system: RidgeSystem, score: Callable[[float], float]) -> float:
    """Walk downhill by decades from the middle, then half a decade to either side."""
    scores: dict[float, float] = {}

    def tried(power: float) -> float:
        if power not in scores:
            try:
                found = score(_penalty(system, power))
            except SingularSystem:
                found = math.inf
            scores[power] = math.inf if math.isnan(found) else found
        return scores[power]

    best: float = FIRST
    for step in (1, -1):
        while WEAKEST <= best + step <= STRONGEST and tried(best + step) < tried(best):
            best += step
    best = min((best, best - 0.5, best + 0.5), key=tried)
    return _penalty(system, best)


def _gcv(system: RidgeSystem, squares: Tensor, degrees: Tensor) -> Tensor:
    """Compute the score from the residuals' sum of squares and the trace of the hat matrix."""
    left = 1 - degrees / system.n_rows
    # As many degrees of freedom as residuals, or residuals that are a difference of equal sums: both are rounding.
    rounding = torch.finfo(system.gram.dtype).eps * system.size
    known = (left > rounding) & (squares >= ROUNDINGS * rounding * system.squares)
    return squares.where(known, math.nan) / (system.n_rows * system.rhs.shape[1]) / left.square()


def _gcv_by_cholesky(system: RidgeSystem, l2: float) -> float:
    factor = factorise(system, l2)
    solution = torch.cholesky_solve(system.rhs, factor)
    squares = system.squares - (solution * system.rhs).sum() - l2 * solution.square().sum()
    inverse = torch.cholesky_inverse(factor, out=factor)
    return float(_gcv(system, squares, system.size - l2 * inverse.trace()))


def _loo_by_cholesky(system: RidgeSystem, passes: Passes, l2: float) -> float:
    factor = factorise(system, l2)
    solution = torch.cholesky_solve(system.rhs, factor)
    total = 0.0
    for rows in passes():
        flat = rows.features.flatten(0, 1)
        whitened = torch.linalg.solve_triangular(factor.T, flat, upper=True, left=False).view(
            rows.features.shape
        )
        single = whitened.shape[1] == 1
        hat = whitened.square().sum(2, keepdim=True) if single else whitened @ whitened.mT
        total += float(_left_out(rows.targets - rows.features @ solution, hat, rows))
    return total


def _left_out(residuals: Tensor, hat: Tensor, rows: SampleRows) -> Tensor:
    """Return the sum of squares of ``(I - H)⁻¹·residuals``, hat ``[n, r, r]`` before the samples' weights."""
    weight = rows.weight
    if weight is not None and not rows.repeated:
        hat = hat * weight.view(-1, 1, 1)
    if hat.shape[1] == 1:
        errors = residuals / (1 - hat)
    else:
        errors, _ = torch.linalg.solve_ex(
            torch.eye(hat.shape[1], dtype=hat.dtype, device=hat.device) - hat, residuals
        )
    squares = errors.square().sum((1, 2))
    return (squares if weight is None else squares * weight).sum()
