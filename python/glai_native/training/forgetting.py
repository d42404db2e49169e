"""Forgetting takes samples out of what a model was solved from, and solves it again."""

from __future__ import annotations

import time
from copy import copy

from torch import Tensor

from glai_native.machine.inference import outside_inference_mode
from glai_native.model.glai import GLAI
from glai_native.solvers.samples import Samples
from glai_native.training.fitting import FitResult, announce
from glai_native.training.numbering import Numbering
from glai_native.training.retraining import increment_result, solve_again


@outside_inference_mode
def forget(model: GLAI, x: Tensor, y: Tensor, *, seed: int = 0, progress: bool = True) -> FitResult:
    """Take samples out of a model's statistics, in place; its weights are then those of the samples that are left.

    The same l2, relative to the mean diagonal. Structure and projection stay as they are: they have still seen the
    samples. What fails, or is interrupted, leaves the model as it was.

    Source: recursive least squares, backwards (Plackett, 1950).

    Args:
        model: with statistics (``solver="statistics"``).
        x: raw ``[N, in_features]``, as they were learnt.
        y: indices of the model's outputs ``[N]``, or values ``[N, C]`` in the units of y.
        seed: as :func:`glai_native.retrain`.
        progress: bars on standard error, and what was done.

    Raises:
        ValueError: the model has no statistics, or samples were not there, so far as counts and sums would show, or
            none would be left.
    """
    before = model.read_statistics()
    if before is None:
        raise ValueError(
            "forget: the model must have statistics, which it does not; train it with solver='statistics'"
        )
    started = time.perf_counter()
    numbering = Numbering.of("forget", model, None, joining=True)
    estimator = model.estimator
    of_units, n_outputs = estimator.n_units > 0, estimator.out_features
    samples = Samples.of_raw("forget", model.selector, x, numbering(y), n_outputs, of_units=of_units)
    statistics = copy(before)  # the same sums, which no change of it alters
    statistics.add(samples, sign=-1)
    if not statistics.n_samples:
        raise ValueError(
            "forget: at least one sample must be left, got all of the model's; nothing was taken out"
        )
    solve_again(model, statistics, numbering, seed=seed, progress=progress)
    done = f"{samples.count:,} samples forgotten, {statistics.n_samples:,} are left"
    return announce(increment_result(model, done, started), progress)
