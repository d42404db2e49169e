"""Claim 3: the structure can stay while the numbers are re-trained: on all data again, and by increments."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

import glai_native as glai
from glai_bench.claims.cell import Cell, Settings
from glai_bench.claims.data import load_split
from glai_bench.claims.retraining_tables import tables
from glai_bench.claims.trainings import (
    Plan,
    Schedule,
    StructureSchedule,
    View,
    fit_projection,
    learn_structure,
    pack,
    parameters,
    plan_of,
    random_structure,
    rates,
    relative_difference,
    train_network,
    train_numbers,
    tune,
    tune_l2,
    tune_structure,
)
from glai_bench.solvers.mlp import make_mlp
from glai_bench.solvers.runs import Curve, Split

__all__ = ["cells", "tables"]

INCREMENTS = 5
REGIMES = ("balanced", "new classes")


def cells(settings: Settings) -> Iterator[Cell]:
    for name in settings.data_sets:
        yield Cell(f"retraining/{name}/half/tuning", partial(_tune_half, settings, name))
        for seed in settings.seeds:
            yield Cell(f"retraining/{name}/half/seed={seed}", partial(_half, settings, name, seed))
        for regime in REGIMES:
            key = f"retraining/{name}/{regime}"
            yield Cell(f"{key}/tuning", partial(_tune_increments, settings, name, regime))
            for seed in settings.seeds:
                yield Cell(f"{key}/seed={seed}", partial(_increments, settings, name, regime, seed))


# All data again, with the structure of half of them.


def _halves(split: Split, seed: int) -> tuple[Tensor, Tensor]:
    first, second = torch.randperm(len(split.x), generator=torch.Generator().manual_seed(seed)).chunk(2)
    return first, second


def _tune_half(settings: Settings, name: str) -> dict[str, Any]:
    split, plan, seed = load_split(settings, name), plan_of(settings, name), settings.seeds[0]
    half, _ = _halves(split, seed)
    tuned: dict[str, Any] = {}
    views: dict[str, View] = {}
    for side, ids in (("half", half), ("all", None)):
        part = split if ids is None else split.part(ids)

        def curve(
            structure: StructureSchedule, schedule: Schedule, part: Split = part, ids: Tensor | None = ids
        ) -> Curve:
            view = View(learn_structure(part, plan, structure, seed), split)
            return train_numbers(view.own_numbers(), view, ids, schedule, plan, seed)

        structure, schedule = tune_structure(curve, plan, settings.quick)
        views[side] = view = View(learn_structure(part, plan, structure, seed), split)
        tuned[f"structure, {side}"], tuned[f"numbers, {side}"] = pack(structure), pack(schedule)
        tuned[f"l2, {side}"] = tune_l2(view, view.statistics())
        mlp = make_mlp(view.z.shape[1], plan.mlp_units, split.n_classes, seed)
        schedule = tune(_curves(train_network, mlp, view, ids, plan, seed), rates(plan))
        tuned[f"MLP, {side}"] = pack(schedule)
        if side == "half":
            mlp, _ = train_network(mlp, view, half, schedule, plan, seed, score=False)
            schedule = tune(_curves(train_network, mlp, view, None, plan, seed), rates(plan))
            tuned["MLP, fine-tuned"] = pack(schedule)
    view = views["half"]
    start = view.own_numbers()
    train_numbers(start, view, half, Schedule(**tuned["numbers, half"]), plan, seed, score=False)
    tuned["numbers, re-trained"] = pack(
        tune(lambda s: train_numbers(copy.deepcopy(start), view, None, s, plan, seed), rates(plan))
    )
    view = View(random_structure(split.part(half), plan, seed), split)
    tuned["numbers, random gates"] = pack(
        tune(lambda s: train_numbers(view.zeros(), view, None, s, plan, seed), rates(plan))
    )
    tuned["l2, random gates"] = tune_l2(view, view.statistics())
    return tuned


def _curves(
    train: Callable[..., tuple[nn.Sequential, Curve]],
    mlp: nn.Sequential,
    view: View,
    ids: Tensor | None,
    plan: Plan,
    seed: int,
) -> Callable[[Schedule], Curve]:
    return lambda schedule: train(mlp, view, ids, schedule, plan, seed)[1]


def _half(settings: Settings, name: str, seed: int) -> dict[str, Any]:
    tuned = settings.result_of(f"retraining/{name}/half/tuning")
    split, plan = load_split(settings, name), plan_of(settings, name)
    half, rest = _halves(split, seed)
    result: dict[str, Any] = {}

    # Before: models of one half, then what re-training them on all takes.
    selector = learn_structure(split.part(half), plan, StructureSchedule(**tuned["structure, half"]), seed)
    view = View(selector, split)
    estimator = view.own_numbers()
    curve = train_numbers(estimator, view, half, Schedule(**tuned["numbers, half"]), plan, seed)
    result["GLAI, half"] = {"test": curve[-1].test}
    curve = train_numbers(estimator, view, None, Schedule(**tuned["numbers, re-trained"]), plan, seed)
    result["GLAI, numbers re-trained"] = {"test": curve[-1].test, "seconds": view.seconds + curve[-1].seconds}
    sums = view.statistics(half)
    started = time.perf_counter()
    sums.update(view.z[rest], view.gates[rest], view.y[rest])
    test = _solved(view, sums, tuned["l2, half"])
    result["GLAI, statistics continued"] = {
        "test": test,
        "seconds": time.perf_counter() - started + view.seconds * len(rest) / len(split.x),
    }
    mlp = make_mlp(view.z.shape[1], plan.mlp_units, split.n_classes, seed)
    mlp, curve = train_network(mlp, view, half, Schedule(**tuned["MLP, half"]), plan, seed)
    result["MLP, half"] = {"test": curve[-1].test}
    _, curve = train_network(mlp, view, None, Schedule(**tuned["MLP, fine-tuned"]), plan, seed)
    result["MLP, fine-tuned"] = {"test": curve[-1].test, "seconds": curve[-1].seconds}
    view = View(random_structure(split.part(half), plan, seed), split)
    curve = train_numbers(view.zeros(), view, None, Schedule(**tuned["numbers, random gates"]), plan, seed)
    result["GLAI, random gates"] = {"test": curve[-1].test, "seconds": view.seconds + curve[-1].seconds}
    result["GLAI, random gates, statistics"] = {
        "test": _solved(view, view.statistics(), tuned["l2, random gates"])
    }

    result["parameters"] = parameters(view, plan)

    # Everything anew.
    started = time.perf_counter()
    selector = learn_structure(split, plan, StructureSchedule(**tuned["structure, all"]), seed)
    structure = time.perf_counter() - started
    view = View(selector, split)
    curve = train_numbers(view.own_numbers(), view, None, Schedule(**tuned["numbers, all"]), plan, seed)
    result["GLAI, all anew"] = {
        "test": curve[-1].test,
        "seconds": structure + view.seconds + curve[-1].seconds,
    }
    started = time.perf_counter()
    test = _solved(view, view.statistics(), tuned["l2, all"])
    seconds = time.perf_counter() - started
    result["GLAI, all anew, statistics"] = {"test": test, "seconds": structure + view.seconds + seconds}
    started = time.perf_counter()
    fit_projection(split, plan)(split.x)
    projection = time.perf_counter() - started
    mlp = make_mlp(view.z.shape[1], plan.mlp_units, split.n_classes, seed)
    _, curve = train_network(mlp, view, None, Schedule(**tuned["MLP, all"]), plan, seed)
    result["MLP, all anew"] = {"test": curve[-1].test, "seconds": projection + curve[-1].seconds}
    return result


def _solved(view: View, sums: glai.PathStatistics, share: float) -> float:
    estimator = sums.solve(share * sums.mean_diagonal, dtype=torch.float32, progress=False)
    return view.score(estimator, "test")


# Increments.


def _chunks(split: Split, regime: str, seed: int) -> list[Tensor]:
    """Training samples of each increment."""
    if regime == "balanced":
        folds = StratifiedKFold(INCREMENTS, shuffle=True, random_state=seed).split(split.y, split.y)
        return [torch.from_numpy(ids) for _, ids in folds]
    return [(_group(split.y, split) == k).nonzero().squeeze(1) for k in range(INCREMENTS)]


def _group(y: Tensor, split: Split) -> Tensor:
    """Which increment brings a class: consecutive labels."""
    return y * INCREMENTS // split.n_classes


class _Sequence:
    """The increments of one seed, and what is known of a model after each."""

    def __init__(self, split: Split, regime: str, seed: int) -> None:
        self.split, self.regime = split, regime
        self.chunks = _chunks(split, regime, seed)

    def first(self) -> Split:
        """What the structure is trained on."""
        return self.split.part(self.chunks[0])

    def n_classes(self, step: int) -> int:
        """Of all samples up to this increment."""
        return max(int(self.split.y[ids].max()) for ids in self.chunks[: step + 1]) + 1

    def score(self, step: int, score: Callable[[str, Tensor], float]) -> dict[str, Any]:
        """Accuracy on all classes seen, and on the classes of each increment so far."""
        seen = {
            part: (y < self.n_classes(step)).nonzero().squeeze(1)
            for part, y in (("validation", self.split.y_val), ("test", self.split.y_test))
        }
        result: dict[str, Any] = {part: score(part, ids) for part, ids in seen.items()}
        if self.regime == "new classes":
            groups = _group(self.split.y_test, self.split)
            result["by increment"] = [
                score("test", (groups == k).nonzero().squeeze(1)) for k in range(step + 1)
            ]
        return result


@dataclass(frozen=True)
class _ByGradient:
    """A model that is trained on each increment's samples alone, from what it was after the one before.

    kind: of model; wide: with the outputs of all classes from the start, as if it was known how many will come.
    """

    kind: str
    wide: bool

    def train(
        self, sequence: _Sequence, view: View, first: Schedule, later: Schedule, plan: Plan, seed: int
    ) -> list[dict[str, Any]]:
        """Scores after each increment; ``first``: of the first one, ``later``: of the others."""
        train = self._numbers if self.kind == "numbers" else self._network
        steps = [
            (first if step == 0 else later, self._n_classes(sequence, step)) for step in range(INCREMENTS)
        ]
        return [
            sequence.score(step, score) for step, score in enumerate(train(sequence, view, steps, plan, seed))
        ]

    def _n_classes(self, sequence: _Sequence, step: int) -> int:
        return sequence.split.n_classes if self.wide else sequence.n_classes(step)

    @staticmethod
    def _numbers(
        sequence: _Sequence, view: View, steps: list[tuple[Schedule, int]], plan: Plan, seed: int
    ) -> Iterator[Callable[[str, Tensor], float]]:
        estimator = view.own_numbers()
        for step, (schedule, n_classes) in enumerate(steps):
            if n_classes > estimator.out_features:
                estimator.add_outputs(n_classes - estimator.out_features)
            train_numbers(estimator, view, sequence.chunks[step], schedule, plan, seed + step, score=False)
            yield partial(view.score, estimator)

    @staticmethod
    def _network(
        sequence: _Sequence, view: View, steps: list[tuple[Schedule, int]], plan: Plan, seed: int
    ) -> Iterator[Callable[[str, Tensor], float]]:
        mlp = make_mlp(view.z.shape[1], plan.mlp_units, steps[0][1], seed)
        for step, (schedule, n_classes) in enumerate(steps):
            mlp = _with_outputs(mlp, n_classes)
            mlp, _ = train_network(mlp, view, sequence.chunks[step], schedule, plan, seed + step, score=False)
            yield partial(view.score_mlp, mlp)


BY_GRADIENT = {
    "GLAI, gradient": _ByGradient("numbers", wide=False),
    "GLAI, gradient, all outputs from the start": _ByGradient("numbers", wide=True),
    "MLP, fine-tuned": _ByGradient("MLP", wide=False),
    "MLP, fine-tuned, all outputs from the start": _ByGradient("MLP", wide=True),
}


def _by_gradient(regime: str) -> dict[str, _ByGradient]:
    """Those that differ: with balanced increments all classes are there from the start."""
    return {key: side for key, side in BY_GRADIENT.items() if regime == "new classes" or not side.wide}


def _with_outputs(mlp: nn.Sequential, n_classes: int) -> nn.Sequential:
    """A copy with more outputs, initialised as PyTorch does; the others compute what they did."""
    before = mlp[-1]
    assert isinstance(before, nn.Linear)
    wider = nn.Linear(before.in_features, n_classes)
    with torch.no_grad():
        wider.weight[: before.out_features] = before.weight
        wider.bias[: before.out_features] = before.bias
    return nn.Sequential(*copy.deepcopy(list(mlp)[:-1]), wider)


def _by_statistics(sequence: _Sequence, view: View, share: float, after_each: bool = True) -> dict[str, Any]:
    """No replay: the sums take each increment in, and are solved after each, or after the last."""
    sums = view.statistics(sequence.chunks[0][:0], n_classes=sequence.n_classes(0))
    after = []
    for step, ids in enumerate(sequence.chunks):
        added = sequence.n_classes(step) - sums.out_features
        if added:
            sums.add_outputs(added)
        sums.update(view.z[ids], view.gates[ids], view.y[ids])
        if after_each or step == INCREMENTS - 1:
            estimator = sums.solve(share * sums.mean_diagonal, progress=False)
            after.append(sequence.score(step, partial(view.score, copy.deepcopy(estimator).float())))
    together = view.statistics().solve(share * sums.mean_diagonal, progress=False)
    return {"after": after, "difference from joint training": relative_difference(estimator, together)}


def _tune_increments(settings: Settings, name: str, regime: str) -> dict[str, Any]:
    half = settings.result_of(f"retraining/{name}/half/tuning")
    split, plan, seed = load_split(settings, name), plan_of(settings, name), settings.seeds[0]
    sequence = _Sequence(split, regime, seed)
    structure = StructureSchedule(**half["structure, half"])
    view = View(learn_structure(sequence.first(), plan, structure, seed), split)
    epochs = (1,) if settings.quick else (1, 4)
    # Small rates forget less.
    candidates = [Schedule(rate, n) for rate in (1e-4, *plan.rates) for n in epochs]
    tuned: dict[str, Any] = {"structure": pack(structure)}
    for key, side in _by_gradient(regime).items():
        first = Schedule(**half[f"{side.kind}, half"])
        run = partial(side.train, sequence, view, first)
        tuned[key] = pack(max(candidates, key=lambda s: run(s, plan, seed)[-1]["validation"]))
    tuned["l2"] = tune_l2(view, view.statistics())
    view = View(random_structure(sequence.first(), plan, seed), split)
    tuned["l2, random gates"] = tune_l2(view, view.statistics())
    return tuned


def _increments(settings: Settings, name: str, regime: str, seed: int) -> dict[str, Any]:
    tuned = settings.result_of(f"retraining/{name}/{regime}/tuning")
    half = settings.result_of(f"retraining/{name}/half/tuning")
    split, plan = load_split(settings, name), plan_of(settings, name)
    sequence = _Sequence(split, regime, seed)
    structure = StructureSchedule(**tuned["structure"])
    view = View(learn_structure(sequence.first(), plan, structure, seed), split)
    result = {"GLAI, statistics": _by_statistics(sequence, view, tuned["l2"])}
    for key, side in _by_gradient(regime).items():
        first = Schedule(**half[f"{side.kind}, half"])
        after = side.train(sequence, view, first, Schedule(**tuned[key]), plan, seed)
        result[key] = {"after": after}
    together = Schedule(**half["MLP, all"])
    mlp = make_mlp(view.z.shape[1], plan.mlp_units, split.n_classes, seed)
    mlp, _ = train_network(mlp, view, None, together, plan, seed, score=False)
    result["MLP, all at once"] = {"after": [{"test": view.score_mlp(mlp, "test")}]}
    view = View(random_structure(sequence.first(), plan, seed), split)
    result["GLAI, random gates, statistics"] = _by_statistics(
        sequence, view, tuned["l2, random gates"], after_each=False
    )
    return result
