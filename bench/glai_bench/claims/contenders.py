"""Who competes on accuracy: the MLPs, linear softmax, and GLAI by every solver, size and kind of gates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

import glai_native as glai
from glai_bench.solvers.mlp import MlpSettings, Point, Stopwatch
from glai_bench.solvers.runs import (
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
from glai_native.estimator.parameters import mlp_parameters

SCALES = (1, 2, 4)
# Of the path kernel: the model is not meant for more, see README.
DUAL_SAMPLES, QUICK_DUAL_SAMPLES = 10_000, 2_000
# Unknowns P(D+1) of the sufficient statistics.
MOST_UNKNOWNS, QUICK_MOST_UNKNOWNS = 15_000, 3_000


Rates = tuple[tuple[float, int], ...]
"""Learning rates, each with its batch size."""


@dataclass(frozen=True)
class Arena:
    """How a data set is competed on.

    Attributes:
        hidden: units of the MLP on raw data, whose parameters the others get.
        components: of the projection that GLAI and the MLP beside it read; None: centring.
        mlp, mlp_epochs: of the MLP on raw data.
        same, same_epochs: of the MLP on the same preprocessing.
        small: its units tuned over, beside equal parameters.
        linear, linear_components: of linear softmax, for as many epochs.
        trained, random: learning rates of the native loop by gates.
        batch_size, epochs: of the native loop.
        structures: epochs of the selector tuned over; the last for the larger scales.
        structure_rate, structure_batch: its learning rate and batch size.
    """

    hidden: int
    components: int | None
    mlp: Rates
    mlp_epochs: int
    same: Rates
    same_epochs: int
    small: tuple[int, ...]
    linear: Rates
    linear_components: tuple[int | None, ...]
    trained: tuple[float, ...]
    random: tuple[float, ...]
    batch_size: int
    epochs: int
    structures: tuple[int, ...]
    structure_rate: float
    structure_batch: int


ARENAS = {
    "MNIST": Arena(
        hidden=256,
        components=50,
        mlp=((5e-3, 512), (3e-3, 256), (1e-3, 128)),
        mlp_epochs=12,
        same=((3e-3, 256), (1e-3, 256)),
        same_epochs=8,
        small=(512,),
        linear=((1e-2, 256), (3e-3, 256)),
        linear_components=(50, None),
        trained=(5e-4, 1e-3, 2e-3),
        random=(1e-3, 3e-3),
        batch_size=512,
        epochs=5,
        structures=(1, 3),
        structure_rate=5e-3,
        structure_batch=512,
    ),
    "BANKING77": Arena(
        hidden=512,
        components=128,
        mlp=((1e-3, 128), (3e-3, 128), (1e-2, 128)),
        mlp_epochs=20,
        same=((1e-3, 128), (3e-3, 128)),
        same_epochs=12,
        small=(512,),
        linear=((1e-2, 128), (3e-3, 128)),
        linear_components=(128, 384),
        trained=(3e-4, 1e-3),
        random=(1e-3, 3e-3),
        batch_size=128,
        epochs=8,
        structures=(3, 6),
        structure_rate=3e-3,
        structure_batch=128,
    ),
    "digits": Arena(
        hidden=128,
        components=None,
        mlp=((1e-3, 64), (3e-3, 64), (1e-2, 64)),
        mlp_epochs=40,
        same=((1e-3, 64), (3e-3, 64), (1e-2, 64)),
        same_epochs=40,
        small=(),
        linear=((1e-2, 64), (3e-2, 64)),
        linear_components=(None,),
        trained=(1e-3, 3e-3),
        random=(1e-3, 3e-3, 1e-2),
        batch_size=64,
        epochs=20,
        structures=(5, 20),
        structure_rate=3e-3,
        structure_batch=64,
    ),
}
DUAL_SHARES, STATISTICS_SHARES = (0.01, 0.03, 0.1), (1e-3, 1e-2)
QUICK_EPOCHS = 2


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
        samples: that the numbers are trained on.
        omitted: why it is not run.
    """

    key: str
    settings: tuple[Any, ...]
    run: Callable[[Split, Any, int], Curve]
    parameters: Callable[[Split, Any], tuple[int, int]]
    samples: int
    omitted: str | None = None


