"""Statistics share their sums with copies until one of them changes, and change in one step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Self
from uuid import uuid4

import torch

from glai_native.estimator.outputs import Outputs
from glai_native.machine.memory import require_memory
from glai_native.solvers.samples import Samples
from glai_native.solvers.statistics.unknowns import PathSums


class SharedSums(Outputs):
    """Sums that are changed in place only by whoever alone has them.

    Attributes:
        state: a name of these sums, another one whenever they change.
    """

    state: str
    _shared = False  # whether others may have the same tensors
    _private = False  # whether a failure may leave a part in them: nobody keeps them then

    def __copy__(self) -> Self:
        """Return the same tensors; what changes either leaves the other as it is."""
        copied = object.__new__(type(self))
        self._shared = True
        copied.__dict__ = dict(self.__dict__)
        return copied

    def copy(self, device: torch.device | str | None = None) -> Self:
        """Return the same sums, to go on separately, or on another device."""
        copied = object.__new__(type(self))
        device, sums = torch.device(device or self.device), self._sums()
        size = sum(each.numel() * each.element_size() for each in sums)
        require_memory("PathStatistics", "a second copy of the sums", size, device, "use fewer paths")
        gram, rhs, squares, on_counts = (each.to(device, copy=True) for each in sums)
        own = {"_gram": gram, "_rhs": rhs, "_squares": squares, "on_counts": on_counts, "_shared": False}
        copied.__dict__ = self.__dict__ | own
        return copied

    def become(self, other: Self) -> None:
        """Be what ``other`` is, which nobody uses any more; in one step, which no interrupt can divide."""
        self.__dict__ = other.__dict__ | {"_private": self._private, "state": uuid4().hex}

    def fill(self, parts: Iterable[Samples]) -> None:
        """Add samples that are checked already, in place however many they are; nobody must keep these if it fails."""
        self._private = True
        for part in parts:
            self.add(part)
        self._private = False

    @abstractmethod
    def add(self, samples: Samples, sign: int = 1) -> None:
        """Add samples that are checked already, or with sign -1 take them out."""

    @abstractmethod
    def _sums(self) -> PathSums: ...

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the sums are kept."""
