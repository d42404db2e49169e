"""How results become text: means with deviations, differences with paired tests, verdicts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scipy.stats import ttest_rel

Results = Mapping[str, dict[str, Any]]
SIGNIFICANT = 0.05


def runs_of(results: Results, prefix: str) -> list[dict[str, Any]]:
    """Results of ``prefix/seed=...``, in the order of the seeds."""
    start = f"{prefix}/seed="
    keys = [key for key in results if key.startswith(start)]
    return [results[key] for key in sorted(keys, key=lambda key: int(key.removeprefix(start)))]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation."""
    if not values:
        return "-"
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def percent(values: Sequence[float]) -> str:
    return spread([100 * value for value in values])


def p_value(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Of a paired t-test over seeds; NaN where there are not two pairs or all differ by the same."""
    differences = {round(a - b, 12) for a, b in zip(ours, theirs, strict=True)}
    return float(ttest_rel(ours, theirs).pvalue) if len(ours) > 1 and len(differences) > 1 else math.nan


def difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """In points, with the p-value where there is one."""
    p = p_value(ours, theirs)
    points = f"{100 * (statistics.mean(ours) - statistics.mean(theirs)):+.2f}"
    if math.isnan(p):
        return points
    return f"{points} (p {p:.3f})" if p >= 0.001 else f"{points} (p < 0.001)"


def worse(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Of a smaller mean, and nothing says that it is chance."""
    return statistics.mean(ours) < statistics.mean(theirs) and not p_value(ours, theirs) >= SIGNIFICANT


def better(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Of a larger mean, significantly."""
    return statistics.mean(ours) > statistics.mean(theirs) and p_value(ours, theirs) < SIGNIFICANT


def verdict(held: Iterable[bool]) -> str:
    cases = list(held)
    return "reproduced" if all(cases) else "partly" if any(cases) else "not"


def sizes(run: dict[str, Any]) -> str:
    """Of the models of a run: numbers in all, and those that are trained."""
    return ", ".join(
        f"{kind} {total:,} ({trained:,})" for kind, (total, trained) in run["parameters"].items()
    )
