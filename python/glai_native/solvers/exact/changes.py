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
        signs: int64 ``[k]``, 1 where a sample has come, -1 where one has gone.
    """

    features: Tensor
    targets: Tensor
    signs: Tensor

    def __len__(self) -> int:
        return len(self.signs)

    @classmethod
    def none(cls, n_features: int, n_outputs: int | None) -> Changes:
        """Return those of sums that were just solved; ``n_outputs`` is C of values, None of classes."""
        shape = (0,) if n_outputs is None else (0, n_outputs)
        features = torch.zeros((0, n_features), dtype=torch.uint8, device="cpu")
        targets = torch.zeros(shape, dtype=torch.int64, device="cpu")
        return cls(features, targets, torch.zeros(0, dtype=torch.int64, device="cpu"))

    def with_samples(self, features: Tensor, targets: Tensor, sign: int) -> Changes | None:
        """Return these and some more; None where they are too many to be worth keeping."""
        if len(self) + len(features) > MOST_CHANGES:
            return None
        signs = self.signs.new_full((len(features),), sign)
        return Changes(
            torch.cat([self.features, features.cpu()]),
            torch.cat([self.targets, targets.cpu()]),
            torch.cat([self.signs, signs]),
        )
