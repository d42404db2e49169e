"""Claim 4: models that were trained on different data merge. One tenth of the data gives structure and start."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

import glai_native as glai
from glai_bench.claims.cell import Cell, Settings
from glai_bench.claims.data import load_split
from glai_bench.claims.merging_tables import tables
from glai_bench.claims.trainings import (
    Plan,
    Schedule,
    StructureSchedule,
    View,
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

PARTIES = (2, 5, 10)
PARTITIONS = ("identical", "dirichlet")
ALPHA = 0.3
SMALLEST_PARTY = 10  # samples; drawn again below, as flwr-datasets does
START_SHARE = 10  # structure and start are trained on one sample in so many
TUNED_ON = ("dirichlet", 5)  # of seed 0


def cells(settings: Settings) -> Iterator[Cell]:
    for name in settings.data_sets:
        key = f"merging/{name}"
        yield Cell(f"{key}/start/tuning", partial(_tune_start, settings, name))
        yield Cell(f"{key}/tuning", partial(_tune, settings, name))
        for seed in settings.seeds:
            yield Cell(f"{key}/centralised/seed={seed}", partial(_centralised, settings, name, seed))
            for kind in PARTITIONS:
                for n in PARTIES:
                    run = partial(_merged, settings, name, kind, n, seed)
                    yield Cell(f"{key}/{kind}/K={n}/seed={seed}", run)


def partition(y: Tensor, kind: str, n_parties: int, seed: int) -> list[Tensor]:
    """Which samples each party has. Dirichlet: of each class, party k has a share drawn from Dirichlet(0.3)."""
    if kind == "identical":
        folds = StratifiedKFold(n_parties, shuffle=True, random_state=seed).split(y, y)
        return [torch.from_numpy(ids) for _, ids in folds]
    generator = np.random.default_rng(seed)
    while True:
        parts: list[list[np.ndarray]] = [[] for _ in range(n_parties)]
        for label in range(int(y.max()) + 1):
            ids = generator.permutation(np.flatnonzero(y == label))
            cuts = np.cumsum(generator.dirichlet([ALPHA] * n_parties))[:-1] * len(ids)
            for part, piece in zip(parts, np.split(ids, cuts.astype(int)), strict=True):
                part.append(piece)
        parties = [torch.from_numpy(np.concatenate(part)) for part in parts]
        if min(map(len, parties)) >= SMALLEST_PARTY:
            return parties


def _plan_of(settings: Settings, name: str) -> Plan:
    plan = plan_of(settings, name)
    return replace(plan, batch_size=plan.local_batch_size)


# The start that all parties share.


@dataclass(frozen=True)
class _Start:
    """Structure, numbers and MLP of a tenth of the data, and random gates with numbers of that tenth."""

    view: View
    numbers: glai.PathEstimator
    mlp: nn.Sequential
    random_view: View
    random_numbers: glai.PathEstimator


def _first_ids(split: Split, seed: int) -> Tensor:
    folds = StratifiedKFold(START_SHARE, shuffle=True, random_state=seed).split(split.y, split.y)
    return torch.from_numpy(next(folds)[1])


def _tune_start(settings: Settings, name: str) -> dict[str, Any]:
    split, plan, seed = load_split(settings, name), _plan_of(settings, name), settings.seeds[0]
    ids = _first_ids(split, seed)
    part = split.part(ids)

    def curve(structure: StructureSchedule, schedule: Schedule) -> Curve:
        view = View(learn_structure(part, plan, structure, seed), split)
        return train_numbers(view.own_numbers(), view, ids, schedule, plan, seed)

    structure, schedule = tune_structure(curve, plan, settings.quick)
    view = View(learn_structure(part, plan, structure, seed), split)
    mlp = make_mlp(view.z.shape[1], plan.mlp_units, split.n_classes, seed)
    random_view = View(random_structure(part, plan, seed), split)
    return {
        "structure": pack(structure),
        "numbers": pack(schedule),
        "MLP": pack(tune(lambda s: train_network(mlp, view, ids, s, plan, seed)[1], rates(plan))),
        "numbers, random gates": pack(
            tune(lambda s: train_numbers(random_view.zeros(), random_view, ids, s, plan, seed), rates(plan))
        ),
    }


@lru_cache(maxsize=1)
def _start(settings: Settings, name: str, seed: int) -> _Start:
    tuned = settings.result_of(f"merging/{name}/start/tuning")
    split, plan = load_split(settings, name), _plan_of(settings, name)
    ids = _first_ids(split, seed)
    part = split.part(ids)
    view = View(learn_structure(part, plan, StructureSchedule(**tuned["structure"]), seed), split)
    numbers = view.own_numbers()
    train_numbers(numbers, view, ids, Schedule(**tuned["numbers"]), plan, seed, score=False)
    mlp = make_mlp(view.z.shape[1], plan.mlp_units, split.n_classes, seed)
    mlp, _ = train_network(mlp, view, ids, Schedule(**tuned["MLP"]), plan, seed, score=False)
    random_view = View(random_structure(part, plan, seed), split)
    random_numbers = random_view.zeros()
    schedule = Schedule(**tuned["numbers, random gates"])
    train_numbers(random_numbers, random_view, ids, schedule, plan, seed, score=False)
    return _Start(view, numbers, mlp, random_view, random_numbers)


@lru_cache(maxsize=1)
def _joint(settings: Settings, name: str, seed: int) -> tuple[glai.PathEstimator, float]:
    """The weights by the statistics of all samples at once, in float64, and their l2."""
    share = settings.result_of(f"merging/{name}/tuning")["l2"]
    sums = _start(settings, name, seed).view.statistics()
    l2 = share * sums.mean_diagonal
    return sums.solve(l2, progress=False), l2


# Parties train, models are merged, and that for so many rounds.


@dataclass(frozen=True)
class _Merged:
    """alone: mean accuracy of the parties' own models before the last merge; rounds: of the merged one, on test."""

    validation: float
    test: float
    alone: float
    rounds: list[float]


