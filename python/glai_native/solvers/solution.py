"""This file says what every solver is given and gives back: ``solve(selector, estimator, split, ...) -> Solution``.

A solver reads samples, and writes into no model: :mod:`glai_native.training.fitting` alone does that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from glai_native.data.checks import weighted_mean
from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.temperature import fit_temperature
from glai_native.machine.threads import FEW_VALUES, one_torch_thread
from glai_native.solvers.samples import Samples
from glai_native.solvers.streamed import StreamedSamples
from glai_native.structure.selector import PathSelector

# Samples whose unit features exist at a time.
FEATURE_ROWS = 2048


@dataclass(frozen=True)
class Split:
    """What there is to learn.

    Attributes:
        whole: all samples, for what learns from all of them in the end.
        train: those that are not held out.
        held_out: a part of the whole, or samples of their own; None: nothing is held out.
        held_out_rows: which of the whole they are, int64; None: samples of their own.
    """

    whole: Samples | StreamedSamples
    train: Samples | StreamedSamples
    held_out: Samples | None
    held_out_rows: Tensor | None = None

    def read_by(self, estimator: PathEstimator) -> Split:
        """Return the same samples as the estimator reads them."""
        if not estimator.n_units:
            return self
        held_out = None if self.held_out is None else self.held_out.units()
        return Split(self.whole.units(), self.train.units(), held_out, self.held_out_rows)

    @property
    def held_out_of_whole(self) -> bool:
        """Whether the held-out samples are a part of the whole."""
        return self.held_out_rows is not None


@dataclass(frozen=True)
class SgdEpoch:
    """What one epoch did.

    Source: :func:`train_estimator`.

    Attributes:
        epoch: 1 for the first.
        loss: mean training loss of its batches, each before its step.
        validation_loss: of the mean of its iterates; NaN without validation samples.
        validation_score: accuracy, or minus the squared error for values; NaN without.
        seconds: of training so far, validation not counted.
    """

    epoch: int
    loss: float
    validation_loss: float
    validation_score: float
    seconds: float


@dataclass(frozen=True)
class Solution:
    """What a solver found.

    Attributes:
        estimator: the trained linear model, which may be the one that the solver was given; None where its weights do
            not fit in memory.
        scores: of each held-out sample (:func:`sample_scores`), by numbers that were not trained on it, float64; None
            where nothing was held out, or they are not known.
        statistics: the sums that it was solved from (a :class:`~glai_native.PathStatistics`), where it was.
        kernel_model: what predicts in the place of an estimator that does not fit (a
            :class:`~glai_native.PathKernelModel`).
        history: what each epoch did, where there are any.
        warning: what went wrong on the way, without being an error; empty where nothing did.
    """

    estimator: PathEstimator | None
    scores: Tensor | None
    statistics: Any = None
    kernel_model: Any = None
    history: list[SgdEpoch] = field(default_factory=list)
    warning: str = ""


class Solve(Protocol):
    """A solver."""

    def __call__(
        self,
        selector: PathSelector,
        estimator: PathEstimator,
        split: Split,
        *,
        seed: int,
        progress: bool,
        options: dict[str, Any],
        process_group: dist.ProcessGroup | None = None,
    ) -> Solution:
        """Find the linear model of the split's samples.

        Args:
            selector: the frozen structure.
            estimator: what the numbers are now, and whose kind (full paths, output directions) the solution has; may
                be trained in place.
            split: samples of the structure.
            seed: of all that is drawn.
            progress: bars on standard error.
            options: the solver's own, by name.
            process_group: ranks that train together; None: this process alone.
        """
        ...


@torch.no_grad()
def output_of(estimator: PathEstimator, samples: Samples) -> Tensor:
    """Compute the estimator's output ``[N, C]``; unit features exist of some of the samples at a time."""
    if not samples.of_units:
        output: Tensor = estimator(samples.z, samples.gates)
        return output
    parts = [
        estimator(samples.features(slice(begin, begin + FEATURE_ROWS)))
        for begin in range(0, len(samples), FEATURE_ROWS)
    ]
    return torch.cat(parts) if parts else samples.z.new_empty((0, estimator.out_features))


@torch.no_grad()
def sample_scores(estimator: PathEstimator, samples: Samples) -> Tensor:
    """Return each sample's score, float64 ``[N]``: 1 where the class is right; for values minus the squared error."""
    return scores_of_outputs(output_of(estimator, samples), samples)


def scores_of_outputs(output: Tensor, samples: Samples) -> Tensor:
    """Return :func:`sample_scores` of outputs ``[N, C]`` that are there already."""
    if samples.has_values:
        return -(output.double() - samples.y).square().sum(1)
    return (output.argmax(1) == samples.y).double()


def mean_score(estimator: PathEstimator, held_out: Samples | None) -> float:
    """Return the weighted mean of :func:`sample_scores`, or NaN without samples."""
    return mean_of(None if held_out is None else sample_scores(estimator, held_out), held_out)


def mean_of(scores: Tensor | None, held_out: Samples | None) -> float:
    """Return the weighted mean of scores of held-out samples; NaN where there are none."""
    if scores is None or held_out is None or not len(scores):
        return math.nan
    return weighted_mean(scores, held_out.weight)


@torch.no_grad()
def judge(estimator: PathEstimator, held_out: Samples | None) -> Tensor | None:
    """Return the scores of held-out samples, and fit the temperature of the estimator's probabilities on them.

    Without any it keeps the temperature that it has, which is also what values leave it.
    """
    if held_out is None:
        return None
    output = output_of(estimator, held_out)
    if held_out.classes is not None:
        with one_torch_thread(output.numel() < FEW_VALUES):
            estimator.temperature = fit_temperature(output, held_out.classes, held_out.weight)
    return scores_of_outputs(output, held_out)
