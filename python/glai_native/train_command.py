"""``glai train``: structure, numbers, test, files."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from glai_native.command import add_command, add_out, positive_integer, require_new_folder, seed
from glai_native.data import LabelledData, load_data
from glai_native.fitting import SOLVERS, fit
from glai_native.learners import train_selector
from glai_native.model import GLAI
from glai_native.path_kernel_model import PathKernelModel

TRAIN_EXAMPLES = """\
examples:
  glai train digits --out model                      scikit-learn's digits; solver chosen and explained
  glai train mnist/ --out model --hidden 192         a folder of MNIST's IDX files (plain or .gz)
  glai train data.npz --out model --solver sgd --epochs 5 --seed 1
  glai train data.npz --out model --components 50 --json
"""


@dataclass(frozen=True)
class TrainSettings:
    """What ``glai train`` is told.

    Attributes:
        hidden: units of the selector's hidden layers.
        n_components: as :func:`~glai_native.learners.train_selector`.
        structure_epochs: at most.
        solver: as :func:`~glai_native.fit`.
        options: of the solver.
        seed: of everything.
    """

    hidden: Sequence[int] = (128,)
    n_components: int | str | None = "auto"
    structure_epochs: int = 20
    solver: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class TrainReport:
    """What ``glai train`` did; ``--json`` prints it. Scores are accuracies, seconds wall time of each part."""

    data: dict[str, Any]
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

    def to_json(self) -> str:
        """The report as JSON; null where nothing was held out."""
        figures = {
            name: None if value != value else value for name, value in asdict(self).items()
        }  # NaN: none
        return json.dumps(figures, indent=2, allow_nan=False)


def run_train(
    data: LabelledData, folder: Path, settings: TrainSettings, *, progress: bool = True
) -> TrainReport:
    """Trains a model on the data's training part, tests it, and saves it.

    Args:
        data: what to learn.
        folder: new or empty, so that no model is overwritten.
        settings: sizes, solver, seed.
        progress: bars on standard error.
    """
    require_new_folder(folder)
    started = time.perf_counter()
    selector = train_selector(
        data.x_train,
        data.y_train,
        data.n_classes,
        settings.hidden,
        settings.n_components,
        epochs=settings.structure_epochs,
        seed=settings.seed,
        progress=progress,
    )
    seconds = {"structure": time.perf_counter() - started}
    result = fit(
        selector,
        data.x_train,
        data.y_train,
        solver=settings.solver,
        seed=settings.seed,
        progress=progress,
        **settings.options,
    )
    model = result.model
    model.save(folder)
    with torch.no_grad():
        scores = model.predict(data.x_test) if isinstance(model, PathKernelModel) else model(data.x_test)
    hidden = sum(weight.numel() + bias.numel() for weight, bias in selector.hidden)
    projection = sum(buffer.numel() for buffer in selector.projection.buffers())
    trained = sum(p.numel() for p in model.estimator.parameters()) if isinstance(model, GLAI) else 0
    return TrainReport(
        data={
            "name": data.name,
            "train": len(data.x_train),
            "test": len(data.x_test),
            "features": data.x_train.shape[1],
            "classes": data.n_classes,
        },
        settings=asdict(settings),
        structure={
            "structure_id": selector.structure_id,
            "z_features": selector.z_features,
            "layer_widths": list(selector.widths),
            "paths": selector.n_paths,
        },
        solver=result.solver,
        reason=result.reason,
        validation=result.score,
        linear_validation=result.linear_score,
        test=float((scores.argmax(1) == data.y_test).double().mean()),
        parameters={"projection": projection, "selector": hidden, "trained": trained},
        seconds=seconds | result.seconds,
        folder=str(folder),
    )


def print_train_report(report: TrainReport, console: Console) -> None:
    """The report as tables."""
    scores = Table(title=f"{report.data['name']}: accuracy", box=SIMPLE)
    for heading in ("", "held out", "test"):
        scores.add_column(heading, justify="left" if not heading else "right")
    scores.add_row("linear softmax", f"{report.linear_validation:.2%}", "")
    scores.add_row(f"GLAI ({report.solver})", f"{report.validation:.2%}", f"{report.test:.2%}")
    console.print(scores)
    facts = Table(show_header=False, box=SIMPLE)
    facts.add_row("structure", f"{report.structure['layer_widths']} units, {report.structure['paths']} paths")
    facts.add_row("parameters", ", ".join(f"{name} {count:,}" for name, count in report.parameters.items()))
    facts.add_row("seconds", ", ".join(f"{name} {value:.2f}" for name, value in report.seconds.items()))
    facts.add_row("solver", report.reason)
    facts.add_row("saved in", report.folder)
    console.print(facts)


def add_train_command(commands: Any) -> None:
    """Adds ``train`` to the command line's subparsers."""
    train = add_command(commands, "train", "train a model on your data and save it", TRAIN_EXAMPLES, _train)
    train.add_argument(
        "data", type=Path, metavar="DATA", help="'digits', a folder of MNIST IDX files, or .npz with x, y"
    )
    add_out(train)
    train.add_argument(
        "--hidden",
        type=positive_integer,
        nargs="+",
        default=[128],
        metavar="UNITS",
        help="units of the selector's hidden layers (default: 128)",
    )
    train.add_argument(
        "--components",
        type=components,
        default="auto",
        metavar="K",
        help="principal components of x to keep, 'all', or 'auto' (default)",
    )
    train.add_argument("--solver", choices=SOLVERS, default="auto", help="default: %(default)s")
    train.add_argument(
        "--structure-epochs", type=positive_integer, default=20, help="at most (default: %(default)s)"
    )
    train.add_argument(
        "--epochs",
        type=positive_integer,
        help="of the native loop, at most (default: 10 or more)",
    )
    train.add_argument("--learning-rate", type=float, help="of the native loop (default: 0.001)")
    train.add_argument("--l2", type=float, help="of the closed forms (default: chosen)")
    train.add_argument("--seed", type=seed, default=0, help="default: %(default)s")


def components(text: str) -> int | str | None:
    """How many principal components: a number >= 1, "all" or "auto"."""
    return {"auto": "auto", "all": None}[text] if text in ("auto", "all") else positive_integer(text)


def _train(arguments: argparse.Namespace) -> int:
    options = {name: getattr(arguments, name) for name in ("epochs", "learning_rate", "l2")}
    settings = TrainSettings(
        hidden=arguments.hidden,
        n_components=arguments.components,
        structure_epochs=arguments.structure_epochs,
        solver=arguments.solver,
        options={name: value for name, value in options.items() if value is not None},
        seed=arguments.seed,
    )
    report = run_train(load_data(arguments.data, arguments.seed), arguments.out, settings)
    if arguments.json:
        print(report.to_json())
    else:
        print_train_report(report, Console())
    return 0
