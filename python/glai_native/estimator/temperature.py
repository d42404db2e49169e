"""Scores become probabilities: softmax at a temperature, which is fitted on samples that the model has not learnt."""

from __future__ import annotations

import math
import sys
from numbers import Real

import torch
from scipy.optimize import brentq
from torch import Tensor

# Of ridge on 0/1 targets, where nothing was held out: the fitted ones were 0.06 to 0.10 on BANKING77, letter and digits
# (glai_bench.tables.probabilities), and are larger where classes overlap.
RIDGE_TEMPERATURE = 0.1
# How far below the others scores of a class without samples are put, in temperatures: a probability of 5e-5 at most,
# and a training that brings the class later makes up for it.
UNSEEN_MARGIN = 10.0
# A fitted one lies between these multiples of the scores' spread: beyond, all is certain, or all alike.
LEAST, MOST = 1e-3, 1e3


def require_temperature(owner: str, value: object) -> float:
    """Return the temperature as a float; raise unless it is a finite number > 0."""
    known = isinstance(value, Real) and not isinstance(value, bool)
    if not (known and 0 < value <= sys.float_info.max):  # type: ignore[operator]
        raise ValueError(f"{owner}: temperature must be a finite number > 0, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def log_probabilities(scores: Tensor, temperature: float) -> Tensor:
    """Return the logarithms of ``softmax(scores / temperature)``, float64 ``[N, C]``; the highest is the highest score.

    They are computed as logarithms, so that none is cut off; where two round to one value, the higher score's is the
    next larger number. A sample whose scores hold NaN gets NaN.
    """
    wide = scores.detach().double()
    return _highest_first(_shifted(wide, temperature).log_softmax(1), wide)


def probabilities(scores: Tensor, temperature: float) -> Tensor:
    """Return ``softmax(scores / temperature)``, float64 ``[N, C]``; the highest is the highest score's, as above."""
    wide = scores.detach().double()
    return _highest_first(_shifted(wide, temperature).softmax(1), wide)


def _shifted(scores: Tensor, temperature: float) -> Tensor:
    """Return the scores over the temperature, 0 at most: no quotient overflows to infinity."""
    return (scores - scores.amax(1, keepdim=True)) / temperature


def _highest_first(values: Tensor, scores: Tensor) -> Tensor:
    """Break ties that rounding made: the first highest value of a row must be where its highest score is."""
    if not values.numel():
        return values
    best = scores.argmax(1, keepdim=True)
    highest = values.amax(1, keepdim=True)
    tied = values.argmax(1, keepdim=True) != best
    raised = torch.nextafter(highest, torch.full_like(highest, math.inf))
    return values.scatter(1, best, raised.where(tied, values.gather(1, best)))


def fit_temperature(scores: Tensor, classes: Tensor, weight: Tensor | None = None) -> float:
    """Find the temperature of the least log loss on samples that the scores were not fitted to.

    The loss is convex in 1/T, and its derivative's only zero is found. Right answers count (n + 1)/(n + 2) as in
    Platt's targets, the rest goes to all classes alike: a few samples that are all right do not make certainty.

    Source: temperature scaling, Guo, Pleiss, Sun and Weinberger, arXiv 1706.04599; soft targets: Platt (1999).

    Args:
        scores: ``[N, C]``.
        classes: indices ``[N]``.
        weight: of the samples, ``[N]``, >= 0; whole numbers count as so many samples each. None: 1 for each.

    Returns:
        1.0 where there is nothing to fit: no sample, or scores that are equal or not finite.
    """
    scores, classes = scores.detach().double().cpu(), classes.cpu()
    weight = (
        torch.ones(len(scores), dtype=torch.float64, device="cpu")
        if weight is None
        else weight.detach().double().cpu()
    )
    keep = weight > 0
    scores, classes, weight = scores[keep], classes[keep], weight[keep]
    centred = scores - scores.mean(1, keepdim=True)
    spread = float(centred.square().mean().sqrt()) if centred.numel() else 0.0
    if not 0 < spread < math.inf:
        return 1.0
    whole = bool((weight == weight.round()).all())
    n = float(weight.sum()) if whole else float(len(weight))
    share = weight / weight.sum()
    own = centred.gather(1, classes.unsqueeze(1)).squeeze(1) * (n + 1) / (n + 2)  # the mean of the rest is 0

    def slope(log_temperature: float) -> float:
        expected = ((centred / math.exp(log_temperature)).softmax(1) * centred).sum(1)
        return float(((expected - own) * share).sum())  # of the loss over 1/T; falls with T

    least, most = math.log(LEAST * spread), math.log(MOST * spread)
    if slope(most) >= 0:  # the scores tell nothing, or the contrary of what is
        return math.exp(most)
    if slope(least) <= 0:
        return math.exp(least)
    return math.exp(brentq(slope, least, most, xtol=1e-12, rtol=1e-12))


class RunningTemperature:
    """The log loss of scores as a function of the temperature, summed over samples that come and go.

    It keeps sums at temperatures of a grid, and no sample; what came earlier fades.

    Source: progressive validation, Blum, Kalai and Langford (1999).
    """

    GRID = torch.logspace(-3, 3, 121, dtype=torch.float64, device="cpu")  # twenty a decade

    def __init__(self) -> None:
        self._losses = torch.zeros_like(self.GRID)
        self._weight = 0.0

    def fade(self) -> None:
        """Halve what all samples so far weigh: later ones were scored by a better model."""
        self._losses = self._losses / 2
        self._weight /= 2

    def add(self, scores: Tensor, classes: Tensor, weight: Tensor | None = None) -> None:
        """Take samples that the model which scored them has not learnt; arguments as :func:`fit_temperature`."""
        scores, classes = scores.detach().double().cpu(), classes.cpu().unsqueeze(1)
        weight = (
            torch.ones(len(scores), dtype=torch.float64, device="cpu")
            if weight is None
            else weight.double().cpu()
        )
        losses = []
        for temperature in self.GRID.tolist():
            logs = _shifted(scores, temperature).log_softmax(1)
            losses.append(-(logs.gather(1, classes).squeeze(1) * weight)[weight > 0].sum())
        self._losses = self._losses + torch.stack(losses)
        self._weight += float(weight.sum())

    def to_list(self) -> list[float]:
        """Return the sums: the losses along the grid, then the weight."""
        return [*self._losses.tolist(), self._weight]

    @classmethod
    def of_list(cls, sums: list[float]) -> RunningTemperature:
        """Return what :meth:`to_list` gave.

        Raises:
            ValueError: there are more or fewer.
        """
        if len(sums) != len(cls.GRID) + 1:
            raise ValueError(f"RunningTemperature: sums must be {len(cls.GRID) + 1} numbers, got {len(sums)}")
        running = cls()
        running._losses, running._weight = torch.tensor(sums[:-1], dtype=torch.float64), float(sums[-1])
        return running

    def temperature(self, default: float) -> float:
        """Return the temperature of the least loss, between those of the grid by a parabola; the default of nothing."""
        if not self._weight:
            return default
        # A sample's worth of doubt, so that a few that are all right do not make certainty.
        losses = self._losses + 1 / self.GRID
        best = int(losses.nan_to_num(math.inf, math.inf).argmin())
        if not 0 < best < len(losses) - 1:
            return float(self.GRID[best])
        before, here, after = losses[best - 1 : best + 2].tolist()
        bend = before - 2 * here + after
        step = 0.5 * (before - after) / bend if bend > 0 else 0.0
        return float(self.GRID[best] * (self.GRID[1] / self.GRID[0]) ** step)
