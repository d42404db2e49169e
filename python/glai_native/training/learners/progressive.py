"""A learner of chunks calibrates its probabilities on the way: a chunk is scored before its samples are added."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor

from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.temperature import RIDGE_TEMPERATURE, RunningTemperature
from glai_native.solvers.samples import Samples
from glai_native.solvers.statistics.ridge import SingularSystem
from glai_native.solvers.statistics.sums import PathStatistics

SCORED = 2048  # samples of a chunk, at most
GROWN = 2  # times as many samples, and the model that scores is solved anew


class Progressive:
    """The temperature of a model of sums that grow, from samples that were not among them when they were scored.

    It keeps a model and sums over losses, no samples. The model is solved anew whenever the sums hold twice as many
    samples as before, so that of many chunks few are solved for.

    Source: progressive validation, Blum, Kalai and Langford (1999).
    """

    def __init__(self, default: float = RIDGE_TEMPERATURE) -> None:
        self._default = default
        self._running = RunningTemperature()
        self._scorer: PathEstimator | None = None
        self._solved_at = 0

    def scored(
        self, samples: Samples, sums: PathStatistics, solve: Callable[[PathStatistics], PathEstimator]
    ) -> Progressive:
        """Return what is known once samples have been scored that the sums do not hold yet; this stays as it is.

        Args:
            samples: class indices of the sums' outputs; of classes that the model which scores has not met, none is.
            sums: of the samples before.
            solve: gives their solution.
        """
        n_before = sums.n_samples
        after = copy(self)
        after._running = copy(self._running)
        if not n_before or not len(samples):
            return after
        if n_before >= GROWN * self._solved_at:
            try:
                after._scorer = solve(sums)
            except (SingularSystem, MemoryError):  # which whoever predicts will be told
                return after
            after._solved_at = n_before
            after._running.fade()
        scorer = after._scorer
        assert scorer is not None
        part = samples[:SCORED]
        own = _outputs_of(scorer, sums)[part.y]  # classes that came since have moved the others
        known = part[own >= 0]
        if len(known):
            with torch.no_grad():
                scores: Tensor = scorer(known.z.to(scorer.dtype), known.gates)
            after._running.add(scores, own[own >= 0], known.weight)
        return after

    @property
    def temperature(self) -> float:
        """Of the least loss so far; a default where nothing could be scored."""
        return self._running.temperature(self._default)


def _outputs_of(scorer: PathEstimator, sums: PathStatistics) -> Tensor:
    """Return which output of the scorer each of the sums' is, int64 ``[C]``; -1: none."""
    mine, theirs = scorer.class_labels, sums.class_labels
    if mine is None or theirs is None:
        own = torch.arange(sums.out_features)
        return torch.where(own < scorer.out_features, own, -1)
    place = {label: i for i, label in enumerate(mine)}
    return torch.tensor([place.get(label, -1) for label in theirs])
