"""What ``glai train`` is told is checked here before the work, and what came of it is printed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from glai_native.cli.command import require_new_folder, tell_unknown
from glai_native.cli.models import name_outputs
from glai_native.cli.train.exact_streaming import is_streamed
from glai_native.cli.train.run import TrainReport, TrainSettings, run_train
from glai_native.cli.train.samples import read_samples
from glai_native.cli.train.streaming import stored_data
from glai_native.data.labelled import AnyData, as_tensors
from glai_native.data.labels import Label
from glai_native.data.tables import NO_TABLE, TableNames
from glai_native.data.targets import Task
from glai_native.estimator.file import ESTIMATOR_FILE
from glai_native.machine.energy import energy_table
from glai_native.machine.files import crc32
from glai_native.machine.ranks import Ranks
from glai_native.machine.writing import find_file
from glai_native.model.glai import GLAI
from glai_native.solvers.dual.file import PATH_KERNEL_FILE
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.solvers.exact.file import EXACT_FILE
from glai_native.solvers.names import SOLVERS_OF
from glai_native.structure.selector import STRUCTURE_FILE, PathSelector
from glai_native.training.distributed import torchrun_group
from glai_native.training.fitting import halves
from glai_native.training.stages import Stages
from glai_native.training.tables import names_of

KNOWN_ROWS = 4096  # that say whether the data are those that a run began with


def train(arguments: argparse.Namespace) -> int:
    """Run ``glai train`` on all processes of torchrun, or on this one alone; return the exit status."""
    try:
        with torchrun_group() as group:
            return _train_in(group, arguments)
    except FloatingPointError as error:
        raise ValueError(str(error).replace("learning_rate", "--learning-rate")) from None


def _train_in(group: dist.ProcessGroup | None, arguments: argparse.Namespace) -> int:
    if arguments.increment and arguments.structure is None:
        raise ValueError("--increment needs --structure FOLDER, the model that the data are added to")
    shape = {
        "hidden": arguments.hidden,
        "n_components": arguments.components,
        "structure_epochs": arguments.structure_epochs,
    }
    shape = {name: value for name, value in shape.items() if value is not None}
    if arguments.country is not None and not arguments.energy:
        raise ValueError("--country needs --energy")
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
        energy=arguments.energy,
        country=arguments.country,
    )
    ranks = Ranks("train", group)
    stages_folder = _stages_folder(arguments, ranks)
    with _training_data(arguments, kept) as (data, task):
        if isinstance(kept, GLAI) and not data.has_values:
            name_outputs(kept, arguments.structure, data.name, data.classes)
        _require_options(settings, kept, data, ranks.size, stages_folder is not None)
        stages = None
        if stages_folder is not None:
            stages = Stages(stages_folder, _begun(arguments, settings, kept, data), ranks.is_first)
        report = run_train(
            data,
            arguments.out,
            settings,
            kept,
            task_reason=task.reason,
            process_group=group,
            stages=stages,
        )
    if not ranks.is_first:
        return 0
    if stages is not None:
        stages.remove()
    if arguments.json:
        print(report.to_json())
    else:
        print_train_report(report, Console())
    return 0


@contextmanager
def _training_data(
    arguments: argparse.Namespace, kept: GLAI | PathSelector | None
) -> Iterator[tuple[AnyData, Task]]:
    """Read the data, or open those that need not fit in memory."""
    known, centred_in = _known_names(kept, arguments.structure), _centred_in(kept)
    has_values = kept.estimator.has_values if isinstance(kept, GLAI) else None
    if is_streamed(arguments):
        classes = _known_classes(kept)
        with stored_data(arguments, known, has_values, classes, centred_in) as found:
            yield found
        return
    samples = read_samples(arguments, known, has_values, centred_in)
    tell_unknown(samples.source)
    yield as_tensors(samples, _known_classes(kept), centred_in), samples.task


def _stages_folder(arguments: argparse.Namespace, ranks: Ranks) -> Path | None:
    """Return where ``--checkpoint`` and ``--resume`` keep what the training has come to; None: nowhere.

    Raises:
        ValueError: there is nothing to go on with, or something that nobody has asked to go on with.
    """
    if arguments.checkpoint is None and not arguments.resume:
        return None
    folder = Path(arguments.out).parent / f"{Path(arguments.out).name}.checkpoint"
    with ranks.together():
        if arguments.resume and not Stages.are_in(folder):
            raise ValueError(f"nothing to resume: there is no {folder}")
        if ranks.is_first and folder.exists() and not arguments.resume:
            raise ValueError(
                f"{folder}: holds what a run that was ended had come to; --resume goes on with it"
            )
    return folder


def _begun(
    arguments: argparse.Namespace, settings: TrainSettings, kept: GLAI | PathSelector | None, data: AnyData
) -> dict[str, Any]:
    """Return what a run is known by that another goes on from: all that decides its numbers."""
    told = ("label", "task", "categories", "drop", "no_preparation", "test", "test_share")
    n = len(data.x_train)
    some = np.unique(np.linspace(0, n - 1, KNOWN_ROWS).astype(np.int64))
    x = data.x_train[some] if isinstance(data.x_train, torch.Tensor) else data.x_train.read(some)
    return asdict(settings) | {
        "data": str(arguments.data.resolve()),
        **{name: getattr(arguments, name) for name in told},
        "samples": [n, data.x_train.shape[1]],
        "contents": [crc32(x.contiguous()), crc32(data.y_train)],
        "structure_id": None if kept is None else halves(kept)[0].structure_id,
    }


def _require_options(
    settings: TrainSettings,
    kept: GLAI | PathSelector | None,
    data: AnyData,
    processes: int,
    with_stages: bool,
) -> None:
    """Raise, before the work, where the settings ask for what the solver that will be used lacks."""
    solver, by_default = settings.solver, settings.solver == "auto"
    if with_stages and (settings.increment or solver not in ("auto", "sgd")):
        what = "increments" if settings.increment else f"--solver {solver}"
        raise ValueError(
            f"--checkpoint and --resume are of the native loop, --solver sgd, or auto, and not of {what}"
        )
    if solver == "dual" and not isinstance(data.x_train, torch.Tensor):
        raise ValueError("--solver dual needs all samples in memory, which these data are too large for")
    if settings.increment and solver != "sgd" and not (isinstance(kept, GLAI) and kept.has_statistics):
        raise ValueError(
            f"--increment needs a model with statistics, which {settings.structure} has not: train it with "
            "--solver statistics, or pass --solver sgd here, which forgets the samples before"
        )
    if by_default and settings.increment:
        solver = "statistics"
    elif by_default and processes > 1:
        solver = "sgd"
    elif by_default:
        return  # what has the options is taken
    for name in settings.options:
        of = SOLVERS_OF[name]
        if solver in of:
            continue
        flag, instead = "--" + name.replace("_", "-"), " or ".join(f"--solver {other}" for other in of)
        chosen = f"solver {solver}"
        if by_default and settings.increment:
            chosen = "an exact increment"
        elif by_default:
            chosen += f", the default of {processes} processes"
        raise ValueError(f"{flag} is not an option of {chosen}: pass {instead}")


def _load_kept(folder: Path) -> GLAI | PathSelector:
    """Load the model in a folder; of a path kernel's model, or where there is no estimator, the structure."""
    if find_file(folder / EXACT_FILE) is not None:
        raise ValueError(f"--structure: {folder} is an exact model, whose structure needs --exact")
    if (folder / ESTIMATOR_FILE).exists():
        return GLAI.load(folder)
    return PathSelector.load(folder / STRUCTURE_FILE)


