"""The samples that came or went since the last solution, from which the next one is made in a fraction of the time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Beyond so many a full solution is no dearer.
MOST_CHANGES = 512


@dataclass(frozen=True, eq=False)
class Changes:
    """Samples by which sums differ from those that were solved last.

    Attributes:
        features: uint8 ``[k, M]``.
        targets: int64, classes ``[k]`` or fixed-point values ``[k, C]``.
        weights: int64 ``[k]``, how often a sample has come, negative where it has gone.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.weights)

    @classmethod
    def none(cls, n_features: int, n_outputs: int | None) -> Changes:
        """Return those of sums that were just solved; ``n_outputs`` is C of values, None of classes."""
        shape = (0,) if n_outputs is None else (0, n_outputs)
        features = torch.zeros((0, n_features), dtype=torch.uint8, device="cpu")
        targets = torch.zeros(shape, dtype=torch.int64, device="cpu")
        return cls(features, targets, torch.zeros(0, dtype=torch.int64, device="cpu"))

    def with_samples(self, features: Tensor, targets: Tensor, weights: Tensor) -> Changes:
        """Return these and some more."""
        return Changes(
            torch.cat([self.features, features.cpu()]),
            torch.cat([self.targets, targets]),
            torch.cat([self.weights, weights]),
        )
