"""The weights of integer features are solved from their sums, in float64, and again after few samples more or less."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from glai_native.estimator.temperature import RIDGE_TEMPERATURE
from glai_native.machine.memory import require_memory
from glai_native.solvers.exact.cholesky import factorise, solve_factorised
from glai_native.solvers.exact.deciding import DECISIONS, DISCRIMINANTS, Solved
from glai_native.solvers.exact.penalty import (
    STEPS_PER_DECADE,
    choose_by_gcv,
    choose_by_held_out,
    cross_validated_error,
)
from glai_native.solvers.exact.system import CentredSystem, FeatureSums
from glai_native.solvers.statistics.ridge import SingularSystem

# Of the penalty that predicts 0 and 1 best: the class with the largest score is right more often with less, where
# samples are many. On held-out samples 0.6 points on features of Tiny-ImageNet, 0.2 on BANKING77; a tenth does no
# better. Where they are hardly more than features that penalty itself is better: 0.3 to 0.6 points on BANKING77, digits
# and Tiny-ImageNet; between, the share that grows so with features over samples, in steps of penalties.
LEAST_SHARE, SHARE_POWER = 10**-0.75, 1.5
SCORED_BYTES = 1 << 21  # of features that are floats at a time
# Beyond, what the first solution leaves is solved for again: rounding, times this, would show in the ninth digit.
WELL_CONDITIONED = 1e6
POWER_STEPS = 3
# Of root R² over log C; those of the least log loss on test samples were 0.26 to 0.43 on MNIST, BANKING77, letter,
# electricity and Tiny-ImageNet, of 1,000 to 8,000 samples each: 2 to 202 classes, cross-validated R² 0.1 to 0.7. It
# has seen sums alone, so that what was forgotten has left no trace in it.
TEMPERATURE_SHARE, LEAST_R2 = 0.32, 0.01
# Of two classes, where nothing is explained, what makes probabilities of scores that are such; less what is: if the
# classes were normal, (1 - R²) / 2, which overrates those far apart. On held-out samples of seventeen pairs of classes,
# R² of 0 to 0.99, log loss is within 0.02 of the least.
OF_TWO, OF_TWO_APART = 0.5, 0.1
SEED = 20_240_815


@dataclass(frozen=True)
class ExactSolution:
    """Weights of integer features, and what solving again after few samples needs.

    Attributes:
        weight: of φ's columns, the constant's last, float64 ``[M, C]``; a class without samples scores below the mean
            of the others, and is never the answer.
        l2: the penalty.
        condition: of the system with its penalty, largest eigenvalue over least, estimated.
        n_samples: N.
        temperature: of the probabilities of classes.
        provenance: how it came about, as JSON has it.
        base: the system that was solved; None where it was not kept.
    """

    weight: Tensor
    l2: float
    condition: float
    n_samples: int
    temperature: float
    provenance: dict[str, Any]
    base: Base | None = field(default=None, repr=False)

    def without_base(self) -> ExactSolution:
        """Return this without what solving again needs, which is as large as the sums."""
        return replace(self, base=None)

    def scores(self, features: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return ``φ·weight``, ``[N, C]``, of features uint8 ``[N, M]``."""
        weight = self.weight.to(dtype)
        scores = weight.new_empty(len(features), weight.shape[1])
        height = max(1, SCORED_BYTES // (weight.itemsize * len(weight)))
        for begin in range(0, len(features), height):
            rows = slice(begin, begin + height)
            torch.mm(features[rows].to(dtype), weight, out=scores[rows])
        return scores


@dataclass(frozen=True)
class Base:
    """A solved system, which samples are added to and taken out of.

    Attributes:
        factor: L, lower triangular, float64 ``[K, K]``.
        solved: with it.
        n_samples: N.
        decision: by which classes are told apart; None: targets are values.
        temperature: of the scores of least squares.
    """

    factor: Tensor
    solved: Solved
    n_samples: int
    decision: str | None
    temperature: float


def solve_sums(
    sums: FeatureSums,
    l2: float | str = "gcv",
    *,
    class_weight: Tensor | str | None = None,
    held_out: FeatureSums | None = None,
    decision: str = DISCRIMINANTS,
    on_penalty: Callable[[], object] = lambda: None,
) -> ExactSolution:
    """Solve for the weights of least squares with a penalty on all but the constant's, of classes for discriminants.

    Args:
        sums: of the samples.
        l2: the penalty, >= 0; ``"gcv"``: by generalised cross-validation, of classes a share of that;
            ``"held-out"``: of seventeen, the one whose solution of the other samples errs least on those held out.
        class_weight: what a sample of each class weighs, ``[C]``, or ``"balanced"``: in inverse proportion to how many
            its class has. None: 1. It needs sums per class.
        held_out: of ``sums``, those over the samples that are held out to choose the penalty.
        decision: by which classes are told apart: ``"discriminants"``, or ``"least squares"``, whose scores are nearest
            to 0 and 1.
        on_penalty: called after each penalty that takes a factorisation.

    Raises:
        SingularSystem: a ValueError: there are no samples, or the penalty is too small for a unique solution.
        MemoryError: the factor takes more memory than there is.
    """
    if decision not in DECISIONS:
        raise ValueError(f"solve: decision must be {' or '.join(map(repr, DECISIONS))}, got {decision!r:.80}")
    sums.require_whole()
    weight = _class_weight(class_weight, sums)
    system = CentredSystem(sums, weight)
    n_classes = len(sums.totals) if system.has_classes else 0
    require_memory(
        "solve",
        f"the Cholesky factors of {system.size:,} unknowns and {n_classes:,} classes",
        8 * (system.size**2 + 4 * n_classes**2),
        sums.gram.device,
        "use fewer units",
    )
    penalty = _penalty(system, sums, l2, weight, held_out, on_penalty)
    factor = factorise(system.gram(), penalty)
    if factor is None:
        raise SingularSystem(
            f"solve: the system of {system.size:,} unknowns is singular in float64 at l2={penalty:g} (units that are "
            "never on, features that others explain, or samples taken out that the sums did not hold), pass a larger l2"
        )
    condition = _condition(factor)
    refinements = 0 if condition < WELL_CONDITIONED else 1
    solution = _refined(system, factor, penalty, refinements)
    provenance = {
        "solver": "exact",
        "l2": penalty,
        "l2_by": l2 if isinstance(l2, str) else "given",
        "class_weight": class_weight
        if isinstance(class_weight, str)
        else weight.tolist()
        if weight is not None
        else None,
        "n_samples": sums.n_samples,
        "refinements": refinements,
    }
    temperature = _temperature(system, cross_validated_error(system, factor, solution, penalty))
    solved = Solved(
        solution,
        system.rhs,
        system.scale,
        system.mean,
        system.target_mean,
        system.weight_sum,
        sums.totals.double(),
    )
    base = None
    if weight is None:
        base = Base(factor, solved, sums.n_samples, decision if system.has_classes else None, temperature)
    weights = solved.values_weight()
    if system.has_classes:
        weights, provenance["decision"], temperature = solved.decided(decision, temperature)
    return ExactSolution(weights, penalty, condition, sums.n_samples, temperature, provenance, base)


def _temperature(system: CentredSystem, error: float) -> float:
    """Return the temperature of a solution that errs by a mean square on samples that it has not seen."""
    n_seen = int((system.target_mean > 0).sum())
    if not system.has_classes or n_seen < 2 or not error:
        return RIDGE_TEMPERATURE
    unexplained = error * len(system.target_mean) * system.weight_sum / system.squares
    if n_seen == 2:
        return OF_TWO_APART + (OF_TWO - OF_TWO_APART) * min(unexplained, 1.0)
    return float(TEMPERATURE_SHARE * max(1 - unexplained, LEAST_R2) ** 0.5 / math.log(n_seen))


def _class_weight(class_weight: Tensor | str | None, sums: FeatureSums) -> Tensor | None:
    """Return the weight of each class, float64 ``[C]``, or None where all weigh 1."""
    if class_weight is None:
        return None
    if sums.squares is not None:
        raise ValueError("solve: class_weight needs classes as targets, got values")
    totals = sums.totals.double()
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"solve: class_weight must be [C] numbers, 'balanced' or None, got {class_weight!r}"
            )
        return (sums.n_samples / (totals.count_nonzero() * totals)).where(totals > 0, 0)
    weight = torch.as_tensor(class_weight, dtype=torch.float64, device=totals.device)
    if weight.shape != totals.shape or not bool((weight.isfinite() & (weight >= 0)).all()):
        raise ValueError(
            f"solve: class_weight must be finite numbers >= 0 [C={len(totals)}], got {class_weight!r:.80}"
        )
    return weight


