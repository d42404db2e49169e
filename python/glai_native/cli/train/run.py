"""A run of ``glai train`` makes structure, numbers, test, files, and on request each one's energy and an MLP's."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from glai_native.cli.command import require_new_folder
from glai_native.cli.models import answers, outputs_of
from glai_native.cli.predict.scores import class_scores, value_scores
from glai_native.cli.train.mlp import mlp_accuracy, train_layers_mlp
from glai_native.data.labelled import AnyData
from glai_native.data.splitting import split_rows
from glai_native.machine.energy import EnergyMeter, PhaseEnergy
from glai_native.machine.ranks import Ranks
from glai_native.model.glai import GLAI
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.structure.selector import PathSelector
from glai_native.training.distributed import broadcast_selector
from glai_native.training.fitting import FitResult, fit
from glai_native.training.holding_out import VALIDATION_SHARE
from glai_native.training.learners.regressor import centre_and_spread
from glai_native.training.new_structure import train_selector
from glai_native.training.retraining import retrain
from glai_native.training.stages import Stages
from glai_native.training.tables import keep_names
from glai_native.training.untrained import or_untrained, solver_of_untrained

MLP_VALIDATION = 0.1  # of the samples


@dataclass(frozen=True)
class TrainSettings:
    """What ``glai train`` is told.

    Attributes:
        hidden: as :func:`~glai_native.training.new_structure.train_selector`.
        n_components: as :func:`~glai_native.training.new_structure.train_selector`.
        structure_epochs: as :func:`~glai_native.training.new_structure.train_selector`.
        solver: as :func:`~glai_native.fit`.
        options: of the solver.
        seed: of everything.
        structure: folder of the model whose structure is kept; None: a new one is trained.
        increment: the data join what that model has seen.
        energy: measure structure, numbers, and the MLP of the same layers, which is then trained too.
        country: of the grid, as :class:`~glai_native.EnergyMeter`.
    """

    hidden: Sequence[int] | str = "auto"
    n_components: int | str | None = "auto"
    structure_epochs: int | str = "auto"
    solver: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    structure: str | None = None
    increment: bool = False
    energy: bool = False
    country: str | None = None


@dataclass(frozen=True)
class TrainReport:
    """What ``glai train`` did; ``--json`` prints it. Seconds are wall time of each part.

    Attributes:
        task: classification, whose scores are accuracies, or regression, whose scores are R2.
        task_reason: why that one.
        test: NaN where nothing was tested on.
        test_rmse: of values, each output's root mean squared error.
        mlp: scores of the MLP that the energy is compared with; None where none is measured.
        energy: of each phase.
    """

    data: dict[str, Any]
    task: str
    task_reason: str
    settings: dict[str, Any]
    structure: dict[str, Any]
    solver: str
    reason: str
    validation: float
    linear_validation: float
    test: float
    parameters: dict[str, int]
    seconds: dict[str, float]
    folder: str
    test_rmse: float | list[float] | None = None
    mlp: dict[str, float] | None = None
    energy: list[PhaseEnergy] = field(default_factory=list)

    def to_json(self) -> str:
        """Return the report as JSON; null where nothing was held out."""
        # NaN: nothing was held out.
        figures = {name: None if value != value else value for name, value in asdict(self).items()}
        if self.mlp is not None:
            figures["mlp"] = {name: None if value != value else value for name, value in self.mlp.items()}
        figures["energy"] = [phase.to_dict() for phase in self.energy]
        return json.dumps(figures, indent=2, allow_nan=False)


def run_train(
    data: AnyData,
    folder: Path,
    settings: TrainSettings,
    kept: GLAI | PathSelector | None = None,
    *,
    task_reason: str = "as asked",
    progress: bool = True,
    process_group: dist.ProcessGroup | None = None,
    stages: Stages | None = None,
) -> TrainReport:
    """Train a model on the data's training part, test it, and save it.

    Args:
        data: what to learn; ``kept`` learns its classes by their labels.
        folder: new or empty, so that no model is overwritten.
        settings: sizes, solver, seed.
        kept: whose structure is kept; None: one is trained.
        task_reason: why the data's targets are classes, or values.
        progress: bars on standard error.
        process_group: ranks that call this together; the first one trains the structure, and saves the model.
        stages: where a run that may be killed keeps what it has come to; None: nowhere.
    """
    require_new_folder(folder)
    ranks = Ranks("train", process_group)
    if settings.energy and ranks.size > 1:
        raise ValueError("train: energy is measured of one process, not under torchrun")
    if settings.energy and not isinstance(data.x_train, torch.Tensor):
        raise ValueError("--energy compares with an MLP in memory, which these data are too large for")
    if settings.energy and data.has_values:
        raise ValueError("--energy compares with an MLP of classes, and the data's targets are values")
    phases = _Phases(settings)
    y_train, scaling = data.y_train, None
    if data.has_values and not isinstance(kept, GLAI):  # a model has units of its own
        centre, spread = (torch.from_numpy(one) for one in centre_and_spread(y_train.numpy(), None))
        y_train, scaling = ((y_train - centre) / spread).float(), (centre, spread)
    is_new = kept is None
    if kept is None:

        def new_selector() -> PathSelector:
            return train_selector(
                data.x_train,
                y_train,
                data.n_outputs,
                settings.hidden,
                settings.n_components,
                epochs=settings.structure_epochs,
                held_out=VALIDATION_SHARE,
                seed=settings.seed,
                progress=progress,
            )

        with phases.measure("structure"):
            kept = broadcast_selector(
                new_selector if stages is None else lambda: stages.selector(new_selector), process_group
            )
    options: dict[str, Any] = {"solver": settings.solver, "seed": settings.seed, "progress": progress}
    options |= settings.options | {"process_group": process_group, "class_labels": data.classes or None}

    kept_in = {} if stages is None else {"checkpoint": stages.loop}

    def fit_untrained(drawn: PathSelector) -> FitResult:
        kept_in = {} if stages is None else {"checkpoint": stages.untrained_loop}
        solver = solver_of_untrained(settings.solver, settings.options)
        return fit(drawn, data.x_train, y_train, **options | {"solver": solver} | kept_in)

    with phases.measure("estimator"):
        if isinstance(kept, GLAI):
            increment = settings.increment
            result = retrain(kept, data.x_train, y_train, increment=increment, **options | kept_in)
        else:
            result = fit(kept, data.x_train, y_train, **options | kept_in)
            if is_new and ranks.size == 1:
                result = or_untrained(result, len(data.x_train), settings.seed, fit_untrained, progress)
    model = result.model
    if scaling is not None:
        outputs_of(model).set_target_scaling(*scaling)
    selector = model.selector
    keep_names(model, data.names)
    if ranks.is_first:
        model.save(folder)
    test, rmse = _tested(model, data)
    mlp = None
    if settings.energy:
        with phases.measure("MLP"):
            mlp = _train_mlp(selector, data, settings.seed, progress)
    hidden = sum(weight.numel() + bias.numel() for weight, bias in selector.hidden)
    projection = sum(buffer.numel() for buffer in selector.projection.buffers())
    trained = sum(p.numel() for p in model.estimator.parameters()) if isinstance(model, GLAI) else 0
    return TrainReport(
        data={
            "name": data.name,
            "train": len(data.x_train),
            "test": len(data.x_test),
            "features": data.x_train.shape[1],
            **({"outputs": data.n_outputs} if data.has_values else {"classes": data.n_classes}),
            "preparation": None if data.names.preparation is None else data.names.preparation.described(),
        },
        task="regression" if data.has_values else "classification",
        task_reason=task_reason,
        settings=asdict(settings),
        structure={
            "structure_id": selector.structure_id,
            "z_features": selector.z_features,
            "layer_widths": list(selector.widths),
            "paths": selector.n_paths,
            "kept_from": settings.structure,
        },
        solver=result.solver,
        reason=result.reason,
        validation=_score(result.score, data),
        linear_validation=_score(result.linear_score, data),
        test=test,
        test_rmse=rmse,
        parameters={"projection": projection, "selector": hidden, "trained": trained},
        seconds=phases.seconds | result.seconds,
        folder=str(folder),
        mlp=mlp,
        energy=phases.energy,
    )


def _score(score: float, data: AnyData) -> float:
    """Return an accuracy, or R2: the squared error is the sum over targets of variance 1."""
    return 1 + score / data.n_outputs if data.has_values else score


def _tested(model: GLAI | PathKernelModel, data: AnyData) -> tuple[float, Any]:
    """Return accuracy or R2 on the test samples, NaN without, and of values the root mean squared error."""
    if not len(data.x_test):
        return math.nan, None
    found = answers(model, data.x_test, lambda _: None)
    if data.has_values:
        scores = value_scores(found, data.y_test.numpy())
        return (math.nan if scores["r2"] is None else scores["r2"]), scores["rmse"]
    labels = found.classes or []
    numbers = torch.tensor([labels.index(label) for label in data.classes], device="cpu")
    return class_scores(found, numbers[data.y_test].numpy())["accuracy"], None


class _Phases:
    """Seconds of each phase, and where asked for its energy."""

    def __init__(self, settings: TrainSettings) -> None:
        self._settings = settings
        self.seconds: dict[str, float] = {}
        self.energy: list[PhaseEnergy] = []

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        meter = EnergyMeter(name, self._settings.country) if self._settings.energy else None
        with meter or nullcontext():
            started = time.perf_counter()
            yield
            self.seconds[name] = time.perf_counter() - started
        if meter is not None and meter.has_energy:
            self.energy.append(meter.energy)


def _train_mlp(selector: PathSelector, data: AnyData, seed: int, progress: bool) -> dict[str, float]:
    """Return scores of the MLP of the selector's layers, trained from nothing on the same z."""
    assert isinstance(data.x_train, torch.Tensor)
    assert isinstance(data.x_test, torch.Tensor)
    z, y = selector.project(data.x_train), data.y_train
    train, held_out = split_rows(y.numpy(), len(y), max(1, round(len(y) * MLP_VALIDATION)), seed)
    if not len(held_out):  # each sample is the only one of its class
        held_out = train
    validation = z[held_out], y[held_out]
    mlp = train_layers_mlp(
        selector, z[train], y[train], validation, data.n_classes, seed=seed, progress=progress
    )
    return {
        "validation": mlp_accuracy(mlp, *validation),
        "test": mlp_accuracy(mlp, selector.project(data.x_test), data.y_test),
    }
