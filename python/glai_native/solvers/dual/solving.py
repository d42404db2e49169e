"""This file makes a solver of the dual, the closed form of the path kernel."""

from __future__ import annotations

import math
from typing import Any

import torch.distributed as dist

from glai_native.estimator.estimator import PathEstimator
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.solvers.solution import Solution, Split
from glai_native.structure.selector import PathSelector


def solve_dual(
    selector: PathSelector,
    estimator: PathEstimator,
    split: Split,
    *,
    seed: int,
    progress: bool,
    options: dict[str, Any],
    process_group: dist.ProcessGroup | None = None,
) -> Solution:
    """Solve the path kernel's equations on all samples, and score by leave-one-out. This is a :class:`Solve`."""
    samples = split.whole
    dual = PathKernelModel(selector)
    dual.fit_samples(samples, seed=seed, progress=progress, **options)
    error = math.nan if dual.loo_error is None else -dual.loo_error
    score = error if dual.loo_accuracy is None else dual.loo_accuracy
    try:
        solved = dual.to_estimator()
    except MemoryError:
        return Solution(None, score, kernel_model=dual)
    solved.samples_seen.zero_()
    solved.record(samples.gates, samples.classes, samples.weight)
    solved.provenance = {"solver": "dual", "l2": dual.l2}
    return Solution(solved, score)
