"""Claim 4: it costs less energy. Joules of each phase, to the accuracy that times are taken to, or the best epoch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

import glai_native as glai
from glai_bench.claims.accuracy import quickest_settings
from glai_bench.claims.cell import DATA_SETS, Cell, Settings
from glai_bench.claims.contenders import Contender, contenders, fit_dual
from glai_bench.claims.data import load_split
from glai_bench.solvers.mlp import Stopwatch, make_mlp, trained_mlps
from glai_bench.solvers.runs import GlaiSettings, Split, fit_projection, new_estimator, train_selector

# A phase is repeated until this has passed: codecarbon cannot resolve a short one.
SHORTEST_SECONDS, QUICK_SHORTEST_SECONDS = 2.0, 0.3
LABELS = {
    "MLP": "MLP, raw data",
    "MLP on z": "MLP on the same preprocessing",
    "GLAI/full/sgd/1x/trained": "GLAI, full paths, native loop",
    "GLAI/directions/sgd/1x/trained": "GLAI, output directions, native loop",
    "GLAI/full/dual/1x/trained": "GLAI, full paths, dual",
}


def cells(settings: Settings) -> Iterator[Cell]:
    for name in settings.data_sets:
        split = load_split(settings, name)
        field = {c.key: c for c in contenders(split, settings.quick) if c.omitted is None}
        for seed in settings.seeds:
            for key in LABELS:
                if key in field:
                    run = partial(_measure_all, split, field[key], seed, settings)
                    yield Cell(f"energy/{name}/{key}/seed={seed}", run)


def _measure_all(split: Split, contender: Contender, seed: int, settings: Settings) -> dict[str, Any]:
    accuracy = settings.result_of(f"accuracy/{split.name}/{contender.key}/seed={seed}")
    epochs = accuracy["raced to"]["epoch"]
    how = quickest_settings(settings, split.name, contender)
    shortest = QUICK_SHORTEST_SECONDS if settings.quick else SHORTEST_SECONDS
    phases: dict[str, Callable[[], object]]
    if contender.key.startswith("MLP"):
        phases = {"training": partial(_run_mlp, split, how, seed, epochs)}
    else:
        structure = how if isinstance(how, GlaiSettings) else how.structure
        selector = train_selector(split, structure, seed)
        phases = {"selector": partial(train_selector, split, structure, seed)}
        phases["estimator"] = (
            partial(_train_estimator, split, selector, structure, seed, epochs)
            if isinstance(how, GlaiSettings)
            else partial(fit_dual, split, selector, how, contender.samples)
        )
    return {
        "reached": accuracy["seconds to target"] is not None,
        "epochs": epochs,
        "test": accuracy["raced to"]["test"],
        "phases": {phase: _measure(phase, run, shortest) for phase, run in phases.items()},
    }


def _run_mlp(split: Split, how: Any, seed: int, epochs: int) -> None:
    x = split.x if how.components == "raw" else fit_projection(split, how.components)(split.x)
    mlp = make_mlp(x.shape[1], how.how.hidden, split.n_classes, seed)
    for _, _ in zip(range(epochs), trained_mlps(mlp, x, split.y, how.how, seed, Stopwatch()), strict=False):
        pass


def _train_estimator(
    split: Split, selector: glai.PathSelector, how: GlaiSettings, seed: int, epochs: int
) -> None:
    z = selector.project(split.x)
    gates = selector.gates_of(z)
    estimator = new_estimator(selector, split, how)
    if epochs:
        glai.train_estimator(
            estimator, z, gates, split.y, epochs=epochs, batch_size=how.batch_size,
            learning_rate=how.learning_rate, seed=seed, progress=False,
        )  # fmt: skip


def _measure(phase: str, run: Callable[[], object], shortest: float) -> dict[str, Any]:
    """Per run, of as many runs as take long enough."""
    times = 0
    with glai.EnergyMeter(phase) as meter:
        started = time.perf_counter()
        while time.perf_counter() - started < shortest:
            run()
            times += 1
    energy = meter.energy
    return {
        "runs": times,
        "threads": torch.get_num_threads(),
        "seconds": energy.seconds / times,
        "joules": energy.joules / times,
        "measured joules": energy.measured_joules / times,
        "g CO2eq": energy.kg_co2eq * 1e3 / times,
        "how": energy.how,
    }


def tables(results: Mapping[str, dict[str, Any]]) -> str:
    found = {
        (name, key): runs
        for name in DATA_SETS
        for key in LABELS
        if (runs := [r for cell, r in results.items() if cell.startswith(f"energy/{name}/{key}/seed=")])
    }
    if not found:
        return ""
    lines = [
        "| joules per training | selector | estimator, or MLP | in all | seconds | test, % | reached |",
        f"|{'---|' * 7}",
    ]
    for (name, key), runs in found.items():
        main = "training" if key.startswith("MLP") else "estimator"
        selector = "" if key.startswith("MLP") else _spread([_joules(run, "selector") for run in runs])
        cells = [
            f"{name}, {LABELS[key]}",
            selector,
            _spread([_joules(run, main) for run in runs]),
            _spread([_joules(run) for run in runs]),
            _spread([sum(phase["seconds"] for phase in run["phases"].values()) for run in runs]),
            f"{100 * statistics.mean(run['test'] for run in runs):.2f}",
            f"{sum(run['reached'] for run in runs)} of {len(runs)}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_how(found), "", _claim(found)])


def _joules(run: dict[str, Any], phase: str | None = None) -> float:
    return float(sum(value["joules"] for name, value in run["phases"].items() if phase in (None, name)))


def _spread(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3g} ± {deviation:.2g}"


Found = Mapping[tuple[str, str], list[dict[str, Any]]]


def _how(found: Found) -> Iterator[str]:
    phases = [phase for runs in found.values() for run in runs for phase in run["phases"].values()]
    yield f"Joules: {'; '.join(dict.fromkeys(phase['how'] for phase in phases))}."
    if not any(phase["measured joules"] for phase in phases):
        watts = [phase["joules"] / phase["seconds"] for phase in phases]
        yield (
            "No counter was read: these joules are seconds of the processor times a nominal power, "
            f"{min(watts):.0f} to {max(watts):.0f} W here, and say nothing that time does not."
        )


def _claim(found: Found) -> str:
    """All of the training, and re-training (the estimator alone), against both MLPs; GLAI's cheapest that reached."""
    less, cases, parts = 0, 0, []
    for name in dict.fromkeys(name for name, _ in found):
        ours = {key: runs for (data, key), runs in found.items() if data == name and key.startswith("GLAI")}
        nets = {key: runs for (data, key), runs in found.items() if data == name and key.startswith("MLP")}
        if not ours or not nets:
            continue
        # Those that came to the accuracy most often; of them the one of least energy.
        key = min(ours, key=lambda k: (-sum(r["reached"] for r in ours[k]), _median(ours[k])))
        ratios = []
        for net, runs in nets.items():
            ratio = _median(ours[key]) / _median(runs)
            cases += 1
            less += ratio < 1
            again = _median(ours[key], "estimator") / _median(runs)
            ratios.append(f"{ratio:.2f} times the {LABELS[net]} ({again:.2f} without the selector)")
        parts.append(f"{name} ({LABELS[key].removeprefix('GLAI, ')}): {', '.join(ratios)}")
    verdict = "reproduced" if less == cases else "partly" if less else "not"
    return f"**Less energy: {verdict}**, in {less} of {cases} comparisons of medians. {'; '.join(parts)}."


def _median(runs: Sequence[dict[str, Any]], phase: str | None = None) -> float:
    return statistics.median(_joules(run, phase) for run in runs)
