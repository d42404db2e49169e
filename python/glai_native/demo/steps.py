"""What the demo does, step by step."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TaskID
from torch import Tensor, nn

from glai_native.backend import build_info
from glai_native.data import LabelledData
from glai_native.demo.figures import (
    DemoReport,
    DemoSettings,
    Structure,
    Training,
    glai_parameters,
    mlp_parameters,
    units_for,
)
from glai_native.estimator import PathEstimator
from glai_native.files import write_files
from glai_native.gates import PackedGates
from glai_native.merge import merge
from glai_native.model import GLAI
from glai_native.ops import path_gates
from glai_native.store import GateStore
from glai_native.structure import InputProjection, PathSelector
from glai_native.training import StructureMonitor, epoch_progress, train_structure

REPORT_FILE = "report.json"
SCALES = {"equal parameters": 1, "4x parameters": 4}
NEW_SHARE = 0.3  # of the training samples, held back as "new" for re-training


def run_demo(
    data: LabelledData, folder: Path, settings: DemoSettings, *, progress: bool = True
) -> DemoReport:
    """Runs everything and leaves model, gates and report in ``folder``.

    Args:
        data: what to learn.
        folder: made if need be; one that an earlier demo left is replaced, any other that is not empty refused.
        settings: sizes, epochs, seed.
        progress: show bars on standard error.
    """
    started = time.perf_counter()
    _prepare(folder)
    demo = _Demo(data, settings)
    report = DemoReport(
        data={
            "name": data.name,
            "train": len(demo.base),
            "new": len(demo.new),
            "test": len(data.x_test),
            "features": data.x_train.shape[1],
            "classes": data.n_classes,
        },
        settings=asdict(settings)
        | {"epochs": demo.epochs, "batch_size": demo.batch_size, "learning_rate": demo.learning_rate},
        build=build_info(),
        models=[],
        structures=[],
        conversion=[],
        retraining=[],
        merging=[],
        folder=str(folder),
    )
    with epoch_progress(progress) as bar:
        demo.bar, demo.task = bar, bar.add_task("", total=demo.total_epochs)
        mlp = demo.controls(report)
        for scale, factor in SCALES.items():
            demo.glai(report, scale, factor, folder if factor == 1 else folder / f"x{factor}")
        demo.retrain_mlp(report, mlp)
    report.seconds = time.perf_counter() - started
    write_files({folder / REPORT_FILE: (report.to_json() + "\n").encode()})
    return report


def _prepare(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: must be a folder, got a file")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / REPORT_FILE).exists():
            raise ValueError(
                f"{folder}: the folder is not empty and no earlier demo left it, choose another with --out"
            )
        for gates in (folder / "gates", *folder.glob("x*/gates")):
            shutil.rmtree(gates, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


class _Demo:
    """The data on both sides of the projection, and the steps that share it."""

    bar: Progress
    task: TaskID

    def __init__(self, data: LabelledData, settings: DemoSettings) -> None:
        self.data, self.settings = data, settings
        order = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(settings.seed))
        n_new = int(len(order) * NEW_SHARE)
        self.new, self.base = order[:n_new], order[n_new:]
        if not len(self.new) or len(self.base) < 2:
            raise ValueError(f"{data.name}: the demo needs at least 4 training samples, got {len(order)}")
        self.projection = InputProjection.fit(data.x_train[self.base])
        self.z = self.projection(data.x_train)
        self.z_test = self.projection(data.x_test)
        self.epochs = settings.epochs_for(len(self.base))
        self.batch_size = settings.batch_size_for(len(self.base))
        self.learning_rate = settings.learning_rate_for(len(self.base))
        self.retrain_epochs = max(1, self.epochs // 3)

    @property
    def total_epochs(self) -> int:
        """Trainings of the estimators and the controls: what the bar counts."""
        each_scale = 2 * self.epochs + self.retrain_epochs
        first_scale = 2 * self.epochs  # two halves, merged
        return 2 * self.epochs + len(SCALES) * each_scale + first_scale + self.retrain_epochs

    # --- 1. the controls ---

    def controls(self, report: DemoReport) -> nn.Module:
        d, c, hidden = self.z.shape[1], self.data.n_classes, self.settings.hidden
        torch.manual_seed(self.settings.seed)
        linear = nn.Linear(d, c)
        mlp = nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, c))
        for name, model in (("linear softmax", linear), (f"MLP, {hidden} units", mlp)):
            size = sum(p.numel() for p in model.parameters())
            training = Training(name, size, size)
            self._train_network(training, model, self.base)
            report.models.append(training)
        return mlp

    def _train_network(
        self, training: Training, model: nn.Module, samples: Tensor, epochs: int | None = None
    ) -> None:
        z = self.z[samples]
        self._train(
            training,
            model,
            lambda ids: model(z[ids]),
            lambda: _accuracy(model(self.z_test), self.data.y_test),
            samples,
            epochs,
        )

    # --- 2 to 6, at one size ---

    def glai(self, report: DemoReport, scale: str, factor: int, folder: Path) -> None:
        d, c = self.z.shape[1], self.data.n_classes
        units = units_for(d, c, factor * mlp_parameters(d, self.settings.hidden, c))
        selector, store = self._structure(report, scale, units, folder)
        estimator = self._convert(report, scale, selector)

        gates = store.batch(range(len(store)))  # of base, in its order
        test_gates = path_gates(selector.unit_gates_of(self.z_test))
        name = f"GLAI, {units} units ({scale})"
        learned = self._estimator_training(name, units)
        self._train_estimator(learned, estimator, self.base, gates, test_gates)
        estimator.record(gates, self.data.y_train[self.base])
        report.models.append(learned)

        torch.manual_seed(self.settings.seed + 1)
        random = PathSelector(self._network(units), self.projection)
        random_gates, random_test = (
            path_gates(random.unit_gates_of(z)) for z in (self.z[self.base], self.z_test)
        )
        control = self._estimator_training(f"  control: {units} random frozen gates", units)
        self._train_estimator(control, PathEstimator(units + 1, d, c), self.base, random_gates, random_test)
        report.models.append(control)

        if factor == 1:
            self._merge(report, selector, gates, test_gates, learned)
        self._retrain(report, name, selector, estimator, store, test_gates)
        GLAI(selector, estimator).save(folder, overwrite=True)

    def _network(self, units: int) -> nn.Sequential:
        d, c = self.z.shape[1], self.data.n_classes
        return nn.Sequential(nn.Linear(d, units), nn.ReLU(), nn.Linear(units, c))

    def _estimator_training(self, name: str, units: int) -> Training:
        return Training(name, *glai_parameters(self.z.shape[1], units, self.data.n_classes))

    # --- 2. a structure, trained until it settles, its gates captured ---

    def _structure(
        self, report: DemoReport, scale: str, units: int, folder: Path
    ) -> tuple[PathSelector, GateStore]:
        torch.manual_seed(self.settings.seed)
        monitor = StructureMonitor()
        self.bar.update(self.task, description=f"structure, {units} units")
        start = time.perf_counter()
        selector = train_structure(
            self._network(units),
            self.data.x_train[self.base],
            self.data.y_train[self.base],
            self.projection,
            monitor,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.settings.seed,
            progress=False,
            on_epoch=lambda e: self.bar.update(
                self.task, description=f"structure, {units} units: epoch {e.epoch}, {e.flip_rate:.1%} flips"
            ),
        )
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        store = GateStore.create(folder / "gates", selector)
        store.append(selector.unit_gates_of(self.z[self.base]))
        capture = time.perf_counter() - start
        gates = store.batch(range(len(store)))
        report.structures.append(
            Structure(
                scale=scale,
                widths=list(selector.widths),
                settled=monitor.settled,
                seconds=seconds,
                epochs=[asdict(epoch) for epoch in monitor.history],
                density=gates.density(),
                deviation=gates.deviation(),
                bytes_per_sample=store.bytes_per_sample,
                capture_seconds=capture,
                structure_id=selector.structure_id,
            )
        )
        return selector, store

    # --- 3. the network as an estimator: the same function ---

    def _convert(self, report: DemoReport, scale: str, selector: PathSelector) -> PathEstimator:
        row: dict[str, Any] = {"scale": scale}
        for dtype in (torch.float32, torch.float64):
            network = copy.deepcopy(selector).to(dtype)
            converted = GLAI(network, PathEstimator.from_selector(network))
            x = self.data.x_test.to(dtype)
            with torch.no_grad():
                expected = network(x)
                difference = float((converted(x) - expected).abs().max())
            kind = str(dtype).removeprefix("torch.")
            row[f"difference_{kind}"] = difference
            row[f"relative_{kind}"] = difference / float(expected.abs().max())
        row["accuracy"] = _accuracy(expected, self.data.y_test)
        report.conversion.append(row)
        return PathEstimator.from_selector(selector)

    # --- 4. training the estimator: a plain PyTorch loop over native kernels ---

    def _train_estimator(
        self,
        training: Training,
        estimator: PathEstimator,
        samples: Tensor,
        gates: PackedGates,
        test_gates: PackedGates,
        epochs: int | None = None,
    ) -> None:
        z = self.z[samples]
        self._train(
            training,
            estimator,
            lambda ids: estimator(z[ids], gates[ids]),
            lambda: _accuracy(estimator(self.z_test, test_gates), self.data.y_test),
            samples,
            epochs,
        )

    def _train(
        self,
        training: Training,
        model: nn.Module,
        forward: Callable[[Tensor], Tensor],
        test: Callable[[], float],
        samples: Tensor,
        epochs: int | None = None,
    ) -> None:
        """Adam on cross-entropy, the rate falling to zero; ``forward`` takes positions within ``samples``."""
        y = self.data.y_train[samples]
        epochs = epochs or self.epochs
        n_steps = epochs * -(-len(y) // self.batch_size)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=n_steps)
        generator = torch.Generator().manual_seed(self.settings.seed)
        training.curve = [(0.0, _evaluate(test))]
        for _ in range(epochs):
            start = time.perf_counter()
            for ids in _batches(len(y), self.batch_size, generator):
                loss = nn.functional.cross_entropy(forward(ids), y[ids])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            training.seconds += time.perf_counter() - start
            training.curve.append((training.seconds, _evaluate(test)))
            self.bar.update(self.task, advance=1, description=training.name.strip())
        training.accuracy = training.curve[-1][1]

    # --- 5. new samples: the structure stays, only numbers move ---

    def _retrain(
        self,
        report: DemoReport,
        name: str,
        selector: PathSelector,
        estimator: PathEstimator,
        store: GateStore,
        test_gates: PackedGates,
    ) -> None:
        start = time.perf_counter()
        store.append(selector.unit_gates_of(self.z[self.new]))
        capture = time.perf_counter() - start
        samples = torch.cat([self.base, self.new])
        gates = store.batch(range(len(store)))
        training = Training(name, 0, 0)
        self._train_estimator(training, estimator, samples, gates, test_gates, self.retrain_epochs)
        estimator.record(gates[len(self.base) :], self.data.y_train[self.new])
        report.retraining.append(self._retraining_row(training, capture))

    def retrain_mlp(self, report: DemoReport, mlp: nn.Module) -> None:
        samples = torch.cat([self.base, self.new])
        training = Training(report.models[1].name, 0, 0)
        self._train_network(training, mlp, samples, self.retrain_epochs)
        report.retraining.insert(0, self._retraining_row(training, 0.0))

    def _retraining_row(self, training: Training, capture_seconds: float) -> dict[str, Any]:
        return {
            "name": training.name,
            "epochs": self.retrain_epochs,
            "capture_seconds": capture_seconds,
            "seconds": capture_seconds + training.seconds,
            "accuracy_before": training.curve[0][1],
            "accuracy_after": training.accuracy,
        }

    # --- 6. two halves, trained apart, merged by samples ---

    def _merge(
        self,
        report: DemoReport,
        selector: PathSelector,
        gates: PackedGates,
        test_gates: PackedGates,
        on_all: Training,
    ) -> None:
        halves = []
        middle = len(self.base) // 2
        for name, rows in (("half A", slice(0, middle)), ("half B", slice(middle, None))):
            half = PathEstimator.from_selector(selector)
            training = Training(name, 0, 0)
            self._train_estimator(training, half, self.base[rows], gates[rows], test_gates)
            half.record(gates[rows], self.data.y_train[self.base[rows]])
            halves.append(half)
            report.merging.append(
                {"name": name, "samples": int(half.samples_seen), "accuracy": training.accuracy}
            )
        merged = merge(halves, method="samples")
        accuracy = _evaluate(lambda: _accuracy(merged(self.z_test, test_gates), self.data.y_test))
        report.merging.append({"name": "merged", "samples": int(merged.samples_seen), "accuracy": accuracy})
        report.merging.append(
            {"name": "trained on all", "samples": len(self.base), "accuracy": on_all.accuracy}
        )


def _batches(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    yield from torch.randperm(n, generator=generator).split(batch_size)


@torch.no_grad()
def _evaluate(test: Callable[[], float]) -> float:
    return test()


def _accuracy(logits: Tensor, y: Tensor) -> float:
    return float((logits.argmax(1) == y).double().mean())