def _penalty(
    system: CentredSystem,
    sums: FeatureSums,
    l2: float | str,
    class_weight: Tensor | None,
    held_out: FeatureSums | None,
    on_penalty: Callable[[], object],
) -> float:
    """Return the penalty that is given or chosen."""
    require_l2("solve", l2)
    if l2 == "gcv":
        penalty = choose_by_gcv(system, on_penalty)
        return penalty * _share_of_classes(system, sums.totals) if system.has_classes else penalty
    if l2 == "held-out":
        if held_out is None:
            raise ValueError(
                "solve: l2='held-out' needs sums over held-out samples, got none: they are not kept of data in chunks, "
                "or where models without are merged; take l2='gcv'"
            )
        return choose_by_held_out(CentredSystem(_without(sums, held_out), class_weight), held_out, on_penalty)
    return float(l2)


def _share_of_classes(system: CentredSystem, totals: Tensor) -> float:
    """Return what of the penalty that predicts 0 and 1 best tells classes apart best, a quarter of a power of ten.

    Classes of few samples count for more: N is what it would be if all had the harmonic mean of theirs.
    """
    rarity = float((1 / totals[system.target_mean > 0].double()).sum())
    n_classes = int((system.target_mean > 0).sum())
    share = min(max((system.size * rarity / n_classes**2) ** SHARE_POWER, LEAST_SHARE), 1.0)
    return float(10 ** (round(math.log10(share) * STEPS_PER_DECADE) / STEPS_PER_DECADE))