def contenders(split: Split, quick: bool) -> Iterator[Contender]:
    arena = ARENAS[split.name]
    mlp_epochs, same_epochs = (QUICK_EPOCHS if quick else n for n in (arena.mlp_epochs, arena.same_epochs))
    budget = mlp_parameters(split.x.shape[1], arena.hidden, split.n_classes)
    left = budget - projection_parameters(split, arena.components)
    equal = _mlp_units(_width(split, arena.components), split.n_classes, left)
    raw = [NetSettings("raw", MlpSettings(arena.hidden, *rate, epochs=mlp_epochs)) for rate in arena.mlp]
    same = [
        NetSettings(arena.components, MlpSettings(hidden, *rate, epochs=same_epochs))
        for hidden in (*arena.small, equal)
        for rate in arena.same
    ]
    linear = [
        NetSettings(components, MlpSettings(0, *rate, epochs=same_epochs))
        for components in arena.linear_components
        for rate in arena.linear
    ]
    for key, settings in (("MLP", raw), ("MLP on z", same), ("linear softmax", linear)):
        yield Contender(key, tuple(settings), _net_curve, _net_parameters, len(split.x))
    for paths, solver, scale, gates in itertools.product(
        ("full", "directions"), ("sgd", "dual", "statistics"), SCALES, ("trained", "random")
    ):
        start = GlaiSettings(
            hidden=0,
            components=arena.components,
            directions=paths == "directions",
            learning_rate=0.0,
            batch_size=arena.batch_size,
            structure_epochs=0,
            structure_rate=arena.structure_rate,
            structure_batch=arena.structure_batch,
            epochs=QUICK_EPOCHS if quick else arena.epochs,
            warm=gates == "trained",
        )
        start = replace(start, hidden=_units(split, start, scale * budget))
        structures = [start]
        if gates == "trained":
            lengths = arena.structures if scale == 1 or solver != "sgd" else arena.structures[-1:]
            structures = [replace(start, structure_epochs=n) for n in lengths]
        key = f"GLAI/{paths}/{solver}/{scale}x/{gates}"
        omitted = _omission(split, start, solver, quick)
        if solver == "sgd":
            rates = arena.trained if gates == "trained" else arena.random
            grid = tuple(replace(s, learning_rate=rate) for s in structures for rate in rates)
            yield Contender(key, grid, glai_curve, _glai_parameters, len(split.x), omitted)
        elif solver == "dual":
            # The closed forms tune their l2, over the shortest structure.
            ridges = tuple(RidgeSettings(structures[0], share) for share in DUAL_SHARES)
            samples = min(QUICK_DUAL_SAMPLES if quick else DUAL_SAMPLES, len(split.x))
            run = partial(dual_point, samples=samples)
            yield Contender(key, ridges, run, _ridge_parameters, samples, omitted)
        else:
            ridges = tuple(RidgeSettings(structures[0], share) for share in STATISTICS_SHARES)
            yield Contender(key, ridges, statistics_point, _ridge_parameters, len(split.x), omitted)


def _omission(split: Split, settings: GlaiSettings, solver: str, quick: bool) -> str | None:
    unknowns = (settings.hidden + 1) * (_width(split, settings.components) + 1)
    most = QUICK_MOST_UNKNOWNS if quick else MOST_UNKNOWNS
    if not settings.hidden:
        return "no unit fits the parameters"
    if solver == "dual" and settings.directions:
        return "the path kernel is of full paths"
    if solver == "statistics" and unknowns > most:
        return f"P(D+1) = {unknowns:,} is over {most:,}"
    return None


def _width(split: Split, components: int | str | None) -> int:
    return components if isinstance(components, int) else split.x.shape[1]


def _net_curve(split: Split, settings: NetSettings, seed: int) -> Curve:
    return mlp_curve(split, settings.how, settings.components, seed)


def _net_parameters(split: Split, settings: NetSettings) -> tuple[int, int]:
    width, hidden = _width(split, settings.components), settings.how.hidden
    trained = mlp_parameters(width, hidden, split.n_classes) if hidden else (width + 1) * split.n_classes
    components = settings.components if isinstance(settings.components, int) else None
    return projection_parameters(split, components) + trained, trained


def _mlp_units(width: int, n_classes: int, budget: int) -> int:
    return (budget - n_classes) // (width + 1 + n_classes)


def _ridge_parameters(split: Split, settings: RidgeSettings) -> tuple[int, int]:
    return _glai_parameters(split, settings.structure)


def _units(split: Split, settings: GlaiSettings, budget: int) -> int:
    """The most units with which all parameters are within ``budget``."""
    none, one = (glai_parameters(split, replace(settings, hidden=h)) for h in (0, 1))
    return max(0, (budget - none) // (one - none))


def _glai_parameters(split: Split, s: GlaiSettings) -> tuple[int, int]:
    width, c = _width(split, s.components) + 1, split.n_classes
    trained = s.hidden * width + width * c if s.directions else (s.hidden + 1) * width * c
    return glai_parameters(split, s), trained


def dual_point(split: Split, settings: RidgeSettings, seed: int, samples: int) -> Curve:
    watch = Stopwatch()
    selector = train_selector(split, settings.structure, seed)
    model = fit_dual(split, selector, settings, samples)
    return [Point(0, watch.pause(), *scores_of(model, split))]


def fit_dual(split: Split, selector: glai.PathSelector, settings: RidgeSettings, samples: int) -> glai.GLAI:
    """Of the first ``samples``, which are in random order, its path weights written out."""
    part = split.part(torch.arange(samples))
    some = part.x[:2048]
    kernel = glai.path_kernel(selector.project(some), selector.unit_gates(some))
    l2 = settings.share * float(kernel.diagonal().mean())
    fitted = glai.PathKernelModel(selector).fit(part.x, part.y, l2, n_outputs=split.n_classes, progress=False)
    return glai.GLAI(selector, fitted.to_estimator())


def statistics_point(split: Split, settings: RidgeSettings, seed: int) -> Curve:
    """Sums over all samples, and one solution of them."""
    watch = Stopwatch()
    selector = train_selector(split, settings.structure, seed)
    z = selector.project(split.x)
    gates = selector.gates_of(z)
    directions = glai.output_directions(selector) if settings.structure.directions else None
    sums = glai.PathStatistics(selector.n_paths, selector.z_features, split.n_classes)
    sums.update(z, gates, split.y)
    l2 = settings.share * sums.mean_diagonal
    estimator = sums.solve(l2, directions, dtype=torch.float32, progress=False)
    model = glai.GLAI(selector, estimator)
    return [Point(0, watch.pause(), *scores_of(model, split))]
