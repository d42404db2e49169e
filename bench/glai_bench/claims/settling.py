"""Claim 1: the structure settles early. When pattern and weights have come 90% of their way, in epochs."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import glai_native as glai
from glai_bench.claims.cell import DATA_SETS, Cell, Settings
from glai_bench.claims.data import load_split
from glai_bench.solvers.mlp import MlpSettings, Stopwatch, accuracy_of, make_mlp, trained_mlps

SHARE = 0.9
PROBE_SAMPLES = 2048


@dataclass(frozen=True)
class Training:
    """How an MLP is trained here: Adam at its usual rate, until long after its validation accuracy stopped rising."""

    widths: tuple[int, ...]
    epochs: int
    batch_size: int


TRAININGS = {
    "MNIST": Training((64, 256), 40, 256),
    "BANKING77": Training((128, 512), 60, 128),
    "digits": Training((32, 128), 100, 64),
}
LEARNING_RATE = 1e-3
# Standard errors under the best validation accuracy so far. Adam at a constant rate jumps once the loss is next to
# zero, and takes pattern and weights elsewhere (MNIST: a fifth of the way, at epochs 30 to 40); a training ends
# before.
JUMP = 3
QUICK_EPOCHS = 8


def cells(settings: Settings) -> Iterator[Cell]:
    for name in settings.data_sets:
        for width in TRAININGS[name].widths:
            for seed in settings.seeds:
                yield Cell(
                    f"settling/{name}/h={width}/seed={seed}", partial(_settle, settings, name, width, seed)
                )


def _settle(settings: Settings, name: str, width: int, seed: int) -> dict[str, Any]:
    split, training = load_split(settings, name), TRAININGS[name]
    projection = glai.InputProjection.fit(split.x)
    z, z_val = projection(split.x), projection(split.x_val)
    probe = z_val[:PROBE_SAMPLES]
    mlp = make_mlp(z.shape[1], width, split.n_classes, seed)
    epochs = QUICK_EPOCHS if settings.quick else training.epochs
    how = MlpSettings(width, LEARNING_RATE, training.batch_size, average=False, epochs=epochs)
    states, scores = [_state(mlp, probe)], [0.0]
    jumped = False
    for model in trained_mlps(mlp, z, split.y, how, seed, Stopwatch()):
        score = accuracy_of(model, z_val, split.y_val)
        jumped = score < max(scores) - JUMP * _standard_error(max(scores), len(z_val))
        if jumped:
            break
        states.append(_state(model, probe))
        scores.append(score)
    enough = max(scores) - _standard_error(max(scores), len(z_val))
    first, last = states[0], states[-1]
    curves = {
        "pattern": [_hamming(state.pattern, last.pattern) for state in states],
        "weights": [float((state.weights - last.weights).norm() / last.weights.norm()) for state in states],
        "directions": [float((state.directions - last.directions).norm()) for state in states],
    }
    return {
        "epochs": len(states) - 1,
        "jumped": jumped,
        "equal bits": [1 - share for share in curves["pattern"]],
        "relative distance of weights": curves["weights"],
        "share of bits that changed": _hamming(first.pattern, last.pattern),
        "epoch of accuracy": next(epoch for epoch, score in enumerate(scores) if score >= enough),
        "validation": scores,
        "epoch of 90%": {which: _epoch_of(SHARE, curve) for which, curve in curves.items()},
    }


@dataclass(frozen=True)
class _State:
    """pattern: unit bits of the probe; directions: of the units' weights and biases, each of length 1."""

    pattern: glai.PackedGates
    weights: Tensor
    directions: Tensor


@torch.no_grad()
def _state(mlp: nn.Sequential, probe: Tensor) -> _State:
    first = mlp[0]
    assert isinstance(first, nn.Linear)
    units = torch.cat([first.weight, first.bias.unsqueeze(1)], dim=1)
    return _State(
        glai.pack_gates(first(probe)),
        torch.cat([parameter.flatten() for parameter in mlp.parameters()]),
        nn.functional.normalize(units),
    )


def _standard_error(share: float, n: int) -> float:
    return float((share * (1 - share) / n) ** 0.5)


