"""Who competes on accuracy: the MLPs, linear softmax, and GLAI by every solver, size and kind of gates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

import glai_native as glai
from glai_native.demo.figures import mlp_parameters
from mlp_baseline import Clock, MlpSettings, Point
from solver_runs import (
    Curve,
    GlaiSettings,
    Split,
    glai_curve,
    glai_parameters,
    mlp_curve,
    projection_parameters,
    scores_of,
    train_selector,
)

SCALES = (1, 2, 4)
# Of the path kernel: the model is not meant for more, see README.
DUAL_SAMPLES, QUICK_DUAL_SAMPLES = 10_000, 2_000
# Unknowns P(D+1) of the sufficient statistics.
MOST_UNKNOWNS, QUICK_MOST_UNKNOWNS = 15_000, 3_000


@dataclass(frozen=True)
class Arena:
    """How a data set is competed on.

    Attributes:
        hidden: units of the MLP on raw data, whose parameters the others get.
        components: of the projection that GLAI and the MLP beside it read; None: centring.
        mlp, same, linear, glai: learning rates and batch sizes tuned over.
        epochs: of the MLP on raw data, of the one on the same preprocessing and linear softmax, and of the native loop.
        structures: epochs of the selector tuned over, its rate and batch size.
        small: units tuned over, beside equal parameters, by the MLP on the same preprocessing.
    """

    hidden: int
    components: int | None
    mlp: tuple[tuple[float, int], ...]
    same: tuple[tuple[float, int], ...]
    linear: tuple[tuple[float, int], ...]
    glai: tuple[float, ...]
    random: tuple[float, ...]
    batch_size: int
    epochs: tuple[int, int, int]
    structures: tuple[int, ...]
    structure_rate: float
    structure_batch: int
    small: tuple[int, ...]


ARENAS = {
    "MNIST": Arena(
        256, 50, ((5e-3, 512), (3e-3, 256), (1e-3, 128)), ((3e-3, 256), (1e-3, 256)),
        ((1e-2, 256), (3e-3, 256)), (5e-4, 1e-3), (1e-3, 3e-3), 512, (12, 8, 5), (1, 3), 5e-3, 512, (512,),
    ),
    "BANKING77": Arena(
        512, 128, ((1e-3, 128), (3e-3, 128), (1e-2, 128)), ((1e-3, 128), (3e-3, 128)),
        ((1e-2, 128), (3e-3, 128)), (3e-4, 1e-3), (1e-3, 3e-3), 128, (20, 12, 8), (3, 6), 3e-3, 128, (512,),
    ),
    "digits": Arena(
        128, None, ((1e-3, 64), (3e-3, 64), (1e-2, 64)), ((1e-3, 64), (3e-3, 64), (1e-2, 64)),
        ((1e-2, 64), (3e-2, 64)), (1e-3, 3e-3), (1e-3, 3e-3, 1e-2), 64, (40, 40, 20), (5, 20), 3e-3, 64, (),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class NetSettings:
    """An MLP, or linear softmax, on a projection: components as in :func:`mlp_curve`."""

    components: int | str | None
    how: MlpSettings


@dataclass(frozen=True)
class RidgeSettings:
    """A closed form over a structure; l2 in shares of the mean diagonal of the kernel, or of the gram matrix."""

    structure: GlaiSettings
    share: float


@dataclass(frozen=True)
class Contender:
    """One line of the competition.

    Attributes:
        key: its part of a cell's key; ``.../trained`` and ``.../random`` are the same but for the gates.
        settings: tuned over.
        run: training with settings and a seed.
        parameters: in all, and trained.
        omitted: why it is not run.
    """

    key: str
    settings: tuple[Any, ...]
    run: Callable[[Split, Any, int], Curve]
    parameters: Callable[[Split, Any], tuple[int, int]]
    omitted: str | None = None


def contenders(split: Split, quick: bool) -> Iterator[Contender]:
    arena = ARENAS[split.name]
    budget = mlp_parameters(split.x.shape[1], arena.hidden, split.n_classes)
    mlp_epochs, same_epochs, _ = (2 if quick else epochs for epochs in arena.epochs)
    z_width = split.x.shape[1] if arena.components is None else arena.components
    projection = projection_parameters(split, arena.components)
    equal = (budget - projection - split.n_classes) // (z_width + 1 + split.n_classes)
    yield _net(
        "MLP", [NetSettings("raw", MlpSettings(arena.hidden, r, b, epochs=mlp_epochs)) for r, b in arena.mlp]
    )
    yield _net(
        "MLP on z",
        [
            NetSettings(arena.components, MlpSettings(hidden, r, b, epochs=same_epochs))
            for hidden in (*arena.small, equal)
            for r, b in arena.same
        ],
    )
    whole = None if arena.components is None else split.x.shape[1]
    yield _net(
        "linear softmax",
        [
            NetSettings(components, MlpSettings(0, r, b, epochs=same_epochs))
            for components in dict.fromkeys((arena.components, whole if split.name == "BANKING77" else None))
            for r, b in arena.linear
        ],
    )
    for paths, solver, scale, gates in itertools.product(
        ("full", "directions"), ("sgd", "dual", "statistics"), SCALES, ("trained", "random")
    ):
        yield _glai(split, arena, quick, budget, paths, solver, scale, gates)


def _net(key: str, settings: list[NetSettings]) -> Contender:
    def parameters(split: Split, s: NetSettings) -> tuple[int, int]:
        components = s.components if isinstance(s.components, int) else None
        width = split.x.shape[1] if components is None else components
        hidden, n_classes = s.how.hidden, split.n_classes
        trained = mlp_parameters(width, hidden, n_classes) if hidden else (width + 1) * n_classes
        return projection_parameters(split, components) + trained, trained

    return Contender(
        key, tuple(settings), lambda split, s, seed: mlp_curve(split, s.how, s.components, seed), parameters
    )


def _glai(
    split: Split, arena: Arena, quick: bool, budget: int, paths: str, solver: str, scale: int, gates: str
) -> Contender:
    directions = paths == "directions"
    trained = gates == "trained"
    start = GlaiSettings(
        0, arena.components, directions, 0.0, arena.batch_size, 0, arena.structure_rate, arena.structure_batch,
        2 if quick else arena.epochs[2], warm=trained,
    )  # fmt: skip
    start = replace(start, hidden=_hidden(split, start, scale * budget))
    structures = [replace(start, structure_epochs=n) for n in (arena.structures if trained else (0,))]
    key = f"GLAI/{paths}/{solver}/{scale}x/{gates}"
    if solver == "sgd":
        rates = arena.glai if trained else arena.random
        grid = [replace(s, learning_rate=rate) for s in structures for rate in rates]
        return Contender(key, tuple(grid), glai_curve, _glai_parameters, _too_small(start))
    unknowns = (start.hidden + 1) * ((arena.components or split.x.shape[1]) + 1)
    most = QUICK_MOST_UNKNOWNS if quick else MOST_UNKNOWNS
    omitted = _too_small(start)
    if solver == "dual" and directions:
        omitted = "the path kernel is of full paths"
    if solver == "statistics" and unknowns > most:
        omitted = f"P(D+1) = {unknowns:,} is over {most:,}"
    shares = (0.01, 0.03, 0.1) if solver == "dual" else (1e-3, 1e-2)

    def run(split: Split, s: RidgeSettings, seed: int) -> Curve:
        return dual_point(split, s, seed, quick) if solver == "dual" else statistics_point(split, s, seed)

    # The structure's epochs are those of the first setting: a closed form is tuned by its l2.
    return Contender(
        key, tuple(RidgeSettings(structures[0], share) for share in shares), run,
        lambda split, s: _glai_parameters(split, s.structure), omitted,
    )  # fmt: skip


def _too_small(settings: GlaiSettings) -> str | None:
    return None if settings.hidden else "no unit fits the parameters"


def _hidden(split: Split, settings: GlaiSettings, budget: int) -> int:
    """The most units with which all parameters are within ``budget``."""
    none, one = (glai_parameters(split, replace(settings, hidden=h)) for h in (0, 1))
    return max(0, (budget - none) // (one - none))


def _glai_parameters(split: Split, s: GlaiSettings) -> tuple[int, int]:
    width, c = (s.components or split.x.shape[1]) + 1, split.n_classes
    trained = s.hidden * width + width * c if s.directions else (s.hidden + 1) * width * c
    return glai_parameters(split, s), trained


def dual_point(split: Split, settings: RidgeSettings, seed: int, quick: bool) -> Curve:
    clock = Clock()
    selector = train_selector(split, settings.structure, seed)
    model = fit_dual(split, selector, settings, quick)
    return [Point(0, clock.pause(), *scores_of(model, split))]


def fit_dual(split: Split, selector: glai.PathSelector, settings: RidgeSettings, quick: bool) -> glai.GLAI:
    """Of the first :data:`DUAL_SAMPLES`, which are in random order, its path weights written out."""
    part = split.part(torch.arange(min(QUICK_DUAL_SAMPLES if quick else DUAL_SAMPLES, len(split.x))))
    some = part.x[:2048]
    kernel = glai.path_kernel(selector.project(some), selector.unit_gates(some))
    l2 = settings.share * float(kernel.diagonal().mean())
    fitted = glai.PathKernelModel(selector).fit(part.x, part.y, l2, n_outputs=split.n_classes, progress=False)
    return glai.GLAI(selector, fitted.to_estimator())


def statistics_point(split: Split, settings: RidgeSettings, seed: int) -> Curve:
    """Sums over all samples, and one solution of them."""
    clock = Clock()
    selector = train_selector(split, settings.structure, seed)
    z = selector.project(split.x)
    gates = selector.path_gates(selector.unit_gates_of(z))
    directions = glai.output_directions(selector) if settings.structure.directions else None
    sums = glai.PathStatistics(selector.n_paths, selector.z_features, split.n_classes)
    sums.update(z, gates, split.y)
    l2 = settings.share * sums.mean_diagonal
    estimator = sums.solve(l2, directions, dtype=torch.float32, progress=False)
    model = glai.GLAI(selector, estimator)
    return [Point(0, clock.pause(), *scores_of(model, split))]
