"""``glai train --exact`` learns the training part of the data by integer sums, tests, and saves."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glai_native.cli.command import require_new_folder, show
from glai_native.cli.models import (
    answers,
    as_learnt,
    features_for,
    keep_names,
    names_of,
    open_model,
    targets_for,
)
from glai_native.cli.predict.scores import class_scores, value_scores
from glai_native.data.features import float_features
from glai_native.data.labelled import class_labels_of, values_of
from glai_native.data.sources import Rows, Source, read_source
from glai_native.data.tables import NO_TABLE
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
    structure, known = _structure(arguments.structure)
    source = read_source(arguments.data, arguments.label, known, labelled=True)
    of_values = arguments.regression or _hold_values(source)
    train, test = (source.rows(part, arguments.seed, of_classes=not of_values) for part in ("train", "test"))
    x, y = _features(source, train), _targets(source, train, of_values)
    told = {} if arguments.units is None else {"n_units": arguments.units}
    kind: type[ExactLearner] = ExactRegressor if of_values else ExactClassifier
    model = kind(
        **told,
        structure=structure,
        l2="gcv" if arguments.l2 is None else arguments.l2,
        ledger=not arguments.no_ledger,
        random_state=arguments.seed,
        verbose=True,
    )
    started = time.perf_counter()
    model.fit(x, y, ids=train.ids)
    learnt = time.perf_counter()
    solution = model.solution()
    solved = time.perf_counter()
    scores = _scores(model, source, test)
    keep_names(model, source.names)
    model.save(arguments.out)
    figures: dict[str, Any] = {
        "data": source.name,
        "train": len(train),
        "test": len(test),
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
    for name in ("units", "no_ledger", "regression"):
        if getattr(arguments, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} needs --exact")
    if arguments.l2 == "held-out":
        raise ValueError("--l2 held-out needs --exact")
    if str(arguments.structure) in STRUCTURES and not Path(arguments.structure).exists():
        raise ValueError(f"--structure {arguments.structure} needs --exact; without it, FOLDER of a model")


def _structure(given: Path | None) -> tuple[Any, Any]:
    """Return the structure for a learner, and what a model that it is taken from knows of its table."""
    if given is None or str(given) in STRUCTURES:
        return str(given or DEFAULT_STRUCTURE), NO_TABLE
    model = open_model(given)
    if not isinstance(model, ExactLearner):
        raise ValueError(
            f"--structure must be random, trained or an exact model's folder, got {given}, of another kind"
        )
    return model.features_, names_of(model)


def _hold_values(source: Source) -> bool:
    """Return whether targets are numbers that no class would be called by: floats that are not all whole."""
    ys = [rows.y for rows in source.parts.values() if rows.y is not None]
    return any(
        y.dtype.kind == "f" and y.size > 0 and (y.ndim == 2 or bool((y != np.round(y)).any())) for y in ys
    )


def _features(source: Source, rows: Rows) -> NDArray[Any]:
    x = rows.x
    if x.ndim < 2 or not len(x):
        raise ValueError(f"{source.path}: train must be x [N >= 1, ...], got {list(x.shape)}")
    return float_features(source.path, x.reshape(len(x), -1), columns=source.names.columns)


def _targets(source: Source, rows: Rows, of_values: bool) -> NDArray[Any]:
    y = rows.y
    if y is not None and len(y) != len(rows):
        raise ValueError(f"{source.path}: x and y must be equally long, got {len(rows)} and {len(y)}")
    if of_values:
        return as_learnt(values_of(source.path, rows, 1 if y is None or y.ndim == 1 else y.shape[1]))
    labels = class_labels_of(source.path, y)
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"{source.path}: train must have at least 2 classes, got 1; --regression learns values"
        )
    return labels


def _scores(model: ExactLearner, source: Source, rows: Rows) -> dict[str, Any]:
    x, targets = features_for(model, source, rows), targets_for(model, source, rows).numpy()
    with samples_bar("testing", len(x)) as done:
        found = answers(model, x, done)
    return value_scores(found, targets) if found.classes is None else class_scores(found, targets)
