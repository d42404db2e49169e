"""The ridge problem of a path estimator has its unknowns, its features, and the estimator they make.

There are two kinds, with the same members: :class:`FullPaths`, and :class:`DirectedPaths` for output directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from glai_native.estimator.directions import require_directions
from glai_native.estimator.estimator import PathEstimator
from glai_native.gates.packed import PackedGates
from glai_native.machine.memory import require_memory
from glai_native.solvers.statistics.ridge import RidgeSystem


class PathSums(NamedTuple):
    """What adds up over samples, next to their number.

    ``gram`` ``[P·(D+1), P·(D+1)]``, upper triangle; ``rhs`` ``[P, D+1, C]``, its products with the targets;
    ``squares`` ``[C]`` of the targets; ``on_counts`` int64 ``[P, C]``, zero for targets that are values.
    """

    gram: Tensor
    rhs: Tensor
    squares: Tensor
    on_counts: Tensor


@dataclass(frozen=True)
class FullPaths:
    """Every path with weights of its own: unknowns (p, d), bias last in each p, for C outputs.

    Attributes:
        gram: ``[P·(D+1), P·(D+1)]``, upper triangle.
        rhs: ``[P, D+1, C]``.
        squares: sum of all targets' squares.
        n_samples: N.
        n_units: of which the one path's features are made; 0: of none.
    """

    gram: Tensor
    rhs: Tensor
    squares: float
    n_samples: int
    n_units: int = 0

    @property
    def row_size(self) -> int:
        """Numbers in a sample's :meth:`features`."""
        return self.gram.shape[0]

    def system(self) -> RidgeSystem:
        """Return the normal equations."""
        return RidgeSystem(self.gram, self.rhs.flatten(0, 1), self.squares, self.n_samples)

    def features(self, z: Tensor, gates: PackedGates) -> Tensor:
        """Return ``g[n,p]·[z[n],1][d]``, one row for each sample: ``[N, 1, P·(D+1)]``."""
        return (gates.unpack().unsqueeze(2) * _with_bias(z).unsqueeze(1)).view(len(z), 1, -1)

    def targets(self, values: Tensor) -> Tensor:
        """Return values ``[N, C]`` as the rows of :meth:`features` should give them."""
        return values.unsqueeze(1)

    def estimator(self, solution: Tensor, dtype: torch.dtype) -> PathEstimator:
        """Make the estimator from the solution of :meth:`system`."""
        n_paths, width, n_outputs = self.rhs.shape
        estimator = PathEstimator(
            n_paths, width - 1, n_outputs, n_units=self.n_units, dtype=dtype, device=solution.device
        )
        weight = solution.view(self.rhs.shape)
        with torch.no_grad():
            estimator.weight.copy_(weight[:, :-1])
            estimator.bias.copy_(weight[:, -1])
        return estimator


