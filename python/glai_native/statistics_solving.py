"""The path estimator solved from its sufficient statistics, and the penalty chosen by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glai_native.cross_validation import SampleRows, choose_by_gcv, choose_by_loo
from glai_native.estimator import PathEstimator
from glai_native.path_ridge import DirectedPaths, FullPaths
from glai_native.ridge import solve_ridge
from glai_native.training import epoch_progress

if TYPE_CHECKING:
    from glai_native.statistics import PathStatistics

# Of path features that are made in full at a time, for leave-one-out.
ROWS_BYTES = 1 << 26

Samples = tuple[Any, ...]
"""``(x, gates, targets)`` or ``(x, gates, targets, sample_weight)`` of some samples."""


def solve_statistics(
    statistics: PathStatistics, l2: float, directions: Tensor | None, dtype: torch.dtype
) -> PathEstimator:
    """:meth:`PathStatistics.solve` at a penalty that is known."""
    if isinstance(l2, bool) or not isinstance(l2, (int, float)) or not 0 <= l2 < math.inf:
        raise ValueError(f"solve: l2 must be a finite number >= 0, 'gcv' or 'loo', got {l2!r}")
    paths = _paths(statistics, directions)
    solution = solve_ridge(paths.system(), l2)
    estimator = paths.estimator(solution, statistics.structure_id, dtype)
    estimator.samples_seen.fill_(statistics.n_samples)
    estimator.on_counts.copy_(statistics.on_counts)
    estimator.provenance = {
        "solver": "statistics",
        "l2": float(l2),
        "mean_diagonal": statistics.mean_diagonal,
    }
    return estimator


def choose_penalty(
    statistics: PathStatistics,
    method: str,
    directions: Tensor | None,
    data: Iterable[Samples] | None,
    progress: bool,
) -> float:
    """:meth:`PathStatistics.choose_l2`."""
    if method not in ("gcv", "loo"):
        raise ValueError(f"solve: l2 must be a finite number >= 0, 'gcv' or 'loo', got {method!r}")
    paths = _paths(statistics, directions)
    with epoch_progress(progress) as bar:
        if method == "gcv":
            task = bar.add_task("penalties", total=None)
            return choose_by_gcv(paths.system(), on_penalty=lambda: bar.advance(task))
        if data is None or isinstance(data, Iterator):
            raise ValueError(
                "solve: l2='loo' must have data, (x, gates, targets) that can be gone through more than once "
                f"(a list, a DataLoader), got {'none' if data is None else type(data).__name__}"
            )
        samples, task = data, bar.add_task("samples left out", total=None)

        def passes() -> Iterator[SampleRows]:
            for rows in _rows(statistics, paths, samples):
                yield rows
                bar.advance(task, len(rows.targets))

        return choose_by_loo(paths.system(), passes)


def _paths(statistics: PathStatistics, directions: Tensor | None) -> FullPaths | DirectedPaths:
    n_samples = statistics.n_samples
    if not n_samples:
        raise ValueError(
            "solve: the statistics must hold samples, got none; update(x, gates, targets) adds them"
        )
    gram, rhs, squares, on_counts = statistics._sums()
    least, most = gram.diagonal().aminmax()
    if bool(least < -(torch.finfo(gram.dtype).eps ** 0.5) * most):
        raise ValueError(
            "solve: sums of squares must be >= 0, got "
            f"{float(least):.3g}: samples were taken out that the statistics did not hold"
        )
    full = FullPaths(gram, rhs, float(squares.sum()), n_samples)
    if directions is None:
        return full
    counted = int(on_counts[-1].sum())
    if bool(on_counts.any()) and counted != n_samples:
        raise ValueError(
            "solve: with directions the last path must be on in every sample, as a selector's is, "
            f"got {counted:,} of {n_samples:,}"
        )
    return DirectedPaths(full, directions)


def _rows(
    statistics: PathStatistics, paths: FullPaths | DirectedPaths, data: Iterable[Samples]
) -> Iterator[SampleRows]:
    """One pass over the samples, which must be as many as the statistics hold."""
    dtype = statistics.dtype
    height = max(1, ROWS_BYTES // (paths.row_size * dtype.itemsize))
    n_samples = 0
    for x, gates, targets, *weights in data:
        samples = statistics._read("solve", x, gates, targets, weights[0] if weights else None)
        n_samples += len(samples)
        for z, part, values, weight in samples.chunks(height, statistics.out_features, dtype):
            yield SampleRows(paths.features(z, part), paths.targets(values), weight)
    if n_samples != statistics.n_samples:
        raise ValueError(
            f"solve: data must be the N={statistics.n_samples:,} samples of the statistics, got {n_samples:,}"
        )
