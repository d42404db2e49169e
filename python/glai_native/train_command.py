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
from glai_native.data import Label, LabelledData, load_data
from glai_native.estimator import ESTIMATOR_FILE
from glai_native.fitting import SOLVERS, fit
from glai_native.learners import train_selector
from glai_native.model import GLAI
from glai_native.path_kernel_model import PathKernelModel
from glai_native.retraining import retrain
from glai_native.structure import STRUCTURE_FILE, PathSelector

TRAIN_EXAMPLES = """\
examples:
  glai train digits --out model                      scikit-learn's digits; solver chosen and explained
  glai train mnist/ --out model --hidden 192         a folder of MNIST's IDX files (plain or .gz)
  glai train data.npz --out model --solver sgd --epochs 5 --seed 1
  glai train data.npz --out model --components 50 --json
re-training, the structure kept byte for byte:
  glai train all.npz --structure model --out again           all data anew
  glai train digits --out model --solver statistics          keeps what increments need
  glai train new.npz --structure model --increment --out more     joins new samples, new classes too
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
        structure: folder of the model whose structure is kept; None: a new one is trained.
        increment: the data join what that model has seen.
    """

    hidden: Sequence[int] = (128,)
    n_components: int | str | None = "auto"
    structure_epochs: int = 20
    solver: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    structure: str | None = None
    increment: bool = False


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
    data: LabelledData,
    folder: Path,
    settings: TrainSettings,
    kept: GLAI | PathSelector | None = None,
    *,
    progress: bool = True,
) -> TrainReport:
    """Trains a model on the data's training part, tests it, and saves it.

    Args:
        data: what to learn; its classes are numbered as those of ``kept``.
        folder: new or empty, so that no model is overwritten.
        settings: sizes, solver, seed.
        kept: whose structure is kept; None: one is trained.
        progress: bars on standard error.
    """
    require_new_folder(folder)
    started = time.perf_counter()
    if kept is None:
        kept = train_selector(
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
    options: dict[str, Any] = {"solver": settings.solver, "seed": settings.seed, "progress": progress}
    options |= settings.options
    if isinstance(kept, GLAI):
        result = retrain(kept, data.x_train, data.y_train, increment=settings.increment, **options)
    else:
        result = fit(kept, data.x_train, data.y_train, **options)
    model = result.model
    selector = model.selector
    if isinstance(model, GLAI):
        model.estimator.class_labels = data.classes
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
            "kept_from": settings.structure,
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
    scores.add_row("linear softmax", _share(report.linear_validation), "")
    scores.add_row(f"GLAI ({report.solver})", _share(report.validation), _share(report.test))
    console.print(scores)
    facts = Table(show_header=False, box=SIMPLE)
    structure = f"{report.structure['layer_widths']} units, {report.structure['paths']} paths"
    if report.structure["kept_from"]:
        structure += f", kept from {report.structure['kept_from']}"
    facts.add_row("structure", structure)
    facts.add_row("parameters", ", ".join(f"{name} {count:,}" for name, count in report.parameters.items()))
    facts.add_row("seconds", ", ".join(f"{name} {value:.2f}" for name, value in report.seconds.items()))
    facts.add_row("solver", report.reason)
    facts.add_row("saved in", report.folder)
    console.print(facts)


def _share(score: float) -> str:
    return "-" if score != score else f"{score:.2%}"


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
        metavar="UNITS",
        help="units of the selector's hidden layers (default: 128)",
    )
    train.add_argument(
        "--components",
        type=components,
        metavar="K",
        help="principal components of x to keep, 'all', or 'auto' (default)",
    )
    train.add_argument("--solver", choices=SOLVERS, default="auto", help="default: %(default)s")
    train.add_argument("--structure-epochs", type=positive_integer, help="at most (default: 20)")
    train.add_argument(
        "--structure",
        type=Path,
        metavar="FOLDER",
        help="re-train: keep the structure of this model, and start from its numbers",
    )
    train.add_argument(
        "--increment",
        action="store_true",
        help="DATA join what the model of --structure has seen, instead of being all there is",
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
    if arguments.increment and arguments.structure is None:
        raise ValueError("--increment needs --structure FOLDER, the model that the data are added to")
    shape = {
        "hidden": arguments.hidden,
        "n_components": arguments.components,
        "structure_epochs": arguments.structure_epochs,
    }
    shape = {name: value for name, value in shape.items() if value is not None}
    if arguments.structure is not None and shape:
        raise ValueError(
            "--hidden, --components and --structure-epochs are of a new structure, not of --structure"
        )
    require_new_folder(arguments.out)
    kept = None if arguments.structure is None else _load_kept(arguments.structure)
    options = {name: getattr(arguments, name) for name in ("epochs", "learning_rate", "l2")}
    settings = TrainSettings(
        **shape,
        solver=arguments.solver,
        options={name: value for name, value in options.items() if value is not None},
        seed=arguments.seed,
        structure=None if kept is None else str(arguments.structure),
        increment=arguments.increment,
    )
    data = load_data(arguments.data, arguments.seed, known_classes(kept))
    report = run_train(data, arguments.out, settings, kept)
    if arguments.json:
        print(report.to_json())
    else:
        print_train_report(report, Console())
    return 0


def _load_kept(folder: Path) -> GLAI | PathSelector:
    """The model in a folder; of a path kernel's model, or where there is no estimator, the structure."""
    if (folder / ESTIMATOR_FILE).exists():
        return GLAI.load(folder)
    return PathSelector.load(folder / STRUCTURE_FILE)


def known_classes(kept: GLAI | PathSelector | None) -> Sequence[Label]:
    """Labels of a model's outputs, which data that it is re-trained on must be numbered by."""
    if not isinstance(kept, GLAI):
        return ()
    return kept.estimator.class_labels or list(range(kept.estimator.out_features))
