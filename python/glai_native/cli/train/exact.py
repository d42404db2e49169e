"""``glai train --exact`` learns the training part of the data by integer sums, tests, and saves."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from glai_native.cli.command import require_new_folder, show
from glai_native.cli.models import (
    answers,
    features_for,
    keep_names,
    names_of,
    open_model,
    targets_for,
)
from glai_native.cli.predict.scores import class_scores, value_scores
from glai_native.cli.train.exact_streaming import (
    Checkpoint,
    StreamedRun,
    hold_values,
    is_streamed,
    read_targets,
)
from glai_native.data.features import float_features
from glai_native.data.sources import Rows, Source, read_source
from glai_native.data.tables import NO_TABLE, TableNames
from glai_native.machine.progress import samples_bar
from glai_native.training.exact.classifier import ExactClassifier
from glai_native.training.exact.learner import ExactLearner
from glai_native.training.exact.regressor import ExactRegressor

# Of other trainings.
OTHERS = (
    "hidden",
    "components",
    "structure_epochs",
    "epochs",
    "learning_rate",
    "increment",
    "energy",
    "country",
)
STRUCTURES = ("random", "covariance", "trained")
DEFAULT_STRUCTURE = "random"


def train_exact(arguments: argparse.Namespace) -> int:
    """Run ``glai train --exact``; return the exit status."""
    _require_options(arguments)
    require_new_folder(arguments.out)
    checkpoint = Checkpoint.of(arguments)
    structure, known, counting = _structure(arguments.structure)
    started = time.perf_counter()
    learning: _Whole | StreamedRun
    if is_streamed(arguments, checkpoint):
        learning = StreamedRun.open(arguments, known, checkpoint)
    else:
        learning = _Whole.read(arguments, known)
    model = learning.learn(_learner(arguments, learning.of_values, structure, counting))
    learnt = time.perf_counter()
    solution = model.solution()
    solved = time.perf_counter()
    source, scores = learning.source, learning.scores(model)
    keep_names(model, source.names)
    model.save(arguments.out)
    if checkpoint is not None:
        checkpoint.remove()
    figures: dict[str, Any] = {
        "data": source.name,
        "train": len(learning.train),
        "test": len(learning.test),
        **scores,
        "structure": str(arguments.structure or DEFAULT_STRUCTURE),
        "units": model.features_.n_units,
        "features": model.features_.n_features,
        "outputs": model.statistics_.out_features,
        "l2": solution.l2,
        "condition": solution.condition,
        "seconds_learning": round(learnt - started, 3),
        "seconds_solving": round(solved - learnt, 3),
        "digest": model.digest(),
        "folder": str(arguments.out),
    }
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        show({name: value for name, value in figures.items() if name != "per_class"}, False)
    return 0


def _learner(
    arguments: argparse.Namespace, of_values: bool, structure: Any, counting: dict[str, Any]
) -> ExactLearner:
    """Return a learner that is told what the command was, and of values how another model counts them."""
    told = {} if arguments.units is None else {"n_units": arguments.units}
    told |= counting if of_values else {}
    kind: type[ExactLearner] = ExactRegressor if of_values else ExactClassifier
    return kind(
        **told,
        structure=structure,
        l2="gcv" if arguments.l2 is None else arguments.l2,
        ledger=not arguments.no_ledger,
        random_state=arguments.seed,
        verbose=True,
    )


@dataclass(frozen=True)
class _Whole:
    """Data in memory, of which a part is trained on and a part tested on."""

    source: Source
    of_values: bool
    train: Rows
    test: Rows

    @classmethod
    def read(cls, arguments: argparse.Namespace, known: TableNames) -> _Whole:
        source = read_source(arguments.data, arguments.label, known, labelled=True)
        of_values = arguments.regression or any(hold_values(rows.y) for rows in source.parts.values())
        train, test = (
            source.rows(part, arguments.seed, of_classes=not of_values) for part in ("train", "test")
        )
        return cls(source, of_values, train, test)

    def learn(self, model: ExactLearner) -> ExactLearner:
        x, y = _features(self.source, self.train), _targets(self.source, self.train, self.of_values)
        return model.fit(x, y, ids=self.train.ids)

    def scores(self, model: ExactLearner) -> dict[str, Any]:
        x, targets = (of(model, self.source, self.test) for of in (features_for, targets_for))
        with samples_bar("testing", len(x)) as done:
            found = answers(model, x, done)
        of = value_scores if found.classes is None else class_scores
        return of(found, targets.numpy())


def _require_options(arguments: argparse.Namespace) -> None:
    """Raise where another training's options were given too."""
    for name in OTHERS:
        if getattr(arguments, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} is not an option of --exact")
    if arguments.solver != "auto":
        raise ValueError(f"--solver is not an option of --exact, got {arguments.solver}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("--exact runs in one process, not under torchrun; glai merge adds models up")


def require_no_exact_options(arguments: argparse.Namespace) -> None:
    """Raise where options of ``--exact`` were given without it."""
    for name in ("units", "no_ledger", "regression", "checkpoint", "resume"):
        if getattr(arguments, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} needs --exact")
    if arguments.l2 == "held-out":
        raise ValueError("--l2 held-out needs --exact")
    if str(arguments.structure) in STRUCTURES and not Path(arguments.structure).exists():
        raise ValueError(f"--structure {arguments.structure} needs --exact; without it, FOLDER of a model")


def _structure(given: Path | None) -> tuple[Any, TableNames, dict[str, Any]]:
    """Return the structure for a learner; of a model that it is taken from, its table's names, its step and centre."""
    if given is None or str(given) in STRUCTURES:
        return str(given or DEFAULT_STRUCTURE), NO_TABLE, {}
    model = open_model(given)
    if not isinstance(model, ExactLearner):
        raise ValueError(
            f"--structure must be random, trained or an exact model's folder, got {given}, of another kind"
        )
    point = model.statistics_.fixed_point
    counting = {} if point is None else {"step": point.step.tolist(), "centre": point.centre.tolist()}
    return model.features_, names_of(model), counting


def _features(source: Source, rows: Rows) -> NDArray[Any]:
    x = rows.x
    if x.ndim < 2 or not len(x):
        raise ValueError(f"{source.path}: train must be x [N >= 1, ...], got {list(x.shape)}")
    return float_features(source.path, x.reshape(len(x), -1), columns=source.names.columns)


def _targets(source: Source, rows: Rows, of_values: bool) -> NDArray[Any]:
    y = rows.y
    if y is not None and len(y) != len(rows):
        raise ValueError(f"{source.path}: x and y must be equally long, got {len(rows)} and {len(y)}")
    return read_targets(source.path, rows, of_values)
