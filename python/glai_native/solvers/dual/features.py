"""This file holds what the path kernel reads of samples, in place of their path features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glai_native.data.checks import require_finite
from glai_native.gates.packed import PackedGates
from glai_native.ops.path_matrices import path_kernel
from glai_native.structure.selector import PathSelector


@dataclass(frozen=True)
class PathFeatures:
    """The path features ``g[n,p]·(z[n,d], 1)`` of N samples, kept as their factors: never ``[N, P·(D+1)]``.

    Attributes:
        z: projected samples ``[N, D]``.
        layers: unit bits per hidden layer, the always-on unit excluded.
    """

    z: Tensor
    layers: list[PackedGates]

    @classmethod
    def of(cls, owner: str, selector: PathSelector, x: Tensor) -> PathFeatures:
        """Return features of raw x ``[N, in_features]``, which must be finite; ``owner`` is named in the error."""
        with torch.no_grad():
            z = selector.project(x)
            require_finite(owner, "x", z)
            return cls(z, selector.unit_gates_of(z))

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, index: Any) -> PathFeatures:
        """Return the samples that a slice, an integer tensor or a bool mask ``[N]`` selects."""
        return PathFeatures(self.z[index], [layer[index] for layer in self.layers])

    def double(self) -> PathFeatures:
        """Return the same samples in float64."""
        return PathFeatures(self.z.double(), self.layers)

    def kernel(self, other: PathFeatures | None = None, out: Tensor | None = None) -> Tensor:
        """Return inner products of their path features with those of ``other``, or with their own: ``[N, M]``."""
        if other is None:
            return path_kernel(self.z, self.layers, out=out)
        return path_kernel(self.z, self.layers, other.z, other.layers, out=out)