def require_l2(owner: str, l2: float | str) -> None:
    """Raise ValueError unless l2 is a penalty, or one of the ways to choose it."""
    if l2 in ("gcv", "held-out"):
        return
    if isinstance(l2, bool) or not isinstance(l2, Real) or not 0 <= l2 < math.inf:
        raise ValueError(f"{owner}: l2 must be a finite number >= 0, 'gcv' or 'held-out', got {l2!r:.80}")


def _without(sums: FeatureSums, others: FeatureSums) -> FeatureSums:
    """Return the sums over the samples that others do not hold."""
    squares = None
    if sums.squares is not None and others.squares is not None:
        squares = [mine - theirs for mine, theirs in zip(sums.squares, others.squares, strict=True)]
    grams = None
    if sums.class_grams is not None and others.class_grams is not None:
        grams = sums.class_grams - others.class_grams
    return FeatureSums(
        sums.gram - others.gram,
        sums.cross - others.cross,
        sums.n_samples - others.n_samples,
        sums.n_units,
        squares,
        grams,
    )


def _refined(system: CentredSystem, factor: Tensor, l2: float, refinements: int) -> Tensor:
    """Return the solution ``[K, C]``, solved again for what it leaves of the right side."""
    solution = solve_factorised(factor, system.rhs)
    for _ in range(refinements):
        left = system.rhs - system.product(solution) - l2 * solution
        solution += solve_factorised(factor, left)
    return solution


def _condition(factor: Tensor) -> float:
    """Return the largest over the least eigenvalue of L·Lᵀ, estimated from below by power iterations."""
    generator = torch.Generator().manual_seed(SEED)
    start = torch.randn(len(factor), 1, generator=generator, dtype=torch.float64, device="cpu").to(
        factor.device
    )
    largest = inverse = 0.0
    forward = backward = start / start.norm()
    for _ in range(POWER_STEPS):
        forward = factor @ (factor.T @ forward)
        backward = solve_factorised(factor, backward)
        largest, inverse = float(forward.norm()), float(backward.norm())
        forward, backward = forward / largest, backward / inverse
    return largest * inverse
