"""Integer sums are added up only where they are of the same features and of the same kind of targets."""

from __future__ import annotations

from typing import Any

import torch

from glai_native.solvers.exact.targets import FixedPoint

# Of so many samples any sum stays within 64 bits.
MOST_SAMPLES = 1 << 35


def require_alike(owner: str, statistics: Any, other: Any) -> FixedPoint | None:
    """Raise unless sums of both can be added up; return how the values of both are kept."""
    if not isinstance(other, type(statistics)):
        raise TypeError(f"{owner}: other must be IntegerStatistics, got {type(other).__name__}")
    mine, theirs = statistics.features_id, other.features_id
    if mine != theirs:
        raise ValueError(
            f"{owner}: statistics must be of features_id {mine[:12]}…, got {theirs[:12]}…; sums add up where the "
            "same IntegerFeatures made them"
        )
    if statistics.targets != other.targets:
        raise ValueError(f"{owner}: targets must be {statistics.targets} like these, got {other.targets}")
    require_few(owner, statistics.n_samples + other.n_samples)
    known: tuple[FixedPoint | None, FixedPoint | None] = statistics.fixed_point, other.fixed_point
    if known[0] is not None and known[1] is not None and known[0] != known[1]:
        name = "centre" if torch.equal(known[0].step, known[1].step) else "step"
        here, there = (getattr(point, name).tolist() for point in known)
        raise ValueError(
            f"{owner}: {name} must be {here} like these, got {there}; give parties of one model the same step= and "
            "centre="
        )
    for name, here, there in (
        ("ledger", statistics.ledger is not None, other.ledger is not None),
        ("per_class", statistics.class_grams is not None, other.class_grams is not None),
    ):
        if here and not there and other.n_samples:
            raise ValueError(f"{owner}: other must have been made with {name}=True like these statistics")
    return known[0] if known[1] is None else known[1]


def require_few(owner: str, n_samples: int) -> None:
    """Raise where there would be so many samples that 64 bits may not hold their sums."""
    if n_samples > MOST_SAMPLES:
        raise ValueError(
            f"{owner}: statistics must be of at most {MOST_SAMPLES:,} samples, got {n_samples:,}"
        )
