"""Single figures of the solvers: one task each, beside what a user of PyTorch would do instead."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import glai_native as glai
from glai_bench.solvers.mlp import MlpSettings, Stopwatch, accuracy_of, make_mlp, trained_mlps
from glai_bench.solvers.runs import (
    PROJECTION_SAMPLES,
    GlaiSettings,
    Split,
    fit_projection,
    glai_parameters,
    new_estimator,
    train_selector,
)
from glai_native.estimator.parameters import mlp_parameters

# Seconds and validation accuracy, first before it begins, then after epochs.
FineTuning = list[tuple[float, float]]


def dual(split: Split, quick: bool) -> dict[str, Any]:
    """The path kernel on all training samples, and torch's Cholesky and inverse of the same kernel, by turns."""
    x, y = torch.cat([split.x, split.x_val]), torch.cat([split.y, split.y_val])
    projection = glai.InputProjection.fit(x)
    selector = glai.PathSelector(make_mlp(x.shape[1], 2048, split.n_classes, 0), projection)
    fits, libraries = [], []
    for _ in range(1 if quick else 3):
        model = glai.PathKernelModel(selector)
        fits.append(_seconds(lambda: model.fit(x, y, progress=False)))  # noqa: B023
        kernel = glai.path_kernel(selector.project(x), selector.unit_gates(x))
        kernel.diagonal().add_(model.l2)
        libraries.append(_seconds(lambda: torch.cholesky_inverse(torch.linalg.cholesky(kernel))))  # noqa: B023
    fit, library = statistics.median(fits), statistics.median(libraries)
    return {
        "units (random gates)": 2048,
        "test accuracy": accuracy_of(model.predict, split.x_test, split.y_test),
        "leave-one-out accuracy": model.loo_accuracy,
        "seconds of fit, median": fit,
        "seconds of torch's Cholesky and inverse, median": library,
        "ratio": fit / library,
    }


