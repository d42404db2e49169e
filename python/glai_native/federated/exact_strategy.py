"""The strategy of integer sums: each party's, exactly once; together the same bits as in one place."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from glai_native.federated.exact_progress import ExactProgress
from glai_native.federated.integer_messages import LEDGER
from glai_native.federated.messages import SAMPLES, require_shapes
from glai_native.federated.strategy import SumsStrategy
from glai_native.ops.path_matrices import unpack_upper
from glai_native.solvers.exact.ledger import HASH_BYTES, Ledger

CONSTANT = 127  # the value of the last feature
INTEGERS = (torch.int32, torch.int64)


class ExactStrategy(SumsStrategy[ExactProgress]):
    """Integer sums of each party, exactly once, when it replies; their digest is that of all samples in one place."""

    action = "exact"

    def candidates(self, names: set[str]) -> set[str]:
        """Who has not contributed."""
        return names - set(self.progress.contributed)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the gram's upper triangle, cross, counts, and the number of samples."""
        m, c = self.progress.statistics.cross.shape
        return {"gram": (m * (m + 1) // 2,), "cross": (m, c), "counts": (c,), SAMPLES: (1,)}

    def config(self, number: int) -> dict[str, int | float | bool | str]:
        """Whether hashes are asked for."""
        return {"ledger": self.settings.ledger}

    def check(self, sums: dict[str, Tensor]) -> None:
        """Raise unless these can be the sums of so many samples: the constant's sums count them."""
        shapes = self.shapes()
        n = int(sums[SAMPLES]) if SAMPLES in sums and sums[SAMPLES].shape == (1,) else 0
        if self.settings.ledger:
            shapes[LEDGER] = (n, HASH_BYTES)
        require_shapes(sums, shapes)
        for name, t in sums.items():
            kinds = (torch.uint8,) if name == LEDGER else INTEGERS
            if t.dtype not in kinds:
                raise ValueError(f"federate: {name} must not be {t.dtype}")
            if t.numel() and int(t.min()) < 0:
                raise ValueError(f"federate: {name} must be >= 0")
        counts = sums["counts"].long()
        sound = int(counts.sum()) == n and int(sums["gram"][-1]) == CONSTANT**2 * n
        if not (sound and torch.equal(sums["cross"][-1].long(), CONSTANT * counts)):
            raise ValueError(f"federate: the sums must be those of N={n:,} samples, got others")

    def taken(self, name: str, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """All but the hashes, which are kept by party."""
        if LEDGER in sums:
            content = sums.pop(LEDGER).numpy().tobytes()
            hashes = np.sort(np.frombuffer(content, dtype=f"S{HASH_BYTES}"))
            self._note(name, Ledger(hashes, None))
        return {key: t.long() for key, t in sums.items()}

    def _note(self, name: str, ledger: Ledger) -> None:
        """Keep a party's ledger, and say which of its samples others hold too."""
        ledgers = self.progress.ledgers
        for other, known in ledgers.items():
            both = known.shared_with(ledger)
            if len(both):
                self.shared.append(f"{other} and {name} both hold {len(both):,} samples, {both.shown()}")
        ledgers[name] = ledger

    def combine(self, total: dict[str, Tensor], names: set[str]) -> None:
        """Adds to the sums of earlier rounds."""
        progress = self.progress
        statistics = progress.statistics.emptied()
        unpack_upper(total["gram"], statistics.gram)
        statistics.cross, statistics.counts = total["cross"], total["counts"]
        statistics.n_samples = int(total[SAMPLES])
        if statistics.ledger is not None:
            hashes = np.concatenate([progress.ledgers[name].hashes for name in names])
            statistics.ledger = statistics.ledger.with_samples(hashes, None)
        with warnings.catch_warnings(action="ignore"):  # of samples that two hold, which the round states
            progress.statistics.merge(statistics)
        progress.solution = None
        progress.contributed = sorted({*progress.contributed, *names})
