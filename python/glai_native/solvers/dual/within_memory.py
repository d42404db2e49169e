"""The dual is solved by the method that fits in memory: Cholesky, conjugate gradients, or Nyström where asked for."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from glai_native.machine.memory import GB
from glai_native.solvers.dual.features import PathFeatures
from glai_native.solvers.dual.nystrom import (
    LEAST_CENTRES,
    PRECONDITIONER_CENTRES,
    fit_by_conjugate_gradients,
    fit_by_nystrom,
    nystrom_bytes,
)
from glai_native.solvers.dual.ridge import KernelFit, cholesky_bytes, fit_by_cholesky


def solve_within(
    owner: str,
    features: PathFeatures,
    targets: Tensor,
    weight: Tensor,
    l2: float,
    n_centres: int | None,
    budget: int,
    seed: int,
    progress: bool,
    left_out: Tensor | None,
) -> KernelFit:
    """Solve by the method that fits the budget of bytes; what it takes is computed before it is taken."""
    n, n_outputs, itemsize = len(features), targets.shape[1], targets.element_size()
    if n_centres is not None and n_centres < n:
        _require_memory(owner, nystrom_bytes(n, n_centres, n_outputs, itemsize), budget)
        return _left_out(fit_by_nystrom(features, targets, weight, l2, n_centres, seed, progress), left_out)
    if cholesky_bytes(n, n_outputs, itemsize) <= budget:
        return fit_by_cholesky(features, targets, weight, l2, progress, left_out)
    m = min(n, PRECONDITIONER_CENTRES)
    while m > LEAST_CENTRES and nystrom_bytes(n, m, n_outputs, itemsize) > budget:
        m //= 2
    _require_memory(owner, nystrom_bytes(n, m, n_outputs, itemsize), budget)
    return _left_out(fit_by_conjugate_gradients(features, targets, weight, l2, m, seed, progress), left_out)


def _left_out(fit: KernelFit, rows: Tensor | None) -> KernelFit:
    """Return a fit with the residuals of some rows alone; None: of all."""
    if rows is None or fit.residuals is None:
        return fit
    return replace(fit, residuals=fit.residuals[rows])


def _require_memory(owner: str, needed: int, budget: int) -> None:
    if needed > budget:
        raise MemoryError(
            f"{owner}: at least {needed / GB:.3f} GB are needed and memory allows {budget / GB:.3f}; "
            "give more memory, fewer centres or fewer samples"
        )