@dataclass(frozen=True)
class DirectedPaths:
    """Paths along output directions V: unknowns (p, d) of u and beta for p < o = P-1, then (d, c) of path o.

    Unknowns of path p are times |v_p|, so that l2 on the weights u_p·v_pᵀ is l2 on every unknown; a path with v_p = 0
    is left out. DESIGN, "The same statistics serve", with v_p of length 1:

        gram'   (v_p·v_q)·gram[(p,d),(q,e)] ;  v_p[c]·gram[(p,d),(o,e)] ;  [c = c']·gram[(o,d),(o,e)]
        rhs'    sum_c v_p[c]·R[(p,d),c] ;  R[(o,d),c]

    Attributes:
        full: the same samples with full paths; path o must be on in all of them.
        directions: V ``[P, C]``, a last row of zeros.
    """

    full: FullPaths
    directions: Tensor

    def __post_init__(self) -> None:
        n_paths, _, n_outputs = self.full.rhs.shape
        require_directions("solve", self.directions, n_paths, n_outputs)

    @cached_property
    def _lengths(self) -> Tensor:
        """|v_p| ``[P]``."""
        lengths: Tensor = torch.linalg.vector_norm(self.directions.to(self.full.rhs), dim=1)
        return lengths

    @cached_property
    def _kept(self) -> Tensor:
        """Which paths have a direction, their numbers in order."""
        return self._lengths.nonzero().squeeze(1)

    @cached_property
    def _units(self) -> Tensor:
        """Their directions, of length 1: ``[K, C]``."""
        units: Tensor = self.directions.to(self.full.rhs) / self._lengths.unsqueeze(1)
        return units[self._kept]

    @property
    def row_size(self) -> int:
        """Numbers in a sample's :meth:`features`."""
        _, width, n_outputs = self.full.rhs.shape
        return n_outputs * width * (len(self._kept) + n_outputs)

    def system(self) -> RidgeSystem:
        """Return the normal equations of N·C residuals, in a matrix of their own beside the statistics' gram."""
        gram, rhs = self.full.gram, self.full.rhs
        n_paths, width, n_outputs = rhs.shape
        constant = len(self._kept) * width  # where the unknowns of path o begin
        size = constant + width * n_outputs
        require_memory(
            "solve",
            f"the system of {size:,} unknowns along directions",
            size * size * gram.element_size(),
            gram.device,
            "use fewer paths",
        )
        directed = gram.new_zeros((size, size))
        blocks = gram.view(n_paths, width, n_paths, width)
        for i, p in enumerate(self._kept.tolist()):
            rows = directed[i * width : (i + 1) * width]
            products = self._units @ self._units[i]
            rows[:, :constant] = (blocks[p][:, self._kept] * products.unsqueeze(1)).flatten(1)
            rows[:, constant:] = (blocks[p, :, -1].unsqueeze(2) * self._units[i]).flatten(1)
        for c in range(n_outputs):
            directed[constant + c :: n_outputs, constant + c :: n_outputs] = blocks[-1, :, -1]
        along = (rhs[self._kept] @ self._units.unsqueeze(2)).flatten()
        return RidgeSystem(
            directed,
            torch.cat([along, rhs[-1].flatten()]).unsqueeze(1),
            self.full.squares,
            self.full.n_samples * n_outputs,
        )

    def features(self, z: Tensor, gates: PackedGates) -> Tensor:
        """Return a row for each output of each sample: ``[N, C, unknowns]``."""
        with_bias, n_outputs = _with_bias(z), self.directions.shape[1]
        on = gates.unpack()[:, self._kept].unsqueeze(2) * with_bias.unsqueeze(1)
        along = (on.unsqueeze(1) * self._units.T.unsqueeze(2)).flatten(2)
        constant = with_bias.new_zeros((len(z), n_outputs, with_bias.shape[1], n_outputs))
        constant.diagonal(dim1=1, dim2=3).copy_(with_bias.unsqueeze(2))
        return torch.cat([along, constant.flatten(2)], dim=2)

    def targets(self, values: Tensor) -> Tensor:
        """Return values ``[N, C]`` as the rows of :meth:`features` should give them."""
        return values.unsqueeze(2)

    def estimator(self, solution: Tensor, dtype: torch.dtype) -> PathEstimator:
        """Make the estimator from the solution of :meth:`system`."""
        n_paths, width, n_outputs = self.full.rhs.shape
        estimator = PathEstimator(
            n_paths, width - 1, n_outputs, self.directions, dtype=dtype, device=solution.device
        )
        flat = solution.squeeze(1)
        along = flat[: len(self._kept) * width].view(-1, width) / self._lengths[self._kept].unsqueeze(1)
        constant = flat[len(self._kept) * width :].view(width, n_outputs)
        with torch.no_grad():
            estimator.u[self._kept] = along[:, :-1].to(dtype)
            estimator.beta[self._kept] = along[:, -1].to(dtype)
            estimator.constant_weight.copy_(constant[:-1])
            estimator.constant_bias.copy_(constant[-1])
        return estimator


def _with_bias(z: Tensor) -> Tensor:
    """Return z and a last feature, 1."""
    return torch.cat([z, z.new_ones((len(z), 1))], dim=1)
