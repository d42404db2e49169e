"""What settles a map of integer features is gathered from samples here, the same however they are cut."""

from __future__ import annotations

import torch
from torch import Tensor

from glai_native.structure.centring import Moments
from glai_native.structure.measured_rows import HASH_CLASSES, hash_classes, measured_classes


class FirstSamples:
    """Sums over samples, and the few of them that units are measured on, whatever their order and cut.

    Of rows those are kept whose class of hash may yet be measured: as more come, fewer classes are.

    Args:
        in_features: D.
    """

    def __init__(self, in_features: int) -> None:
        self.moments = Moments(0, [0] * in_features, [0] * in_features)
        self._counts = torch.zeros(HASH_CLASSES, dtype=torch.int64, device="cpu")
        self._rows = torch.empty(0, in_features, dtype=torch.float32, device="cpu")
        self._classes = torch.empty(0, dtype=torch.int64, device="cpu")

    def add(self, x: Tensor) -> None:
        """Add samples, float32 ``[N, D]``, finite, on the CPU."""
        self.moments += Moments.of(x)
        classes = hash_classes(x)
        self._counts += torch.bincount(classes, minlength=HASH_CLASSES)
        least, _ = measured_classes(self._counts)
        new, old = classes < least, self._classes < least
        self._rows = torch.cat([self._rows[old], x[new]])
        self._classes = torch.cat([self._classes[old], classes[new]])

    @property
    def measured(self) -> Tensor:
        """The rows that units are measured on, float32 ``[n, D]``."""
        return self._rows
