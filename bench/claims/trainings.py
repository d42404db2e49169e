"""What re-training and merging share: sizes, structures, how a model is trained, and how that is tuned."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import glai_native as glai
from mlp_baseline import Clock, MlpSettings, Point, accuracy, make_mlp, train_mlp
from solver_runs import PROJECTION_SAMPLES, Curve, Split, best


@dataclass(frozen=True)
class Sizes:
    """Of the models for one data set.

    units: of the selector; P·(D+1) stays under 8,500, so that the statistics of ten parties are a matter of seconds.
    components: of the projection that all models read; None: centring alone.
    """

    components: int | None
    units: int
    mlp_units: int
    batch_size: int
    epochs: int


SIZES = {
    "MNIST": Sizes(50, 128, 512, 256, 8),
    "BANKING77": Sizes(128, 64, 512, 64, 12),
    "digits": Sizes(None, 32, 128, 32, 30),
}
QUICK = {
    "MNIST": Sizes(30, 24, 64, 256, 2),
    "BANKING77": Sizes(48, 16, 128, 128, 3),
    "digits": Sizes(None, 16, 64, 32, 6),
}
L2_SHARES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1)  # of the mean diagonal of the gram matrix


@dataclass(frozen=True)
class Schedule:
    """What is tuned of a training. optimizer: of MLPs, of torch.optim; average: keep the mean of an epoch's iterates."""

    learning_rate: float
    epochs: int
    optimizer: str = "Adam"
    average: bool = True


@dataclass(frozen=True)
class StructureSchedule:
    """What is tuned of a structure's training."""

    epochs: int
    learning_rate: float


STRUCTURES = (StructureSchedule(1, 5e-3), StructureSchedule(4, 2e-3), StructureSchedule(10, 1e-3))
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


class View:
    """A split as a structure sees it: z and path gates of all samples, computed once.

    ``seconds``: of projecting and capturing the training samples.
    """

    def __init__(self, selector: glai.PathSelector, split: Split) -> None:
        self.selector, self.split = selector, split
        started = time.perf_counter()
        self.z = selector.project(split.x)
        self.gates = selector.path_gates(selector.unit_gates_of(self.z))
        self.seconds = time.perf_counter() - started
        self.y = split.y
        self._held_out = {
            "validation": (selector.project(split.x_val), selector.gates(split.x_val), split.y_val),
            "test": (selector.project(split.x_test), selector.gates(split.x_test), split.y_test),
        }

    def score(self, estimator: glai.PathEstimator, part: str, ids: Tensor | None = None) -> float:
        """Accuracy on ``"validation"`` or ``"test"``, or on some of its samples."""
        z, gates, y = self._held_out[part]
        if ids is not None:
            z, gates, y = z[ids], gates[ids], y[ids]
        return accuracy(lambda z: estimator(z, gates), z.to(estimator.dtype), y)

    def score_mlp(self, mlp: nn.Module, part: str, ids: Tensor | None = None) -> float:
        """The same of a network that reads z."""
        z, _, y = self._held_out[part]
        return accuracy(mlp, z, y) if ids is None else accuracy(mlp, z[ids], y[ids])

    def zeros(self, n_classes: int | None = None, dtype: torch.dtype = torch.float32) -> glai.PathEstimator:
        s = self.selector
        sizes = s.n_paths, s.z_features, n_classes or self.split.n_classes
        return glai.PathEstimator(*sizes, structure_id=s.structure_id, dtype=dtype)

    def statistics(self, ids: Tensor | None = None, n_classes: int | None = None) -> glai.PathStatistics:
        """Of these training samples; None: of all, and an empty tensor of none."""
        s = self.selector
        sizes = s.n_paths, s.z_features, n_classes or self.split.n_classes
        statistics = glai.PathStatistics(*sizes, structure_id=s.structure_id)
        if ids is None:
            statistics.update(self.z, self.gates, self.y)
        elif len(ids):
            statistics.update(self.z[ids], self.gates[ids], self.y[ids])
        return statistics