def _hamming(a: glai.PackedGates, b: glai.PackedGates) -> float:
    return float(a.hamming(b).double().mean()) / a.n_gates


def _epoch_of(share: float, distances: list[float]) -> float:
    """When the distance to the last state is first down to 1 - share of the first one, linear between epochs."""
    goal = (1 - share) * distances[0]
    for epoch, (before, after) in enumerate(itertools.pairwise(distances)):
        if after <= goal:
            return epoch + (before - goal) / (before - after) if before > goal else float(epoch)
    return float(len(distances) - 1)


WHICH = ("pattern", "weights", "directions")


def _found(results: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    for name in DATA_SETS:
        for width in TRAININGS[name].widths:
            runs = [r for key, r in results.items() if key.startswith(f"settling/{name}/h={width}/")]
            if runs:
                yield name, width, runs


def tables(results: Mapping[str, dict[str, Any]]) -> str:
    lines = [
        "| epoch at which 90 % of the way to the last one is covered | pattern bits | weights | directions of units' "
        "weights | validation accuracy within a standard error of its best | pattern bits that the training changed | "
        "epochs |",
        f"|{'---|' * 7}",
    ]
    earlier, cases, figures = 0, 0, []
    for name, width, runs in _found(results):
        epochs = {which: [run["epoch of 90%"][which] for run in runs] for which in WHICH}
        epochs["accuracy"] = [run["epoch of accuracy"] for run in runs]
        means = {which: statistics.mean(values) for which, values in epochs.items()}
        cells = [f"{means[which]:.1f} ± {_deviation(values):.1f}" for which, values in epochs.items()]
        changed = statistics.mean(run["share of bits that changed"] for run in runs)
        lines.append(f"| {name}, {width} units | {' | '.join(cells)} | {changed:.1%} | {_lengths(runs)} |")
        figures.append(f"{name}, {width} units: {means['pattern']:.1f} against {means['weights']:.1f}")
        cases += 1
        earlier += means["pattern"] < means["weights"]
    if not cases:
        return ""
    every = [run for _, _, runs in _found(results) for run in runs]
    jumps, runs_in_all = sum(run["jumped"] for run in every), len(every)
    verdict = "reproduced" if earlier == cases else "partly" if earlier else "not"
    lines += [
        "",
        f"**Structure settles before the weights: {verdict}**, in {earlier} of {cases} cases. Epochs to 90 % of "
        f"the way, pattern bits against weights: {'; '.join(figures)}. {jumps} of {runs_in_all} trainings ended "
        f"early, before validation accuracy fell by over {JUMP} standard errors: Adam at a constant rate "
        "jumps once the loss is next to zero, and the pattern with it.",
    ]
    return "\n".join(lines)


def _lengths(runs: Sequence[dict[str, Any]]) -> str:
    lengths = sorted({run["epochs"] for run in runs})
    return str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def pictures(results: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Share of the way covered against epochs, means over seeds."""
    from matplotlib.figure import Figure

    found = list(_found(results))
    if not found:
        return
    names = list(dict.fromkeys(name for name, _, _ in found))
    picture = Figure(figsize=(4.2 * len(names), 4.0), layout="constrained")
    panels = dict(zip(names, picture.subplots(1, len(names), squeeze=False)[0], strict=True))
    for name, width, runs in found:
        style = "--" if width == TRAININGS[name].widths[0] else "-"
        distances = {
            "pattern bits": [[1 - equal for equal in run["equal bits"]] for run in runs],
            "weights": [run["relative distance of weights"] for run in runs],
        }
        for i, (which, curves) in enumerate(distances.items()):
            # A training that ended earlier stays where it was.
            covered = [
                statistics.mean(1 - curve[min(epoch, len(curve) - 1)] / curve[0] for curve in curves)
                for epoch in range(max(map(len, curves)))
            ]
            panels[name].plot(covered, color=f"C{i}", linestyle=style, label=f"{which}, {width} units")
    for name, panel in panels.items():
        panel.axhline(SHARE, color="black", linewidth=0.6)
        panel.set(title=name, xlabel="epoch", ylim=(0, 1.02))
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small", loc="lower right")
    panels[names[0]].set_ylabel("share of the way from initial to final")
    yield "settling", picture
