"""Data, and the training curves of MLPs and of GLAI on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import glai_native as glai
from glai_bench.solvers.mlp import MlpSettings, Point, Stopwatch, accuracy_of, make_mlp, trained_mlps
from glai_native.data.labelled import load_data

Curve = list[Point]
PROJECTION_SAMPLES = 10_000  # enough for 50 axes


@dataclass(frozen=True)
class Split:
    """Training, validation and test samples."""

    name: str
    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor

    @property
    def n_classes(self) -> int:
        return int(self.y.max()) + 1

    def part(self, ids: Tensor) -> Split:
        return Split(self.name, self.x[ids], self.y[ids], self.x_val, self.y_val, self.x_test, self.y_test)


def _split(name: str, path: Path | None, n_validation: int, n_train: int | None = None) -> Split:
    data = load_data(path)
    order = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(0))
    train, val = order[n_validation:][:n_train], order[:n_validation]
    x, y = data.x_train, data.y_train
    return Split(name, x[train], y[train], x[val], y[val], data.x_test, data.y_test)


def mnist(folder: Path, quick: bool) -> Split:
    return _split("MNIST", folder / "mnist", 10_000, 10_000 if quick else None)


def banking(folder: Path) -> Split:
    return _split("BANKING77", folder / "banking77_minilm.npz", 2_000)


def digits() -> Split:
    return _split("digits", None, 300)


@dataclass(frozen=True)
class GlaiSettings:
    """What is tuned. components: of the projection, None: centring; directions, or units: instead of full paths."""

    hidden: int
    components: int | None
    directions: bool
    learning_rate: float
    batch_size: int = 512
    structure_epochs: int = 1  # 0: random gates
    structure_rate: float = 5e-3
    structure_batch: int = 512
    epochs: int = 8
    warm: bool = True  # starts from the structure's own weights instead of zeros
    units: bool = False
    weight_decay: float = 0.0


def fit_projection(split: Split, components: int | None) -> glai.InputProjection:
    return glai.InputProjection.fit(
        split.x if components is None else split.x[:PROJECTION_SAMPLES], components
    )


def mlp_curve(split: Split, settings: MlpSettings, components: int | str | None, seed: int) -> Curve:
    """components: of the projection it reads; None: centring; "raw": the data as they are."""
    watch = Stopwatch()
    project = None if isinstance(components, str) else fit_projection(split, components)
    x = split.x if project is None else project(split.x)
    mlp = make_mlp(x.shape[1], settings.hidden, split.n_classes, seed)
    curve: Curve = []
    for model in trained_mlps(mlp, x, split.y, settings, seed, watch):
        whole = model if project is None else lambda x, model=model: model(project(x))
        curve.append(Point(len(curve) + 1, watch.seconds, *scores_of(whole, split)))
    return curve


def train_selector(split: Split, settings: GlaiSettings, seed: int) -> glai.PathSelector:
    projection = fit_projection(split, settings.components)
    mlp = make_mlp(projection.out_features, settings.hidden, split.n_classes, seed)
    if not settings.structure_epochs:
        return glai.PathSelector(mlp, projection)
    monitor = glai.StructureMonitor(min_epochs=1, max_epochs=settings.structure_epochs)
    return glai.train_structure(
        mlp, split.x, split.y, projection, monitor, batch_size=settings.structure_batch,
        learning_rate=settings.structure_rate, seed=seed, progress=False,
    )  # fmt: skip


def new_estimator(selector: glai.PathSelector, split: Split, settings: GlaiSettings) -> glai.PathEstimator:
    """With the structure's own weights, or zeros."""
    if settings.units and not settings.warm:
        return glai.PathEstimator.of_units(selector)
    if settings.units:
        return glai.PathEstimator.from_selector(selector, directions="units")
    directions = glai.output_directions(selector) if settings.directions else None
    if settings.warm:
        return glai.PathEstimator.from_selector(selector, directions=directions)
    sizes = selector.n_paths, selector.z_features, split.n_classes
    return glai.PathEstimator(*sizes, directions, structure_id=selector.structure_id)


def glai_curve(split: Split, settings: GlaiSettings, seed: int) -> Curve:
    """Projection, structure, capture and the native loop."""
    watch = Stopwatch()
    selector = train_selector(split, settings, seed)
    z = selector.project(split.x)
    gates = None if settings.units else selector.gates_of(z)
    z = glai.unit_features(selector, z) if settings.units else z
    estimator = new_estimator(selector, split, settings)
    before = watch.pause()
    model = glai.GLAI(selector, estimator)
    curve: Curve = [Point(0, before, *scores_of(model, split))]

    def note(epoch: glai.SgdEpoch) -> None:
        curve.append(Point(epoch.epoch, before + epoch.seconds, *scores_of(model, split)))

    glai.train_estimator(
        estimator, z, gates, split.y, epochs=settings.epochs, batch_size=settings.batch_size,
        learning_rate=settings.learning_rate, weight_decay=settings.weight_decay, seed=seed, on_epoch=note,
        progress=False,
    )  # fmt: skip
    return curve


def scores_of(model: Callable[[Tensor], Tensor], split: Split) -> tuple[float, float]:
    """Validation and test accuracy of raw x."""
    return accuracy_of(model, split.x_val, split.y_val), accuracy_of(model, split.x_test, split.y_test)


def best(curve: Curve) -> Point:
    return max(curve, key=lambda point: point.validation)


def seconds_to(curve: Curve, target: float) -> float | None:
    """Training seconds to the first point that reaches the validation accuracy; None: it never does."""
    return next((point.seconds for point in curve if point.validation >= target), None)


def glai_parameters(split: Split, settings: GlaiSettings) -> int:
    """All of them: projection, selector, estimator."""
    d = split.x.shape[1] if settings.components is None else settings.components
    h, c = settings.hidden, split.n_classes
    numbers = (h + 1) * (d + 1) * c
    if settings.directions:
        numbers = h * (d + 1) + h * c + (d + 1) * c
    elif settings.units:
        numbers = (h + d + 1) * c
    return projection_parameters(split, settings.components) + h * (d + 1) + numbers


def projection_parameters(split: Split, components: int | None) -> int:
    return split.x.shape[1] * (components or 0)
