"""The solver is chosen by trying those that may suit: held-out samples decide."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from glai_native.machine.memory import give_back_freed
from glai_native.model.glai import GLAI
from glai_native.solvers.choice import Candidate
from glai_native.solvers.solution import Solution, Split
from glai_native.training.comparing import mean_and_error

# Beyond so many samples solvers are tried on a part of them, of so many.
TRIED_ON_ALL, TRIED_ON = 60_000, 20_000
# The dual beyond so many samples is tried only where another closed form is not behind: on held-out samples of letter
# statistics of units were 5 points behind the loop, on BANKING77 level, where the dual was 1 point ahead of it.
DUAL_AT_ONCE = 4_000
# Multiply-adds of a second of one thread that a closed form is taken to do: half of what path_gram did with AVX2 in
# float64, 8,192 samples of 521 features in 0.22 s.
PRODUCTS_A_SECOND = 5e9
# The native loop was stopped by the held-out samples, and looks better on them than it is: a closed form within so many
# standard errors of the difference is taken.
CLEAR = 2.0


@dataclass(frozen=True)
class Attempt:
    """What trying a solver gave.

    Attributes:
        candidate: the solver and kind of estimator.
        model: whose estimator was trained, or replaced by the solution's.
        solution: what the solver found.
        score: mean of the solution's held-out scores; NaN where they are not known.
        seconds: wall time.
    """

    candidate: Candidate
    model: GLAI
    solution: Solution
    score: float
    seconds: float


# Trains a candidate on a split; the native loop until a time of ``time.monotonic()``.
Try = Callable[[Candidate, Split, float], Attempt]


def choose(
    candidates: Sequence[Candidate], split: Split, attempt: Try, seed: int, deadline: float = math.inf
) -> tuple[Attempt, str]:
    """Try candidates, and return the attempt on all samples of the one that is taken, and what was compared.

    Args:
        candidates: at least one.
        split: the samples; where none are held out the dual is taken of few, the first candidate otherwise.
        attempt: trains one of them.
        seed: of the part of many samples that they are tried on.
        deadline: of ``time.monotonic()``; no closed form is tried that would end later. Trials on a part take up to a
            quarter of what is left.

    Raises:
        FloatingPointError, MemoryError: of the last candidate, where all of them failed.
    """
    many = len(split.whole) > DUAL_AT_ONCE
    if split.held_out is None:
        one = candidates[0] if many or not _in_time(candidates[-1], deadline) else candidates[-1]
        return attempt(one, split, deadline), "no samples are held out that could tell the solvers apart"
    if len(candidates) == 1:
        only = attempt(candidates[0], split, deadline)
        return only, f"at {len(split.whole):,} samples, of such a model, nothing else suits better"
    part = _part_of(split, seed)
    until = deadline if part is split else time.monotonic() + (deadline - time.monotonic()) / 4
    tried: list[Attempt] = []
    said: list[str] = []
    for candidate in candidates:
        name = f"{candidate.solver} of {candidate.kind}"
        if candidate.solver == "dual" and many and tried and _best(tried, part).candidate.solver == "sgd":
            continue
        if tried and not _in_time(candidate, until):
            continue
        try:
            tried.append(attempt(candidate, part, until))
        except (FloatingPointError, MemoryError):
            if candidate is candidates[-1] and not tried:
                raise
            said.append(f"{name} failed")
        else:
            said.append(f"{name} {tried[-1].score:.4g}")
        give_back_freed()
    best = _best(tried, part)
    on = "" if part is split else f" after {len(part.whole):,} others"
    if part is not split:
        best = attempt(best.candidate, split, deadline)
    return best, f"held-out samples decided{on}, {', '.join(said)}"


def _in_time(candidate: Candidate, deadline: float) -> bool:
    """Return whether a closed form is likely to end before the deadline."""
    return time.monotonic() + candidate.products / PRODUCTS_A_SECOND <= deadline


def _best(tried: Sequence[Attempt], split: Split) -> Attempt:
    """Return the closed form of the best score, or the native loop where that is clearly ahead, or alone."""
    loop = next((one for one in tried if one.candidate.solver == "sgd"), None)
    known = [one for one in tried if one is not loop and not math.isnan(one.score)]
    if not known:
        return tried[0]
    best = max(known, key=lambda one: one.score)
    if loop is None or loop.solution.scores is None or best.solution.scores is None:
        return best
    assert split.held_out is not None
    ahead, error = mean_and_error(loop.solution.scores - best.solution.scores, split.held_out.weight)
    return loop if ahead > CLEAR * error else best


def _part_of(split: Split, seed: int) -> Split:
    """Return a split of fewer samples to train on, where there are many."""
    if len(split.train) <= TRIED_ON_ALL or split.held_out is None:
        return split
    random = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(split.train), generator=random, device="cpu")[:TRIED_ON].sort().values
    part = split.train[rows.to(split.train.device)]
    return Split(part, part, split.held_out)
