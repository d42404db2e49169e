"""How results become text: means with deviations, paired tests."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import ttest_rel


def runs_of(results: Mapping[str, dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """Results of all seeds of a cell, in the order of the seeds."""
    keys = [key for key in results if key.startswith(f"{prefix}/seed=")]
    return [results[key] for key in sorted(keys, key=lambda key: int(key.rpartition("=")[2]))]


def mean_and_deviation(values: Sequence[float], digits: int = 2) -> str:
    if not values:
        return "-"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.pstdev(values):.{digits}f}"


def percent(values: Sequence[float]) -> str:
    return mean_and_deviation([100 * value for value in values])


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float | None]:
    """Mean difference, and the p-value of the paired t-test; None where it cannot be told."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean = statistics.mean(differences)
    if len(differences) < 2 or max(differences) == min(differences):
        return mean, None
    return mean, float(ttest_rel(ours, theirs).pvalue)