def _known_names(kept: GLAI | PathSelector | None, folder: Path) -> TableNames:
    """Return what a model knows of its table; that of a path kernel, of which the structure is kept, too."""
    if isinstance(kept, GLAI):
        return names_of(kept)
    if kept is not None and find_file(folder / PATH_KERNEL_FILE) is not None:
        return names_of(PathKernelModel.load(folder))
    return NO_TABLE


def _centred_in(kept: GLAI | PathSelector | None) -> torch.dtype | None:
    selector = None if kept is None else halves(kept)[0]
    return None if selector is None else selector.projection.centred_in


def _known_classes(kept: GLAI | PathSelector | None) -> Sequence[Label]:
    """Return labels of a model's outputs; those of one without labels are their indices, values have none."""
    if not isinstance(kept, GLAI) or kept.estimator.has_values:
        return ()
    return kept.class_labels or list(range(kept.estimator.out_features))


def print_train_report(report: TrainReport, console: Console) -> None:
    """Print the report as tables."""
    of_values = report.task == "regression"
    scores = Table(title=f"{report.data['name']}: {'R2' if of_values else 'accuracy'}", box=SIMPLE)
    for heading in ("", "held out", "test"):
        scores.add_column(heading, justify="left" if not heading else "right")
    scores.add_row(
        "linear model" if of_values else "linear softmax", _share(report.linear_validation, of_values), ""
    )
    scores.add_row(
        f"GLAI ({report.solver})", _share(report.validation, of_values), _share(report.test, of_values)
    )
    if report.mlp is not None:
        scores.add_row(
            "MLP, same layers",
            _share(report.mlp["validation"], of_values),
            _share(report.mlp["test"], of_values),
        )
    console.print(scores)
    facts = Table(show_header=False, box=SIMPLE)
    facts.add_row("task", f"{report.task}: {report.task_reason}")
    tested = f"{report.data['test']:,} tested on" if report.data["test"] else "none held out for a test"
    facts.add_row("samples", f"{report.data['train']:,} trained on, {tested}")
    if report.data["preparation"] is not None:
        facts.add_row("columns", columns_text(report.data["preparation"]))
    structure = f"{report.structure['layer_widths']} units, {report.structure['paths']} paths"
    if report.structure["kept_from"]:
        structure += f", kept from {report.structure['kept_from']}"
    facts.add_row("structure", structure)
    facts.add_row("parameters", ", ".join(f"{name} {count:,}" for name, count in report.parameters.items()))
    facts.add_row("seconds", ", ".join(f"{name} {value:.2f}" for name, value in report.seconds.items()))
    facts.add_row("solver", report.reason)
    facts.add_row("saved in", report.folder)
    console.print(facts)
    if report.energy:
        console.print(energy_table(report.energy))


def columns_text(prepared: dict[str, Any]) -> str:
    """Say what has become of a table's columns, and by how much of it."""
    parts = [f"{len(prepared['numbers'])} of numbers, standardised"]
    if prepared["gaps_in"]:
        parts.append(f"gaps filled and marked in {', '.join(prepared['gaps_in'])}")
    parts += [f"{name} {became}" for name, became in prepared["categories"].items()]
    fitted = f"; fitted on {prepared['fitted_on']}" if "fitted_on" in prepared else ""
    return f"{'; '.join(parts)}: {prepared['features']} features in all{fitted}"


def _share(score: float, of_values: bool) -> str:
    if score != score:
        return "-"
    return f"{score:.4f}" if of_values else f"{score:.2%}"
