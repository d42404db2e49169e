"""What the cells of the tables come to: medians over the seeds, and GLAI against another learner."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from glai_bench.tables.data import NAMES as DATA
from glai_bench.tables.learners import GLAI
from glai_bench.tables.learners import NAMES as LEARNERS


class Figure(NamedTuple):
    """A learner on a data set: medians over its seeds; None: it was ended, after ``unfinished`` processor seconds."""

    score: float | None
    seconds: float | None
    seeds: int
    unfinished: float | None = None


class Row(NamedTuple):
    """A data set, and the figures of the learners that were measured on it."""

    name: str
    samples: int
    features: int
    measure: str
    figures: dict[str, Figure]


class Duel(NamedTuple):
    """GLAI against another learner on a data set: its score less the other's, its processor time over the other's."""

    name: str
    difference: float
    ratio: float


def rows(cells: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Return the data sets that were measured, in the order of the page; cells: results by key."""
    found = []
    for name in DATA:
        by_learner = {learner: _of(cells, f"{name}/{learner}/seed=") for learner in LEARNERS}
        by_learner = {learner: measured for learner, measured in by_learner.items() if measured}
        if by_learner:
            first = next(iter(by_learner.values()))[0]
            figures = {learner: _figure(measured) for learner, measured in by_learner.items()}
            found.append(Row(name, first["samples"], first["features"], first["measure"], figures))
    return found


def _of(cells: Mapping[str, Mapping[str, Any]], prefix: str) -> list[Mapping[str, Any]]:
    return [cell for key, cell in cells.items() if key.startswith(prefix)]


def _figure(cells: Sequence[Mapping[str, Any]]) -> Figure:
    ended = [cell["unfinished"] for cell in cells if "unfinished" in cell]
    if ended:
        return Figure(None, None, len(cells), ended[0])
    score = statistics.median(cell["score"] for cell in cells)
    seconds = statistics.median(cell["processor_seconds"] for cell in cells)
    return Figure(score, seconds, len(cells))


def duels(found: Sequence[Row], other: str) -> list[Duel]:
    """Return GLAI against the other on every data set that both have done."""
    pairs = []
    for row in found:
        ours, theirs = row.figures.get(GLAI), row.figures.get(other)
        if ours is None or theirs is None:
            continue
        if ours.score is None or ours.seconds is None or theirs.score is None or theirs.seconds is None:
            continue
        difference = round(ours.score - theirs.score, 6)  # figures are kept to seven digits
        pairs.append(Duel(row.name, difference, ours.seconds / theirs.seconds))
    return pairs
