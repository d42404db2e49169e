"""The ridge problem of a path estimator: its unknowns, its features, and the estimator they make."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glai_native.estimator import PathEstimator
from glai_native.gates import PackedGates
from glai_native.ridge import RidgeSystem


@dataclass(frozen=True)
class FullPaths:
    """Every path with weights of its own: unknowns (p, d), bias last in each p, for C outputs.

    Attributes:
        gram: ``[P·(D+1), P·(D+1)]``, upper triangle.
        rhs: ``[P, D+1, C]``.
        squares: sum of all targets' squares.
        n_samples: N.
    """

    gram: Tensor
    rhs: Tensor
    squares: float
    n_samples: int

    @property
    def features_per_sample(self) -> int:
        """Numbers in a sample's :meth:`features`."""
        return self.gram.shape[0]

    def system(self) -> RidgeSystem:
        """Normal equations."""
        return RidgeSystem(self.gram, self.rhs.flatten(0, 1), self.squares, self.n_samples)

    def features(self, z: Tensor, gates: PackedGates) -> Tensor:
        """``g[n,p]·[z[n],1][d]``, one row for each sample: ``[N, 1, P·(D+1)]``."""
        with_bias = torch.cat([z, z.new_ones((len(z), 1))], dim=1)
        return (gates.unpack().unsqueeze(2) * with_bias.unsqueeze(1)).view(len(z), 1, -1)

    def targets(self, values: Tensor) -> Tensor:
        """Values ``[N, C]`` as the rows of :meth:`features` should give them."""
        return values.unsqueeze(1)

    def estimator(self, solution: Tensor, structure_id: str | None, dtype: torch.dtype) -> PathEstimator:
        """From the solution of :meth:`system`."""
        n_paths, width, n_outputs = self.rhs.shape
        estimator = PathEstimator(n_paths, width - 1, n_outputs, structure_id=structure_id, dtype=dtype).to(
            solution.device
        )
        weight = solution.view(self.rhs.shape)
        with torch.no_grad():
            estimator.weight.copy_(weight[:, :-1])
            estimator.bias.copy_(weight[:, -1])
        return estimator