def learn_structure(
    part: Split, sizes: Sizes, schedule: StructureSchedule, seed: int, n_classes: int | None = None
) -> glai.PathSelector:
    """Projection and selector, from the training samples of ``part`` alone."""
    projection = fit_projection(part, sizes)
    mlp = make_mlp(projection.out_features, sizes.units, n_classes or part.n_classes, seed)
    monitor = glai.StructureMonitor(min_epochs=1, max_epochs=schedule.epochs)
    return glai.train_structure(
        mlp, part.x, part.y, projection, monitor, batch_size=sizes.batch_size,
        learning_rate=schedule.learning_rate, seed=seed, progress=False,
    )  # fmt: skip


def random_structure(part: Split, sizes: Sizes, seed: int) -> glai.PathSelector:
    """The same of random gates: the projection alone is fitted."""
    projection = fit_projection(part, sizes)
    return glai.PathSelector(make_mlp(projection.out_features, sizes.units, part.n_classes, seed), projection)


def fit_projection(part: Split, sizes: Sizes) -> glai.InputProjection:
    return glai.InputProjection.fit(part.x[:PROJECTION_SAMPLES], sizes.components)


def train_numbers(
    estimator: glai.PathEstimator,
    view: View,
    ids: Tensor | None,
    schedule: Schedule,
    sizes: Sizes,
    seed: int,
    score: bool = True,
) -> Curve:
    """The native loop, in place, on some of the training samples or all."""
    z, gates, y = (view.z, view.gates, view.y) if ids is None else (view.z[ids], view.gates[ids], view.y[ids])
    curve: Curve = []

    def note(epoch: glai.SgdEpoch) -> None:
        if score:
            scores = [view.score(estimator, part) for part in ("validation", "test")]
            curve.append(Point(epoch.epoch, epoch.seconds, *scores))

    glai.train_estimator(
        estimator, z, gates, y, epochs=schedule.epochs, batch_size=sizes.batch_size,
        learning_rate=schedule.learning_rate, average=schedule.average, seed=seed, on_epoch=note, progress=False,
    )  # fmt: skip
    return curve


def train_network(
    mlp: nn.Sequential,
    view: View,
    ids: Tensor | None,
    schedule: Schedule,
    sizes: Sizes,
    seed: int,
    score: bool = True,
) -> tuple[nn.Sequential, Curve]:
    """The MLP that reads the same z; the trained one is returned."""
    z, y = (view.z, view.y) if ids is None else (view.z[ids], view.y[ids])
    settings = MlpSettings(
        sizes.mlp_units, schedule.learning_rate, sizes.batch_size, schedule.optimizer, schedule.average,
        schedule.epochs,
    )  # fmt: skip
    clock, curve, trained = Clock(), [], mlp
    for trained in train_mlp(copy.deepcopy(mlp), z, y, settings, seed, clock):
        if score:
            scores = [view.score_mlp(trained, part) for part in ("validation", "test")]
            curve.append(Point(len(curve) + 1, clock.seconds, *scores))
    return trained, curve


def tune(run: Callable[[Schedule], Curve], candidates: Iterable[Schedule]) -> tuple[Schedule, float]:
    """The candidate and the number of epochs with the best validation accuracy, the fewest if equal; and it."""
    curves = {schedule: best(run(schedule)) for schedule in candidates}
    schedule = max(curves, key=lambda s: curves[s].validation)
    return replace(schedule, epochs=curves[schedule].epoch), curves[schedule].validation


def rates(sizes: Sizes) -> list[Schedule]:
    return [Schedule(rate, sizes.epochs) for rate in RATES]


def tune_structure(
    run: Callable[[StructureSchedule], tuple[Schedule, float]], quick: bool
) -> tuple[StructureSchedule, Schedule]:
    """The structure's training and the numbers', which together validate best."""
    tried = {structure: run(structure) for structure in STRUCTURES[: 1 if quick else None]}
    structure = max(tried, key=lambda s: tried[s][1])
    return structure, tried[structure][0]


def tune_l2(view: View, statistics: glai.PathStatistics) -> float:
    """The share of the mean diagonal that validates best."""

    def validation(share: float) -> float:
        estimator = statistics.solve(
            share * statistics.mean_diagonal, dtype=torch.float32, progress=False
        )
        return view.score(estimator, "validation")

    return max(L2_SHARES, key=validation)


def pack(schedule: Schedule | StructureSchedule) -> dict[str, Any]:
    """For JSON; :class:`Schedule` or :class:`StructureSchedule` (**packed) is the way back."""
    return asdict(schedule)