def large_dual(split: Split, quick: bool) -> dict[str, Any]:
    """Two hidden layers, more samples than a kernel matrix has memory for: conjugate gradients on its blocks."""
    x, y = torch.cat([split.x, split.x_val]), torch.cat([split.y, split.y_val])
    width = 128 if quick else 512
    started = time.perf_counter()
    projection = glai.InputProjection.fit(x[:PROJECTION_SAMPLES], 50)
    torch.manual_seed(0)
    layers = [torch.nn.Linear(50, width), torch.nn.ReLU(), torch.nn.Linear(width, width), torch.nn.ReLU()]
    mlp = torch.nn.Sequential(*layers, torch.nn.Linear(width, split.n_classes))
    monitor = glai.StructureMonitor(max_epochs=3)
    selector = glai.train_structure(
        mlp, x, y, projection, monitor, batch_size=256, learning_rate=2e-3, progress=False
    )
    structure = time.perf_counter() - started
    features = selector.project(x[:4096]), selector.unit_gates(x[:4096])
    mean_diagonal = float(glai.path_kernel(*features).diagonal().mean())
    model = glai.PathKernelModel(selector).fit(x, y, l2=0.02 * mean_diagonal, memory=2**30, progress=False)
    return {
        "samples": len(x),
        "paths": selector.n_paths,
        "seconds of the structure": structure,
        "seconds of everything": time.perf_counter() - started,
        "relative residual left": model.unsolved,
        "test accuracy": accuracy_of(model.predict, split.x_test, split.y_test),
    }


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def class_incremental(split: Split, quick: bool) -> dict[str, Any]:
    """Five chunks of consecutive labels, each seen once; the structure is the first chunk's.

    l2 is chosen by validation, whose samples are added afterwards.
    """
    settings = GlaiSettings(32, 50, False, 0.0) if quick else GlaiSettings(250, 70, False, 0.0)
    if split.n_classes > 10:
        settings = GlaiSettings(24 if quick else 60, 200 if quick else 300, False, 0.0, structure_epochs=5)
    chunks = [(split.y * 5 // split.n_classes == k).nonzero().squeeze(1) for k in range(5)]
    first = split.part(chunks[0])
    selector = train_selector(first, settings, 0)
    joint = glai.PathStatistics(selector.n_paths, selector.z_features, split.n_classes)
    # Once: how a product of matrices rounds may depend on the rows beside a row.
    z_all, gates_all = selector.project(split.x), selector.gates(split.x)
    grown: glai.PathStatistics | None = None
    seconds = 0.0
    for ids in chunks:
        started = time.perf_counter()
        z, gates, y = z_all[ids], gates_all[ids], split.y[ids]
        n_classes = int(y.max()) + 1
        if grown is None:
            grown = glai.PathStatistics(selector.n_paths, selector.z_features, n_classes)
        elif n_classes > grown.out_features:
            grown.add_outputs(n_classes - grown.out_features)
        grown.update(z, gates, y)
        seconds += time.perf_counter() - started
    assert grown is not None
    everything = torch.cat(chunks).flip(0)
    joint.update(z_all[everything], gates_all[everything], split.y[everything])
    scores = {}
    for share in (3e-3, 1e-2, 3e-2, 1e-1, 2e-1):
        l2 = share * joint.mean_diagonal
        estimator = grown.solve(l2, dtype=torch.float32, progress=False)
        scores[l2] = accuracy_of(glai.GLAI(selector, estimator), split.x_val, split.y_val)
    l2 = max(scores, key=lambda value: scores[value])
    # Chosen: what it was chosen by is one more increment.
    z = selector.project(split.x_val)
    for sums in (grown, joint):
        sums.update(z, selector.gates_of(z), split.y_val)
    ours = grown.solve(l2, progress=False)
    together = joint.solve(l2, progress=False)
    difference = float(
        (ours.weight - together.weight).detach().abs().max() / together.weight.detach().abs().max()
    )
    model = glai.GLAI(selector, ours.float())
    # The MLP on the same projection, fine-tuned chunk by chunk.
    mlp = make_mlp(selector.z_features, 256, split.n_classes, 0)
    for ids in chunks:
        z = selector.project(split.x[ids])
        for mlp_now in trained_mlps(
            mlp, z, split.y[ids], MlpSettings(256, 1e-3, 128, epochs=3), 0, Stopwatch()
        ):
            tuned = mlp_now
    return {
        "paths": selector.n_paths,
        "test accuracy": accuracy_of(model, split.x_test, split.y_test),
        "test accuracy of the MLP, fine-tuned": accuracy_of(
            lambda x: tuned(selector.project(x)), split.x_test, split.y_test
        ),
        "relative difference from joint training": difference,
        "seconds of accumulation": seconds,
    }


# Tuned on seed 0 as all settings are: rates of fine-tuning, and of what is fine-tuned the sizes.
FINE_MLPS = [(MlpSettings(h, 3e-3, 256, epochs=8), rate) for h in (512, 1024) for rate in (2e-3, 1e-3, 5e-4)]
FINE_GLAIS = [
    (GlaiSettings(h, 50, True, 5e-4, 512, 3, 1e-2, 256, epochs=6), rate)
    for h in (1024, 1400)
    for rate in (5e-4, 2e-4, 1e-4)
]


def more_data(split: Split) -> dict[str, Any]:
    """Trained on 80%, then 20% more of the same kind: seconds to the best that fine-tuning an MLP reaches."""
    n = len(split.x) * 4 // 5
    old, new = split.part(torch.arange(n)), split.part(torch.arange(n, len(split.x)))
    projection = fit_projection(old, 50)
    mlps = [_fine_tuned_mlp(old, new, projection, settings, rate) for settings, rate in FINE_MLPS]
    glais = [_fine_tuned_glai(old, new, settings, rate) for settings, rate in FINE_GLAIS]
    target = max(score for run in mlps for _, score in run[1:])
    quickest = [min(runs, key=lambda run: _seconds_to(run, target)) for runs in (mlps, glais)]
    reach = [_seconds_to(run, target) for run in quickest]
    return {
        "validation before, MLP and GLAI": [run[0][1] for run in quickest],
        "target: best of MLP fine-tuning": target,
        "seconds of the MLP": reach[0],
        "seconds of GLAI": None if math.isinf(reach[1]) else reach[1],
        "GLAI's best": max(score for run in glais for _, score in run[1:]),
        "curves": {"MLP": quickest[0], "GLAI": quickest[1]},
    }


def _seconds_to(run: FineTuning, target: float) -> float:
    """Of fine-tuning: what was there before does not count."""
    return next((seconds for seconds, score in run[1:] if score >= target), math.inf)


def _fine_tuned_mlp(
    old: Split, new: Split, projection: glai.InputProjection, settings: MlpSettings, rate: float
) -> FineTuning:
    mlp = make_mlp(projection.out_features, settings.hidden, old.n_classes, 0)
    *_, trained = trained_mlps(mlp, projection(old.x), old.y, settings, 0, Stopwatch())
    z_val = projection(old.x_val)
    run = [(0.0, accuracy_of(trained, z_val, old.y_val))]
    watch = Stopwatch()
    z = projection(new.x)
    for model in trained_mlps(trained, z, new.y, replace(settings, learning_rate=rate, epochs=5), 1, watch):
        run.append((watch.seconds, accuracy_of(model, z_val, old.y_val)))
    return run


def _fine_tuned_glai(old: Split, new: Split, settings: GlaiSettings, rate: float) -> FineTuning:
    selector = train_selector(old, settings, 0)
    estimator = new_estimator(selector, old, settings)
    z_val, gates_val = selector.project(old.x_val), selector.gates(old.x_val)

    def score() -> float:
        return accuracy_of(lambda z: estimator(z, gates_val), z_val, old.y_val)

    options: dict[str, Any] = {"batch_size": settings.batch_size, "progress": False}
    glai.train_estimator(
        estimator, selector.project(old.x), selector.gates(old.x), old.y,
        epochs=settings.epochs, learning_rate=settings.learning_rate, **options,
    )  # fmt: skip
    run = [(0.0, score())]
    started = time.perf_counter()
    z = selector.project(new.x)
    gates = selector.gates_of(z)
    capture = time.perf_counter() - started
    glai.train_estimator(
        estimator, z, gates, new.y, epochs=5, learning_rate=rate, seed=1,
        on_epoch=lambda epoch: run.append((capture + epoch.seconds, score())), **options,
    )  # fmt: skip
    return run


def removal(split: Split, quick: bool) -> dict[str, Any]:
    """Exact removal of a tenth of the samples."""
    selector = train_selector(split, GlaiSettings(32 if quick else 128, 50, False, 0.0), 0)
    z, gates = selector.project(split.x), selector.gates(split.x)
    out = torch.arange(len(z) // 10)
    kept = torch.arange(len(z) // 10, len(z))
    figures: dict[str, list[float]] = {"all": [], "removed": []}
    for _ in range(1 if quick else 3):
        sums = glai.PathStatistics(selector.n_paths, selector.z_features, split.n_classes)
        figures["all"].append(_seconds(lambda: sums.update(z, gates, split.y)))  # noqa: B023
        figures["removed"].append(_seconds(lambda: sums.downdate(z[out], gates[out], split.y[out])))  # noqa: B023
    l2 = 1e-2 * sums.mean_diagonal
    started = time.perf_counter()
    after = sums.solve(l2, progress=False)
    solve = time.perf_counter() - started
    fresh = glai.PathStatistics(selector.n_paths, selector.z_features, split.n_classes)
    fresh.update(z[kept], gates[kept], split.y[kept])
    never = fresh.solve(l2, progress=False)
    difference = float((after.weight - never.weight).detach().abs().max() / never.weight.detach().abs().max())
    whole, part = (statistics.median(figures[name]) for name in ("all", "removed"))
    return {
        "paths": selector.n_paths,
        "seconds of accumulation": whole,
        "seconds of removal": part,
        "share": part / whole,
        "seconds of solving": solve,
        "relative difference from never having seen them": difference,
    }


def inference(split: Split) -> dict[str, Any]:
    """Latency from raw x, ours and the MLP's by turns, at about equal parameters in all; and bytes."""
    mlp = make_mlp(784, 256, 10, 0)
    settings = GlaiSettings(1024, 50, True, 0.0)
    selector = train_selector(split, settings, 0)
    directions = glai.output_directions(selector)
    narrow = train_selector(split, GlaiSettings(240, 50, False, 0.0), 0)
    models: dict[str, Callable[[Tensor], Tensor]] = {
        "MLP 784-256-10": mlp,
        "GLAI, directions": glai.GLAI(
            selector, glai.PathEstimator.from_selector(selector, directions=directions)
        ),
        "GLAI, full paths": glai.GLAI(narrow, glai.PathEstimator.from_selector(narrow)),
    }
    figures: dict[str, Any] = {
        "parameters": {
            "MLP 784-256-10": mlp_parameters(784, 256, 10),
            "GLAI, directions": glai_parameters(split, settings),
            "GLAI, full paths": glai_parameters(split, GlaiSettings(240, 50, False, 0.0)),
        }
    }
    with torch.no_grad():
        for n in (1, 4096):
            x = split.x_test[:n].contiguous()
            times: dict[str, list[float]] = {name: [] for name in models}
            for _ in range(300 if n == 1 else 60):
                for name, model in models.items():
                    times[name].append(_seconds(lambda: model(x)))  # noqa: B023
            medians = {name: statistics.median(values) * 1e6 for name, values in times.items()}
            figures[f"microseconds, N = {n}"] = medians
            figures[f"times the MLP's, N = {n}"] = {
                name: value / medians["MLP 784-256-10"] for name, value in medians.items()
            }
    return figures
