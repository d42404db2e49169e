"""What re-training and merging share: sizes, structures, how a model is trained, and how that is tuned."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import glai_native as glai
from glai_bench.claims.cell import Settings
from glai_bench.solvers.mlp import MlpSettings, Point, Stopwatch, accuracy_of, make_mlp, trained_mlps
from glai_bench.solvers.runs import PROJECTION_SAMPLES, Curve, Split, best, projection_parameters
from glai_native.estimator.parameters import mlp_parameters


@dataclass(frozen=True)
class Plan:
    """What is trained for one data set.

    units: of the selector; P·(D+1) stays under 5,000, so that the statistics of ten parties are a matter of seconds.
    components: of the projection that all models read; None: centring alone.
    local_batch_size: of parties, who have few samples.
    epochs: at most; rates: that are tried; rounds: of federated training.
    """

    components: int | None
    units: int
    mlp_units: int
    batch_size: int
    local_batch_size: int
    epochs: int
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    rounds: int = 10


PLANS = {
    "MNIST": Plan(50, 96, 512, 512, 256, 6),
    "BANKING77": Plan(128, 32, 512, 128, 64, 10),
    "digits": Plan(None, 32, 128, 32, 32, 20),
}
QUICK = {
    "MNIST": Plan(30, 24, 64, 256, 256, 2, (1e-2,), 2),
    "BANKING77": Plan(48, 16, 128, 128, 128, 3, (3e-3,), 2),
    "digits": Plan(None, 16, 64, 32, 32, 6, (3e-3,), 2),
}


def plan_of(settings: Settings, name: str) -> Plan:
    return (QUICK if settings.quick else PLANS)[name]


L2_SHARES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the mean diagonal of the gram matrix


@dataclass(frozen=True)
class Schedule:
    """What is tuned of a training. optimizer: of MLPs, of torch.optim; average: keep the mean of an epoch."""

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


class View:
    """A split as a structure sees it: z and path gates of all samples, computed once.

    ``seconds``: of projecting and capturing the training samples.
    """

    def __init__(self, selector: glai.PathSelector, split: Split) -> None:
        self.selector, self.split = selector, split
        started = time.perf_counter()
        self.z = selector.project(split.x)
        self.gates = selector.gates_of(self.z)
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
        return accuracy_of(lambda z: estimator(z, gates), z.to(estimator.dtype), y)

    def score_mlp(self, mlp: nn.Module, part: str, ids: Tensor | None = None) -> float:
        """The same of a network that reads z."""
        z, _, y = self._held_out[part]
        return accuracy_of(mlp, z, y) if ids is None else accuracy_of(mlp, z[ids], y[ids])

    def own_numbers(self) -> glai.PathEstimator:
        """Those of the network that the structure was."""
        return glai.PathEstimator.from_selector(self.selector)

    def zeros(self, n_classes: int | None = None, dtype: torch.dtype = torch.float32) -> glai.PathEstimator:
        s = self.selector
        shape = s.n_paths, s.z_features, n_classes or self.split.n_classes
        return glai.PathEstimator(*shape, structure_id=s.structure_id, dtype=dtype)

    def statistics(self, ids: Tensor | None = None, n_classes: int | None = None) -> glai.PathStatistics:
        """Of these training samples; None: of all, and an empty tensor of none."""
        s = self.selector
        shape = s.n_paths, s.z_features, n_classes or self.split.n_classes
        statistics = glai.PathStatistics(*shape, structure_id=s.structure_id)
        if ids is None:
            statistics.update(self.z, self.gates, self.y)
        elif len(ids):
            statistics.update(self.z[ids], self.gates[ids], self.y[ids])
        return statistics


def learn_structure(
    part: Split, plan: Plan, schedule: StructureSchedule, seed: int, n_classes: int | None = None
) -> glai.PathSelector:
    """Projection and selector, from the training samples of ``part`` alone."""
    projection = fit_projection(part, plan)
    mlp = make_mlp(projection.out_features, plan.units, n_classes or part.n_classes, seed)
    monitor = glai.StructureMonitor(min_epochs=1, max_epochs=schedule.epochs)
    return glai.train_structure(
        mlp, part.x, part.y, projection, monitor, batch_size=plan.batch_size,
        learning_rate=schedule.learning_rate, seed=seed, progress=False,
    )  # fmt: skip


def random_structure(part: Split, plan: Plan, seed: int) -> glai.PathSelector:
    """The same of random gates: the projection alone is fitted."""
    projection = fit_projection(part, plan)
    return glai.PathSelector(make_mlp(projection.out_features, plan.units, part.n_classes, seed), projection)


def fit_projection(part: Split, plan: Plan) -> glai.InputProjection:
    return glai.InputProjection.fit(part.x[:PROJECTION_SAMPLES], plan.components)


def train_numbers(
    estimator: glai.PathEstimator,
    view: View,
    ids: Tensor | None,
    schedule: Schedule,
    plan: Plan,
    seed: int,
    score: bool = True,
) -> Curve:
    """The native loop, in place, on some of the training samples or all; tested after the last epoch."""
    z, gates, y = (view.z, view.gates, view.y) if ids is None else (view.z[ids], view.gates[ids], view.y[ids])
    curve: Curve = []

    def note(epoch: glai.SgdEpoch) -> None:
        if score:
            last = epoch.epoch == schedule.epochs
            test = view.score(estimator, "test") if last else math.nan
            curve.append(Point(epoch.epoch, epoch.seconds, view.score(estimator, "validation"), test))

    glai.train_estimator(
        estimator, z, gates, y, epochs=schedule.epochs, batch_size=plan.batch_size,
        learning_rate=schedule.learning_rate, average=schedule.average, seed=seed, on_epoch=note, progress=False,
    )  # fmt: skip
    return curve


def train_network(
    mlp: nn.Sequential,
    view: View,
    ids: Tensor | None,
    schedule: Schedule,
    plan: Plan,
    seed: int,
    score: bool = True,
) -> tuple[nn.Sequential, Curve]:
    """The MLP that reads the same z; the trained one is returned."""
    z, y = (view.z, view.y) if ids is None else (view.z[ids], view.y[ids])
    settings = MlpSettings(
        plan.mlp_units, schedule.learning_rate, plan.batch_size, schedule.optimizer, schedule.average,
        schedule.epochs,
    )  # fmt: skip
    watch, trained = Stopwatch(), mlp
    curve: Curve = []
    for trained in trained_mlps(copy.deepcopy(mlp), z, y, settings, seed, watch):
        if score:
            last = len(curve) + 1 == schedule.epochs
            test = view.score_mlp(trained, "test") if last else math.nan
            curve.append(Point(len(curve) + 1, watch.seconds, view.score_mlp(trained, "validation"), test))
    return trained, curve


def tune(run: Callable[[Schedule], Curve], candidates: Iterable[Schedule]) -> Schedule:
    """The candidate and the number of epochs with the best validation accuracy, the fewest if equal."""
    curves = {schedule: best(run(schedule)) for schedule in candidates}
    schedule = max(curves, key=lambda s: curves[s].validation)
    return replace(schedule, epochs=curves[schedule].epoch)


def rates(plan: Plan) -> list[Schedule]:
    return [Schedule(rate, plan.epochs) for rate in plan.rates]


def tune_structure(
    curve: Callable[[StructureSchedule, Schedule], Curve], plan: Plan, quick: bool
) -> tuple[StructureSchedule, Schedule]:
    """The structure's training that validates best at a middling rate of the numbers, then their own rate."""
    schedules = rates(plan)
    middle = schedules[len(schedules) // 2]
    tried = {s: best(curve(s, middle)).validation for s in STRUCTURES[: 1 if quick else None]}
    structure = max(tried, key=lambda s: tried[s])
    return structure, tune(partial(curve, structure), schedules)


def tune_l2(view: View, statistics: glai.PathStatistics) -> float:
    """The share of the mean diagonal that validates best."""

    def validation(share: float) -> float:
        estimator = statistics.solve(share * statistics.mean_diagonal, dtype=torch.float32, progress=False)
        return view.score(estimator, "validation")

    return max(L2_SHARES, key=validation)


def parameters(view: View, plan: Plan) -> dict[str, list[int]]:
    """In all (the projection, selector and estimator, or the network), and trained."""
    rotation = projection_parameters(view.split, plan.components)
    d, n_classes = view.z.shape[1], view.split.n_classes
    numbers = view.zeros().trained_parameters
    network = mlp_parameters(d, plan.mlp_units, n_classes)
    return {
        "GLAI": [rotation + plan.units * (d + 1) + numbers, numbers],
        "MLP": [rotation + network, network],
    }


def pack(schedule: Schedule | StructureSchedule) -> dict[str, Any]:
    """For JSON; :class:`Schedule` or :class:`StructureSchedule` (**packed) is the way back."""
    return asdict(schedule)


@torch.no_grad()
def relative_difference(ours: glai.PathEstimator, theirs: glai.PathEstimator) -> float:
    """The largest, of any weight or bias, by the largest weight or bias."""
    pairs = [(ours.weight, theirs.weight), (ours.bias, theirs.bias)]
    largest = max(float(b.abs().max()) for _, b in pairs)
    return max(float((a - b).abs().max()) for a, b in pairs) / largest
