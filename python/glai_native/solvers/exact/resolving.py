"""A solution is brought up to date after few samples more or less, for a small part of a solution anew."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from glai_native.solvers.exact.deciding import Solved
from glai_native.solvers.exact.solution import ExactSolution

# Rows cost two triangular solutions each, a factorisation as much as K / 6 rows.
LEAST_ROWS, MOST_ROWS, UNKNOWNS_PER_ROW = 32, 256, 16
# A penalty is kept while the samples are so near to as many as it was chosen for.
KEPT_SHARE = 0.1
# Samples are taken out of what the others and the penalty hold up; below, that is too little to be told from rounding.
LEAST_PIVOT = 1e-6


def rows_worth(n_unknowns: int) -> int:
    """Return after how many changed samples a solution of so many unknowns is brought up to date, not solved anew."""
    return min(max(LEAST_ROWS, n_unknowns // UNKNOWNS_PER_ROW), MOST_ROWS)


def keeps_penalty(solution: ExactSolution, n_samples: int) -> bool:
    """Return whether a penalty that was chosen for a solution's samples is kept for so many."""
    assert solution.base is not None
    return abs(n_samples - solution.base.n_samples) <= KEPT_SHARE * solution.base.n_samples


def solve_again(
    solution: ExactSolution, features: Tensor, targets: Tensor, weights: Tensor
) -> ExactSolution | None:
    """Return the solution after samples came or went, at the same penalty: what solving anew gives, but for rounding.

    With V the rows less the old mean, s their weights and S = diag(s): the centred matrix gains ``Vᵀ·(S - s·sᵀ/N)·V``
    for N samples after, whose middle has the inverse ``1/S + 1·1ᵀ/N'`` for N' before; and the right side ``Vᵀ·A``,
    ``A = S·T - s·tᵀ/N`` for their targets T and all targets' sum t.

    Source: Woodbury, "Inverting modified matrices" (1950).

    Args:
        solution: with its base, from :func:`solve_sums`.
        features: all rows that changed since, uint8 ``[n, M]``.
        targets: classes int64 ``[n]``, or values ``[n, C]``; there may be more outputs than the solution has.
        weights: how often each came, int64 ``[n]``, negative of one that went.

    Returns:
        None where it must be solved anew: no base, no samples left, too little left of what was taken out of, or
        classes that are told apart in another way.
    """
    base = solution.base
    if base is None:
        return None
    n_samples = base.n_samples + int(weights.sum())
    if n_samples <= 0:
        return None
    solved = base.solved
    left_over = weights != 0
    rows, targets = features[left_over], targets[left_over]
    weight = weights[left_over].to(solved.mean)
    values = _values(targets, solved.solution.shape[1]).to(solved.mean)
    before, rhs, target_mean = (
        torch.nn.functional.pad(tensor, (0, values.shape[1] - tensor.shape[-1]))
        for tensor in (solved.solution, solved.rhs, solved.target_mean)
    )
    rows = (rows[:, :-1].double() - solved.mean) * solved.scale
    moved = weight @ rows
    totals = target_mean * base.n_samples + weight @ values
    half = torch.linalg.solve_triangular(base.factor, rows.T, upper=False)
    explained = half.T @ half
    capacitance = explained + 1 / base.n_samples
    capacitance.diagonal().add_(1 / weight)
    size = weight.abs().rsqrt()
    scaled = capacitance / torch.outer(size, size)
    if len(rows) and float(torch.linalg.eigvalsh(scaled).abs().min()) < LEAST_PIVOT:
        return None
    added = weight.unsqueeze(1) * (values - totals / n_samples)  # A
    left = added - torch.linalg.solve(capacitance, rows @ before + explained @ added)
    narrow = half if half.shape[1] <= left.shape[1] else half @ left
    moved_by = torch.linalg.solve_triangular(base.factor.T, narrow, upper=True)
    after = before + (moved_by @ left if narrow is half else moved_by)
    mean = solved.mean + moved / solved.scale / n_samples
    if base.decision is not None:
        totals = totals.round()
    solved = Solved(after, rhs + rows.T @ added, solved.scale, mean, totals / n_samples, n_samples, totals)
    weights, temperature = solved.values_weight(), solution.temperature
    provenance = solution.provenance | {"n_samples": n_samples, "rows_since": len(rows)}
    if base.decision is not None:
        weights, provenance["decision"], temperature = solved.decided(base.decision, base.temperature)
        if provenance["decision"] != solution.provenance["decision"]:
            return None
    return replace(
        solution,
        weight=weights,
        n_samples=n_samples,
        temperature=temperature,
        provenance=provenance,
    )


def _values(targets: Tensor, n_outputs: int) -> Tensor:
    """Return targets ``[n, C]``; for classes 0 or 1, of at least so many outputs."""
    if targets.ndim == 2:
        return targets
    n_outputs = max(n_outputs, int(targets.max()) + 1 if len(targets) else 0)
    return torch.nn.functional.one_hot(targets, n_outputs)
