"""The path estimator is solved from sums over samples, and the penalty is chosen by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.temperature import RIDGE_TEMPERATURE
from glai_native.machine.progress import epoch_progress
from glai_native.solvers.samples import Samples
from glai_native.solvers.statistics.cross_validation import SampleRows, choose_by_gcv, choose_by_loo
from glai_native.solvers.statistics.ridge import solve_ridge
from glai_native.solvers.statistics.unknowns import DirectedPaths, FullPaths, PathSums

# Of path features that are made in full at a time, for leave-one-out.
ROWS_BYTES = 1 << 26

SampleTuple = tuple[Any, ...]
"""``(x, gates, targets)`` or ``(x, gates, targets, sample_weight)`` of some samples."""

Passes = Callable[[], Iterator[Samples]]
"""Gives the samples of the sums anew at each call."""


def solve_sums(
    sums: PathSums,
    n_samples: int,
    l2: float,
    directions: Tensor | None,
    dtype: torch.dtype,
    n_units: int = 0,
) -> PathEstimator:
    """Solve for the estimator at a penalty that is known: :meth:`PathStatistics.solve`."""
    if isinstance(l2, bool) or not isinstance(l2, Real) or not 0 <= l2 < math.inf:
        raise ValueError(f"solve: l2 must be a finite number >= 0, 'gcv' or 'loo', got {l2!r}")
    paths = _unknowns(sums, n_samples, directions, n_units)
    estimator = paths.estimator(solve_ridge(paths.system(), l2), dtype)
    estimator.samples_seen.fill_(n_samples)
    estimator.on_counts.copy_(sums.on_counts)
    if bool(sums.on_counts.any()):  # of classes, whose probabilities nothing here can calibrate
        estimator.temperature = RIDGE_TEMPERATURE
    estimator.provenance = {
        "solver": "statistics",
        "l2": float(l2),
        "mean_diagonal": float(sums.gram.diagonal().mean()),
    }
    return estimator


def choose_penalty(
    sums: PathSums,
    n_samples: int,
    method: str,
    directions: Tensor | None,
    passes: Passes | None,
    progress: bool,
) -> float:
    """Choose the penalty by ``"gcv"``, or by ``"loo"`` from passes over the samples: ``PathStatistics.choose_l2``."""
    if method not in ("gcv", "loo"):
        raise ValueError(f"solve: l2 must be a finite number >= 0, 'gcv' or 'loo', got {method!r}")
    paths = _unknowns(sums, n_samples, directions)
    with epoch_progress(progress) as bar:
        if method == "gcv":
            task = bar.add_task("penalties", total=None)
            return choose_by_gcv(paths.system(), on_penalty=lambda: bar.advance(task))
        if passes is None:
            raise ValueError(
                "solve: l2='loo' must have data, (x, gates, targets) that can be gone through more than once "
                "(a list, a DataLoader), got none"
            )
        parts, task = passes, bar.add_task("samples left out", total=None)

        def rows() -> Iterator[SampleRows]:
            for part in parts():
                for row in _rows(part, paths, sums.gram.dtype):
                    yield row
                    bar.advance(task, len(row.targets))

        return choose_by_loo(paths.system(), rows)


def passes_over(
    data: Iterable[SampleTuple], read: Callable[[SampleTuple], Samples], n_samples: int
) -> Passes:
    """Return what gives the samples of ``data`` anew at each call, read; they must be ``n_samples`` in all."""
    if isinstance(data, Iterator):
        raise ValueError(
            "solve: l2='loo' must have data, (x, gates, targets) that can be gone through more than once "
            f"(a list, a DataLoader), got {type(data).__name__}"
        )

    def samples() -> Iterator[Samples]:
        found = 0
        for part in map(read, data):
            found += part.count
            yield part
        if found != n_samples:
            raise ValueError(
                f"solve: data must be the N={n_samples:,} samples of the statistics, got {found:,}"
            )

    return samples


def _unknowns(
    sums: PathSums, n_samples: int, directions: Tensor | None, n_units: int = 0
) -> FullPaths | DirectedPaths:
    if not n_samples:
        raise ValueError(
            "solve: the statistics must hold samples, got none; update(x, gates, targets) adds them"
        )
    least, most = sums.gram.diagonal().aminmax()
    if bool(least < -(torch.finfo(sums.gram.dtype).eps ** 0.5) * most):
        raise ValueError(
            "solve: sums of squares must be >= 0, got "
            f"{float(least):.3g}: samples were taken out that the statistics did not hold"
        )
    full = FullPaths(sums.gram, sums.rhs, float(sums.squares.sum()), n_samples, n_units)
    if directions is None:
        return full
    if n_units:
        raise ValueError("solve: directions must be None, the statistics are of units")
    counted = int(sums.on_counts[-1].sum())
    if bool(sums.on_counts.any()) and counted != n_samples:
        raise ValueError(
            "solve: with directions the last path must be on in every sample, as a selector's is, "
            f"got {counted:,} of {n_samples:,}"
        )
    return DirectedPaths(full, directions)


def _rows(samples: Samples, paths: FullPaths | DirectedPaths, dtype: torch.dtype) -> Iterator[SampleRows]:
    """Yield the samples' rows of the unknowns' features, a block at a time."""
    height = max(1, ROWS_BYTES // (paths.row_size * dtype.itemsize))
    repeated = samples.are_repeated
    for z, gates, values, weight in samples.chunks(height, dtype):
        yield SampleRows(paths.features(z, gates), paths.targets(values), weight, repeated)
