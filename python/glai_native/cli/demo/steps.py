"""What the demo does, step by step."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from rich.progress import Progress, TaskID
from torch import Tensor, nn

from glai_native.cli.demo.figures import DemoReport, DemoSettings, Structure, Training
from glai_native.cli.demo.learn_forget_merge import learn_forget_merge, n_steps
from glai_native.cli.demo.trainer import Inputs, Trainer
from glai_native.data.labelled import LabelledData
from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.parameters import glai_parameters, mlp_parameters, units_for
from glai_native.gates.packed import PackedGates
from glai_native.gates.packing import path_gates
from glai_native.gates.store import GateStore
from glai_native.machine.backend import build_info
from glai_native.machine.progress import epoch_progress
from glai_native.machine.writing import write_files
from glai_native.model.glai import GLAI
from glai_native.model.merging import merge
from glai_native.structure.network import relu_network
from glai_native.structure.projection import InputProjection
from glai_native.structure.selector import PathSelector
from glai_native.structure.settling import StructureMonitor, train_structure

MARKER = ".glai-demo"
REPORT_FILE = "report.json"
SCALES = {"equal parameters": 1, "4x parameters": 4}
NEW_SHARE = 0.3  # of the training samples, held back as "new" for re-training
N_TRAININGS = 15  # what the bar counts: 2 controls, 5 a scale, 2 halves, the MLP again


def run_demo(
    data: LabelledData, folder: Path, settings: DemoSettings, *, progress: bool = True
) -> DemoReport:
    """Run everything, and leave model, gates and report in ``folder``.

    Args:
        data: what to learn.
        folder: made if need be; what an earlier demo left in it is replaced, any other that is not empty refused.
        settings: sizes, epochs, seed.
        progress: show bars on standard error.
    """
    started = time.perf_counter()
    _prepare(folder)
    with epoch_progress(progress) as bar:
        demo = _Demo(data, settings, bar, bar.add_task("", total=N_TRAININGS + n_steps(settings)))
        report = demo.report
        report.folder = str(folder)
        mlp, mlp_training = demo.controls()
        for scale, factor in SCALES.items():
            demo.glai(scale, factor, folder if factor == 1 else folder / f"x{factor}")
        demo.retrain_mlp(mlp, mlp_training)
        report.learn_forget_merge = learn_forget_merge(
            data, demo.base, settings, demo.trainer, mlp_training.rate
        )
    report.seconds = time.perf_counter() - started
    write_files({folder / REPORT_FILE: (report.to_json() + "\n").encode()})
    return report


def _prepare(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: must be a folder, got a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise ValueError(f"{folder}: the folder is not empty and no demo made it, choose another with --out")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    (folder / "demo.png").unlink(missing_ok=True)
    for factor in SCALES.values():
        gates = folder / "gates" if factor == 1 else folder / f"x{factor}" / "gates"
        for file in gates.glob("*.safetensors"):
            file.unlink()


class _Demo:
    """The data on both sides of the projection, and the steps that share it."""

    def __init__(self, data: LabelledData, settings: DemoSettings, bar: Progress, task: TaskID) -> None:
        self.data, self.settings = data, settings
        order = torch.randperm(
            len(data.x_train), generator=torch.Generator().manual_seed(settings.seed), device="cpu"
        )
        n_new = int(len(order) * NEW_SHARE)
        self.new, self.base = order[:n_new], order[n_new:]
        if len(order) < 10:
            raise ValueError(f"{data.name}: the demo needs at least 10 training samples, got {len(order)}")
        self.projection = InputProjection.fit(data.x_train[self.base])
        self.z = self.projection(data.x_train).float()
        self.z_test = self.projection(data.x_test).float()
        self.y = data.y_train
        self.trainer = Trainer(settings, len(self.base), bar, task)
        self.retrain_epochs = max(1, self.trainer.epochs // 3)
        self.report = DemoReport(
            data={
                "name": data.name,
                "train": len(self.base),
                "new": len(self.new),
                "test": len(data.x_test),
                "features": data.x_train.shape[1],
                "classes": data.n_classes,
            },
            settings=asdict(settings)
            | {"epochs": self.trainer.epochs, "batch_size": self.trainer.batch_size},
            build=build_info(),
            models=[],
            structures=[],
            conversion=[],
            retraining=[],
            merging=[],
            folder="",
        )

    # --- 1. the controls ---

    def controls(self) -> tuple[nn.Module, Training]:
        d, c, hidden = self.z.shape[1], self.data.n_classes, self.settings.hidden
        torch.manual_seed(self.settings.seed)
        linear = relu_network([d, c])[0]
        mlp = relu_network([d, hidden, c])
        for name, model in (("linear softmax", linear), (f"MLP, {hidden} units", mlp)):
            size = sum(p.numel() for p in model.parameters())
            training = Training(name, size, size)
            self._fit(training, model, Inputs(self.z[self.base]), Inputs(self.z_test))
            self.report.models.append(training)
        return mlp, training

    # --- 2 to 6, at one size ---

    def glai(self, scale: str, factor: int, folder: Path) -> None:
        d, c = self.z.shape[1], self.data.n_classes
        units = units_for(d, c, factor * mlp_parameters(d, self.settings.hidden, c))
        selector, store = self._structure(scale, units, folder)
        estimator = self._convert(scale, selector)

        inputs = Inputs(self.z[self.base], store.batch(range(len(store))))  # of base, in its order
        test = Inputs(self.z_test, path_gates(selector.unit_gates_of(self.z_test)))
        learned = self._estimator_training(f"GLAI, {units} units", units, scale)
        self._fit(learned, estimator, inputs, test)
        estimator.record(cast(PackedGates, inputs.gates), self.y[self.base])
        from_zero = self._estimator_training("  same gates, from zero", units, scale)
        self._fit(from_zero, self._zeros(selector), inputs, test)

        torch.manual_seed(self.settings.seed + 1)
        random = PathSelector(self._network(units), self.projection)
        random_inputs, random_test = (
            Inputs(z, path_gates(random.unit_gates_of(z))) for z in (self.z[self.base], self.z_test)
        )
        control = self._estimator_training("  random gates, from zero", units, scale)
        self._fit(control, self._zeros(random), random_inputs, random_test)
        self.report.models += [learned, from_zero, control]

        if factor == 1:
            self._merge(selector, inputs, test, from_zero)
        self._retrain(learned, selector, estimator, store, test)
        GLAI(selector, estimator).save(folder, overwrite=True)

    def _network(self, units: int) -> nn.Sequential:
        d, c = self.z.shape[1], self.data.n_classes
        return relu_network([d, units, c])

    def _zeros(self, selector: PathSelector) -> PathEstimator:
        return PathEstimator(
            selector.n_paths,
            selector.z_features,
            self.data.n_classes,
            structure_id=selector.structure_id,
            device="cpu",
        )

    def _estimator_training(self, name: str, units: int, scale: str) -> Training:
        return Training(name, *glai_parameters(self.z.shape[1], units, self.data.n_classes), scale)

    # --- 2. a structure, trained until it settles, its gates captured ---

    def _structure(self, scale: str, units: int, folder: Path) -> tuple[PathSelector, GateStore]:
        torch.manual_seed(self.settings.seed)
        monitor = StructureMonitor()
        start = time.perf_counter()
        selector = train_structure(
            self._network(units),
            self.data.x_train[self.base],
            self.y[self.base],
            self.projection,
            monitor,
            batch_size=self.trainer.batch_size,
            seed=self.settings.seed,
            progress=False,
            on_epoch=lambda e: self.trainer.show(
                f"structure, {units} units: epoch {e.epoch}, {e.flip_rate:.1%} flips"
            ),
        )
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        store = GateStore.create(folder / "gates", selector)
        store.append(selector.unit_gates_of(self.z[self.base]))
        capture = time.perf_counter() - start
        gates = store.batch(range(len(store)))
        self.report.structures.append(
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
        self.trainer.advance()
        return selector, store

    # --- 3. the network as an estimator: the same function ---

    def _convert(self, scale: str, selector: PathSelector) -> PathEstimator:
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
        row["accuracy"] = float((expected.argmax(1) == self.data.y_test).double().mean())
        self.report.conversion.append(row)
        return PathEstimator.from_selector(selector)

    # --- 4. training ---

    def _fit(self, training: Training, model: nn.Module, inputs: Inputs, test: Inputs) -> None:
        """Trains on base with the rate that did best on a part of it."""
        y = self.y[self.base]
        training.rate = self.trainer.choose_rate(training.name, model, inputs, y)
        self._train(training, model, inputs, y, test)

    def _train(
        self,
        training: Training,
        model: nn.Module,
        inputs: Inputs,
        y: Tensor,
        test: Inputs,
        epochs: int | None = None,
    ) -> None:
        self.trainer.train(training, model, inputs, y, test, self.data.y_test, epochs)

    # --- 5. new samples: the structure stays, only numbers move ---

    def _retrain(
        self,
        learned: Training,
        selector: PathSelector,
        estimator: PathEstimator,
        store: GateStore,
        test: Inputs,
    ) -> None:
        start = time.perf_counter()
        store.append(selector.unit_gates_of(self.z[self.new]))
        capture = time.perf_counter() - start
        samples = torch.cat([self.base, self.new])
        gates = store.batch(range(len(store)))
        training = Training(learned.name, 0, 0, learned.scale, learned.rate)
        inputs = Inputs(self.z[samples], gates)
        self._train(training, estimator, inputs, self.y[samples], test, self.retrain_epochs)
        estimator.record(gates[len(self.base) :], self.y[self.new])
        self.report.retraining.append(self._retraining_row(training, capture))

    def retrain_mlp(self, mlp: nn.Module, first: Training) -> None:
        samples = torch.cat([self.base, self.new])
        training = Training(first.name, 0, 0, rate=first.rate)
        test = Inputs(self.z_test)
        self._train(training, mlp, Inputs(self.z[samples]), self.y[samples], test, self.retrain_epochs)
        self.report.retraining.insert(0, self._retraining_row(training, 0.0))

    def _retraining_row(self, training: Training, capture_seconds: float) -> dict[str, Any]:
        return {
            "name": training.name,
            "epochs": self.retrain_epochs,
            "capture_seconds": capture_seconds,
            "seconds": capture_seconds + training.seconds,
            "accuracy_before": training.curve[0][1],
            "accuracy_after": training.accuracy,
        }

    # --- 6. two halves, trained apart from zero, merged by samples ---

    def _merge(self, selector: PathSelector, inputs: Inputs, test: Inputs, on_all: Training) -> None:
        halves, rows = [], self.report.merging
        middle = len(self.base) // 2
        for name, part in (("half A", slice(0, middle)), ("half B", slice(middle, None))):
            half = self._zeros(selector)
            training = Training(name, 0, 0, rate=on_all.rate)
            self._train(training, half, inputs[part], self.y[self.base[part]], test)
            half.record(cast(PackedGates, inputs[part].gates), self.y[self.base[part]])
            halves.append(half)
            rows.append({"name": name, "samples": int(half.samples_seen), "accuracy": training.accuracy})
        merged = merge(halves, method="samples")
        accuracy, _ = test.test(merged, self.data.y_test)
        rows.append({"name": "merged", "samples": int(merged.samples_seen), "accuracy": accuracy})
        rows.append({"name": "trained on all", "samples": len(self.base), "accuracy": on_all.accuracy})
