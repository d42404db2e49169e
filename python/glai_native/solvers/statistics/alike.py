"""Sums are added up only where they are of the same numbers of the same structure."""

from __future__ import annotations

from typing import Any


def require_alike(owner: str, statistics: Any, other: Any) -> None:
    """Raise unless both are :class:`PathStatistics` whose sums can be added up, number by number."""
    if not isinstance(other, type(statistics)):
        raise TypeError(f"{owner}: other must be PathStatistics, got {type(other).__name__}")
    both = statistics, other
    if other.structure_id != statistics.structure_id:
        mine, theirs = (f"{s.structure_id[:12]}…" if s.structure_id else "none" for s in both)
        raise ValueError(f"{owner}: statistics must be of structure_id {mine}, got {theirs}")
    if bool(other.n_units) != bool(statistics.n_units):
        mine, theirs = ("units" if s.n_units else "paths" for s in both)
        raise ValueError(f"{owner}: statistics must be of {mine}, got those of {theirs}")
    mine, theirs = (f"[P={s.n_paths}, D={s.in_features}, C={s.out_features}]" for s in both)
    if mine != theirs:
        raise ValueError(f"{owner}: statistics must be {mine}, got {theirs}; add_outputs(k) adds classes")
    if other.dtype != statistics.dtype:
        raise ValueError(f"{owner}: statistics must be {statistics.dtype}, got {other.dtype}")
    statistics.require_same_outputs(owner, other)
