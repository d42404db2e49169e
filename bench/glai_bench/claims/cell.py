"""The unit of the reproduction: what is run at once, recorded by name, and not run again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA_SETS = ("MNIST", "BANKING77", "digits")


@dataclass(frozen=True)
class Settings:
    """What a run is of.

    Attributes:
        quick: small parts of the data, few settings and epochs.
        seeds: of initial weights and orders; the first is the one that is tuned on. The split of the data is fixed.
        data: folder with mnist/ and banking77_minilm.npz; None: digits only.
        data_sets: names out of :data:`DATA_SETS`.
        finished: results of the cells that ran, in this run or one before, by key; failed ones are not in it.
    """

    quick: bool
    seeds: tuple[int, ...]
    data: Path | None
    data_sets: tuple[str, ...]
    finished: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False, repr=False)

    def result_of(self, key: str) -> dict[str, Any]:
        """What an earlier cell gave; called when the cell that needs it runs, not before."""
        if key not in self.finished:
            raise LookupError(f"needs {key}, which failed or was not run")
        return self.finished[key]


@dataclass(frozen=True)
class Cell:
    """A name such as ``"merging/MNIST/dirichlet/K=5/seed=3"``, and what gives its result, plain values for JSON."""

    key: str
    run: Callable[[], dict[str, Any]]
