"""A learner of chunks calibrates its probabilities on the way: a chunk is scored before its samples are added."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from typing import Any, Self

import torch
from torch import Tensor

from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.temperature import RIDGE_TEMPERATURE, RunningTemperature
from glai_native.solvers.samples import Samples
from glai_native.solvers.statistics.ridge import SingularSystem
from glai_native.solvers.statistics.sums import PathStatistics

SCORED = 2048  # samples of a chunk, at most
GROWN = 1.5  # times as many samples with the chunk, and the sums are solved, and the chunk is scored, again


class Progressive:
    """The temperature of a model of sums that grow, from samples that were not among them when they were scored.

    It keeps sums over losses, no samples. A chunk is scored whenever with it the sums hold half as many samples again
    as when one was scored before, so that of many chunks few are solved for.

    Source: progressive validation, Blum, Kalai and Langford (1999).
    """

    def __init__(self) -> None:
        self._running = RunningTemperature()
        self._solved_at = 0

    def scored(
        self, samples: Samples, sums: PathStatistics, solve: Callable[[PathStatistics], PathEstimator]
    ) -> Progressive:
        """Return what is known once samples have been scored that the sums do not hold yet; this stays as it is.

        Args:
            samples: class indices of the sums' outputs; of classes that have no sample among the sums, none is scored.
            sums: of the samples before.
            solve: gives their solution.
        """
        n_before = sums.n_samples
        if not n_before or not len(samples) or n_before + len(samples) < GROWN * self._solved_at:
            return self
        try:
            scorer = solve(sums)
        except (SingularSystem, MemoryError):  # which whoever predicts will be told
            return self
        after = copy(self)
        after._running, after._solved_at = copy(self._running), n_before
        after._running.fade()
        part = samples[:SCORED]
        known = part[scorer.on_counts[-1][part.y] > 0].with_features()
        if len(known):
            with torch.no_grad():
                scores: Tensor = scorer(known.z.to(scorer.dtype), known.gates)
            after._running.add(scores, known.y, known.weight)
        return after

    @property
    def temperature(self) -> float:
        """Of the least loss so far; a default where nothing could be scored."""
        return self._running.temperature(RIDGE_TEMPERATURE)

    def to_json(self) -> dict[str, Any]:
        """Return all that it knows, as a file holds it."""
        return {"solved_at": self._solved_at, "losses": self._running.to_list()}

    @classmethod
    def from_json(cls, kept: dict[str, Any] | None) -> Self:
        """Return what :meth:`to_json` kept; of None what is new.

        Raises:
            ValueError: it is damaged.
        """
        known = cls()
        if kept is not None:
            solved_at, losses = kept["solved_at"], kept["losses"]
            numbers = isinstance(losses, list) and all(type(loss) in (int, float) for loss in losses)
            if (
                type(solved_at) is not int
                or solved_at < 0
                or not numbers
                or not all(map(math.isfinite, losses))
            ):
                raise ValueError("what it says of the temperature of chunks must be numbers")
            known._solved_at, known._running = solved_at, RunningTemperature.of_list(losses)
        return known
