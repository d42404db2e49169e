"""Here a model's held-out scores are compared with those of the linear model without gates, and put in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glai_native.structure.selector import PathSelector

FEWEST_COMPARED = 20  # held-out samples
# A difference is said to be one from so many of its own standard errors on: three of a thousand pairs of equals differ
# so much. At two, one of twenty noises was said to be learnt better, or worse.
CLEAR = 3.0


@dataclass(frozen=True)
class Comparison:
    """How a model does beside its control.

    Attributes:
        score: mean of the model's held-out scores; NaN where they are not known.
        linear_score: of the linear model, on the same samples.
        standard_error: of ``linear_score``.
        sentence: the verdict.
    """

    score: float
    linear_score: float
    standard_error: float
    sentence: str


def compare(
    scores: Tensor | None, linear_scores: Tensor, weight: Tensor | None, *, classes: bool, control: str
) -> Comparison:
    """Compare sample by sample, since both models find the same samples hard.

    Source: within one standard error, Breiman et al., "Classification and Regression Trees" (1984); paired differences:
    McNemar (1947).

    Args:
        scores: of the model, ``[N]``; None: not known.
        linear_scores: of the control on the same samples, ``[N]``.
        weight: of the samples, ``[N]``; None: 1 for each.
        classes: scores are 0 and 1.
        control: what the control is called.
    """
    linear, error = mean_and_error(linear_scores, weight, [0, 0, 1, 1] if classes else [])
    if scores is None:
        return Comparison(math.nan, linear, error, f"not compared with {control}: its own score is not known")
    score, _ = mean_and_error(scores, weight)
    _, difference_error = mean_and_error(scores - linear_scores, weight, [-1, 1] if classes else [])
    # Of values the scores are minus squared errors.
    figures = f"{score:.4g} against" if classes else f"squared error {-score:.4g} against"
    figures += f" {linear if classes else -linear:.4g} ± {error:.2g}"
    difference = score - linear
    if len(linear_scores) < FEWEST_COMPARED:
        verdict = f"{len(linear_scores)} held-out samples are too few to compare it with {control}"
    elif abs(difference) <= error:
        verdict = f"{control} is as good within one standard error"
    elif abs(difference) <= CLEAR * difference_error:
        verdict = f"{control} may be as good, the difference is within three of its standard errors"
    elif difference < 0:
        verdict = f"WORSE than {control}, train it longer or take another solver"
    else:
        verdict = f"better than {control}"
    return Comparison(score, linear, error, f"{verdict} ({figures})")


def doubt(start: float, linear_score: float, standard_error: float) -> str:
    """Return what to doubt where the numbers that a model came with are clearly better than the control; or nothing.

    Held-out samples that they were trained on, as those of an MLP that became a head, say nothing of others.
    """
    if not start - linear_score > CLEAR * standard_error:
        return ""
    return (
        f"the model came with numbers of {start:.4g} on the held-out samples, if it was trained on those, they flatter "
        "it: pass validation=(x, y) of others"
    )


def name_of_control(selector: PathSelector) -> str:
    """Return what the linear model is called that reads what the selector's projection leaves of the inputs."""
    left, given = selector.z_features, selector.projection.in_features
    components = f" on the same {left:,} of {given:,} components" if left < given else ""
    return f"the linear model without gates{components}"


def mean_and_error(scores: Tensor, weight: Tensor | None, added: Sequence[int] = ()) -> tuple[float, float]:
    """Return the mean of scores, and its standard error: of as many samples as would vary as much (Kish, 1965).

    Args:
        scores: ``[N]``.
        weight: of the samples, ``[N]``; None: 1 for each.
        added: scores that the error alone counts too, so that none or all alike has one.
    """
    shares = torch.ones_like(scores) if weight is None else weight.double() / weight.max()
    shares = shares / shares.mean()
    mean = float((scores * shares).sum() / shares.sum())
    scores, shares = (
        torch.cat([scores, scores.new_tensor(list(added))]),
        torch.cat([shares, shares.new_ones(len(added))]),
    )
    deviations = scores - (scores * shares).sum() / shares.sum()
    variance = float((deviations.square() * shares).sum() / shares.sum())
    return mean, math.sqrt(variance * float(shares.square().sum()) / float(shares.sum()) ** 2)