def _merge_numbers(
    start: glai.PathEstimator,
    view: View,
    parties: Sequence[Tensor],
    schedule: Schedule,
    plan: Plan,
    seed: int,
    method: str = "samples",
    rounds: int = 1,
) -> _Merged:
    merged, tests = start, []
    for number in range(rounds):
        trained = []
        for k, ids in enumerate(parties):
            estimator = copy.deepcopy(merged)
            estimator.samples_seen.zero_()
            estimator.on_counts.zero_()
            train_numbers(estimator, view, ids, schedule, plan, _order(seed, number, k), score=False)
            estimator.record(view.gates[ids], view.y[ids])
            trained.append(estimator)
        merged = glai.merge(trained, method=method)
        tests.append(view.score(merged, "test"))
    alone = np.mean([view.score(estimator, "test") for estimator in trained])
    return _Merged(view.score(merged, "validation"), tests[-1], float(alone), tests)


def _merge_networks(
    start: nn.Sequential,
    view: View,
    parties: Sequence[Tensor],
    schedule: Schedule,
    plan: Plan,
    seed: int,
    rounds: int = 1,
) -> _Merged:
    """Weights averaged by samples: with more rounds than one, FedAvg (arXiv 1602.05629)."""
    merged, tests = start, []
    total = sum(map(len, parties))
    for number in range(rounds):
        trained = [
            train_network(merged, view, ids, schedule, plan, _order(seed, number, k), score=False)[0]
            for k, ids in enumerate(parties)
        ]
        merged = copy.deepcopy(start)
        with torch.no_grad():
            for parameter, *theirs in zip(
                merged.parameters(), *(mlp.parameters() for mlp in trained), strict=True
            ):
                shares = (len(ids) / total * p for ids, p in zip(parties, theirs, strict=True))
                parameter.copy_(sum(shares))
        tests.append(view.score_mlp(merged, "test"))
    alone = np.mean([view.score_mlp(mlp, "test") for mlp in trained])
    return _Merged(view.score_mlp(merged, "validation"), tests[-1], float(alone), tests)


def _order(seed: int, number: int, party: int) -> int:
    """The seed of a party's order of samples in a round."""
    return 10_000 * seed + 100 * number + party


Run = Callable[[_Start, list[Tensor], Schedule, Plan, int], _Merged]


def _by_numbers(method: str, once: bool) -> Run:
    return lambda start, parties, schedule, plan, seed: _merge_numbers(
        start.numbers, start.view, parties, schedule, plan, seed, method, 1 if once else plan.rounds
    )


def _by_network(once: bool) -> Run:
    return lambda start, parties, schedule, plan, seed: _merge_networks(
        start.mlp, start.view, parties, schedule, plan, seed, 1 if once else plan.rounds
    )


def _by_random_gates(
    start: _Start, parties: list[Tensor], schedule: Schedule, plan: Plan, seed: int
) -> _Merged:
    return _merge_numbers(start.random_numbers, start.random_view, parties, schedule, plan, seed)


def _once(plan: Plan, quick: bool) -> list[Schedule]:
    """Of parties that train to the end and merge once."""
    epochs = (plan.epochs,) if quick else (1, plan.epochs)
    return [replace(schedule, epochs=n) for schedule in rates(plan) for n in epochs]


def _rounds(plan: Plan, _: bool) -> list[Schedule]:
    """Of parties that train one epoch per round, and send what it ends with."""
    return [replace(schedule, epochs=1, average=False) for schedule in rates(plan)]


def _network_rounds(plan: Plan, quick: bool) -> list[Schedule]:
    plain = [Schedule(rate, 1, "SGD", False) for rate in ((0.1,) if quick else (0.1, 0.3))]
    return _rounds(plan, quick) + plain


