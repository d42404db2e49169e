"""Ridge regression is solved here from its sufficient statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from glai_native.machine.memory import require_memory


class SingularSystem(ValueError):
    """The system has no unique solution to the precision of its type."""


@dataclass(frozen=True)
class RidgeSystem:
    """``min over w of |F·w - Y|² + l2·|w|²`` for features F ``[n, M]`` and targets Y ``[n, K]``.

    Attributes:
        gram: FᵀF ``[M, M]``; only its upper triangle is read.
        rhs: FᵀY ``[M, K]``.
        squares: sum of Y².
        n_rows: n.
    """

    gram: Tensor
    rhs: Tensor
    squares: float
    n_rows: int

    @property
    def size(self) -> int:
        """M."""
        return self.gram.shape[0]


def solve_ridge(system: RidgeSystem, l2: float) -> Tensor:
    """Return ``(gram + l2·I)⁻¹·rhs``, ``[M, K]``, by Cholesky; a feature that is always zero gets exactly zero.

    Raises:
        SingularSystem: a ValueError that asks for a larger penalty.
    """
    return torch.cholesky_solve(system.rhs, factorise(system, l2))


def relative_rounding(system: RidgeSystem) -> float:
    """Return the rounding of a pivot, relative to its diagonal element."""
    return torch.finfo(system.gram.dtype).eps * math.sqrt(system.size)


def factorise(system: RidgeSystem, l2: float) -> Tensor:
    """Return L ``[M, M]``, lower triangular, ``L·Lᵀ = gram + l2·I``.

    It takes M³/6 multiply-adds, and one copy of the gram matrix.
    """
    gram = system.gram
    require_memory(
        "solve",
        f"the Cholesky factor of {system.size:,} unknowns",
        gram.nbytes,
        gram.device,
        "use fewer paths",
    )
    factor = gram.clone()
    diagonal = factor.diagonal()
    diagonal += l2
    before = diagonal.clone()
    # The upper triangle by rows is the lower one by columns, which is how LAPACK reads and writes: in place.
    lower = factor.T
    info = torch.empty((), dtype=torch.int32, device=gram.device)
    torch.linalg.cholesky_ex(lower, out=(lower, info))
    # A pivot's share of its diagonal element is what the features before it leave unexplained of its feature.
    if int(info) != 0 or not bool((lower.diagonal().square() > relative_rounding(system) * before).all()):
        dtype = str(gram.dtype).removeprefix("torch.")
        raise SingularSystem(
            f"solve: the system of {system.size:,} unknowns is singular in {dtype} at l2={l2:g} (paths that are never "
            "on, or features that others explain), pass a larger l2"
        )
    return lower
