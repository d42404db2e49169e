"""This file makes a solver of the dual, the closed form of the path kernel."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor

from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.temperature import fit_temperature
from glai_native.solvers.dual.features import PathFeatures
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.solvers.samples import Samples
from glai_native.solvers.solution import Solution, Split, scores_of_outputs
from glai_native.solvers.streamed import StreamedSamples
from glai_native.structure.selector import PathSelector

# Conjugate gradients stop at 1e-2, or after some steps; beyond this residual that is no early stopping any more.
UNSOLVED = 0.1


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
    """Solve the path kernel's equations on all samples. This is a :class:`Solve`.

    It is judged on the held-out samples, each predicted by all of the others (leave-one-out): the structure has not
    seen them, the numbers all but the one.
    """
    if estimator.kind != "full paths":
        raise ValueError(f"fit: solver 'dual' is for full paths, the model has {estimator.kind}; take 'sgd'")
    samples = _in_memory(split.whole)
    canonical = samples.canonical()
    # Rows of samples that are canonical already; where they were not, rows are others.
    left_out = split.held_out_rows if canonical is samples else None
    dual = PathKernelModel(selector)
    dual.fit_samples(canonical, seed=seed, progress=progress, left_out=left_out, **options)
    judged = split.held_out or samples
    outputs = _unseen(dual, split, left_out, seed, progress, options)
    scores = None if outputs is None else scores_of_outputs(outputs, judged)
    if outputs is not None and judged.classes is not None:
        dual.temperature = fit_temperature(outputs, judged.classes, judged.weight)
    dual.loo_scores = None  # as large as the targets
    warning = ""
    if dual.unsolved > UNSOLVED:
        warning = (
            f"its equations are NOT solved, conjugate gradients stopped at a relative residual of {dual.unsolved:.2g}: "
            "give a larger l2, more memory, or n_centres"
        )
    try:
        solved = dual.to_estimator()
    except MemoryError:
        return Solution(None, scores, kernel_model=dual, warning=warning)
    solved.samples_seen.zero_()
    solved.record(samples.gates, samples.classes, samples.repeats)
    solved.provenance = {"solver": "dual", "l2": dual.l2}
    return Solution(solved, scores, warning=warning)


def _in_memory(samples: Samples | StreamedSamples) -> Samples:
    if isinstance(samples, StreamedSamples):
        raise ValueError(
            f"{samples.owner}: solver 'dual' needs all samples in memory, pass x as a tensor, or take another"
        )
    return samples


def _unseen(
    dual: PathKernelModel,
    split: Split,
    left_out: Tensor | None,
    seed: int,
    progress: bool,
    options: dict[str, Any],
) -> Tensor | None:
    """Return outputs ``[N, C]`` of the held-out samples, or of all where none are; None where they are not known.

    ``left_out``: the rows that the dual left out one at a time; None: all.
    """
    held_out = split.held_out
    if held_out is None:
        known = dual.loo_scores is not None and len(dual.loo_scores) == len(split.whole)
        return dual.loo_scores if known else None
    features = PathFeatures(held_out.z, held_out.layers)
    if split.held_out_rows is None:
        return dual.scores_of(features)
    if left_out is not None and dual.loo_scores is not None:
        return dual.loo_scores
    # What solves step by step leaves none out: solve once more without them.
    without = PathKernelModel(dual.selector)
    without.fit_samples(_in_memory(split.train), seed=seed, progress=progress, **(options | {"l2": dual.l2}))
    return without.scores_of(features)