RUNS: dict[str, tuple[Run, Callable[[Plan, bool], list[Schedule]]]] = {
    "GLAI, by samples": (_by_numbers("samples", once=True), _once),
    "GLAI, by activations and classes": (_by_numbers("activations_classes", once=True), _once),
    "GLAI, random gates, by samples": (_by_random_gates, _once),
    "GLAI, rounds by samples": (_by_numbers("samples", once=False), _rounds),
    "GLAI, rounds by activations and classes": (_by_numbers("activations_classes", once=False), _rounds),
    "MLP, averaged": (_by_network(once=True), _once),
    "MLP, FedAvg": (_by_network(once=False), _network_rounds),
}


def _tune(settings: Settings, name: str) -> dict[str, Any]:
    split, plan, seed = load_split(settings, name), _plan_of(settings, name), settings.seeds[0]
    start = _start(settings, name, seed)
    view, random_view = start.view, start.random_view
    parties = partition(split.y, *TUNED_ON, seed)
    tuned: dict[str, Any] = {}
    for side, (run, schedules) in RUNS.items():
        run_all = partial(run, start, parties)
        candidates = schedules(plan, settings.quick)
        tuned[side] = pack(max(candidates, key=lambda s: run_all(s, plan, seed).validation))
    tuned["numbers"] = pack(
        tune(lambda s: train_numbers(copy.deepcopy(start.numbers), view, None, s, plan, seed), rates(plan))
    )
    tuned["MLP"] = pack(tune(lambda s: train_network(start.mlp, view, None, s, plan, seed)[1], rates(plan)))
    tuned["numbers, random gates"] = pack(
        tune(
            lambda s: train_numbers(copy.deepcopy(start.random_numbers), random_view, None, s, plan, seed),
            rates(plan),
        )
    )
    tuned["l2"] = tune_l2(view, view.statistics())
    tuned["l2, random gates"] = tune_l2(random_view, random_view.statistics())
    return tuned


def _centralised(settings: Settings, name: str, seed: int) -> dict[str, Any]:
    """All data in one place, from the same start."""
    tuned = settings.result_of(f"merging/{name}/tuning")
    plan, start = plan_of(settings, name), _start(settings, name, seed)
    view, random_view = start.view, start.random_view
    result: dict[str, Any] = {
        "parameters": parameters(view, plan),
        "start, GLAI": {"test": view.score(start.numbers, "test")},
        "start, MLP": {"test": view.score_mlp(start.mlp, "test")},
    }
    estimator = copy.deepcopy(start.numbers)
    curve = train_numbers(estimator, view, None, Schedule(**tuned["numbers"]), plan, seed)
    result["GLAI"] = {"test": curve[-1].test}
    estimator = copy.deepcopy(start.random_numbers)
    schedule = Schedule(**tuned["numbers, random gates"])
    curve = train_numbers(estimator, random_view, None, schedule, plan, seed)
    result["GLAI, random gates"] = {"test": curve[-1].test}
    _, curve = train_network(start.mlp, view, None, Schedule(**tuned["MLP"]), plan, seed)
    result["MLP"] = {"test": curve[-1].test}
    together, _ = _joint(settings, name, seed)
    result["GLAI, statistics"] = {"test": view.score(copy.deepcopy(together).float(), "test")}
    sums = random_view.statistics()
    estimator = sums.solve(tuned["l2, random gates"] * sums.mean_diagonal, progress=False).float()
    result["GLAI, random gates, statistics"] = {"test": random_view.score(estimator, "test")}
    return result


def _merged(settings: Settings, name: str, kind: str, n_parties: int, seed: int) -> dict[str, Any]:
    tuned = settings.result_of(f"merging/{name}/tuning")
    split, plan, start = load_split(settings, name), _plan_of(settings, name), _start(settings, name, seed)
    parties = partition(split.y, kind, n_parties, seed)
    result: dict[str, Any] = {"samples of parties": [len(ids) for ids in parties]}
    for side, (run, _) in RUNS.items():
        merged = run(start, parties, Schedule(**tuned[side]), plan, seed)
        result[side] = {"test": merged.test, "alone": merged.alone, "rounds": merged.rounds}
    result["GLAI, statistics"] = _sum_statistics(settings, name, parties, seed)
    return result


def _sum_statistics(settings: Settings, name: str, parties: Sequence[Tensor], seed: int) -> dict[str, Any]:
    view = _start(settings, name, seed).view
    together, l2 = _joint(settings, name, seed)
    sums = view.statistics(parties[0])
    for ids in parties[1:]:
        sums = glai.merge([sums, view.statistics(ids)], progress=False)
    estimator = sums.solve(l2, progress=False)
    difference = relative_difference(estimator, together)
    return {"test": view.score(estimator.float(), "test"), "difference from joint training": difference}
