"""What ``glai learn | forget`` do."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from glai_native.cli.command import chosen_part, require_new_folder, show
from glai_native.cli.models import (
    TABLE,
    Model,
    features_for,
    kind_of,
    labels_of,
    name_outputs,
    names_of,
    open_model,
    outputs_of,
    targets_for,
)
from glai_native.data.ids import rows_of_ids
from glai_native.data.labelled import class_labels_of
from glai_native.data.labels import Label, joined_labels, label_indices, require_same_type
from glai_native.data.sources import Rows, Source, read_source
from glai_native.machine.writing import locked
from glai_native.model.glai import GLAI
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.training.forgetting import forget as forget_samples
from glai_native.training.learners.saving import LEARNER, provenance_of, set_provenance
from glai_native.training.retraining import retrain

KEPT = (LEARNER, TABLE)  # of how a model came about: what it was told, which stays


def learn(arguments: argparse.Namespace) -> int:
    """Let samples join a model; return the exit status."""
    return _change(arguments, _learn)


def forget(arguments: argparse.Namespace) -> int:
    """Take samples out of a model; return the exit status."""
    return _change(arguments, _forget)


Change = Callable[[GLAI, Path, Source, Rows], dict[str, Any]]


def _change(arguments: argparse.Namespace, change: Change) -> int:
    folder: Path = arguments.model
    if arguments.out is not None:
        require_new_folder(arguments.out)
    opened = open_model(folder)  # which says what is wrong with the folder
    _require_sums(folder, opened)
    with locked(
        folder
    ):  # of two that change one model the second waits, and goes on from what the first has made
        model = _require_sums(folder, open_model(folder))
        source = read_source(arguments.data, arguments.label, names_of(model), labelled=True)
        part = chosen_part(arguments.part, source, "train")
        rows = source.rows(part, arguments.seed, of_classes=not outputs_of(model).has_values)
        if getattr(arguments, "ids", None) is not None:
            rows = rows_of_ids(source.path, rows, arguments.ids)
        started = time.perf_counter()
        figures = change(model, folder, source, rows)
        seconds = time.perf_counter() - started
        out = folder if arguments.out is None else arguments.out
        model.save(out)
    figures = {"model": str(folder), "kind": kind_of(model), "data": source.name, "part": part, **figures}
    figures |= {"samples_seen": int(model.estimator.samples_seen), "seconds": round(seconds, 3)}
    show(figures | {"folder": str(out)}, arguments.json)
    return 0


def _require_sums(folder: Path, model: Model) -> GLAI:
    """Raise unless a model has what learning and forgetting exactly need."""
    if isinstance(model, GLAI) and model.has_statistics:
        return model
    has = "keeps samples" if isinstance(model, PathKernelModel) else "has weights alone"
    raise ValueError(
        f"{folder}: must be a model with sums over its samples to learn and forget, this {kind_of(model)} {has}; "
        "train it with: glai train DATA --solver statistics --out FOLDER"
    )


def _learn(model: GLAI, folder: Path, source: Source, rows: Rows) -> dict[str, Any]:
    x = features_for(model, source, rows)
    before = provenance_of(model)
    classes = None
    if model.estimator.has_values:
        y = targets_for(model, source, rows)
    else:
        labels = class_labels_of(source.path, rows.y)
        found: list[Label] = np.unique(labels).tolist()
        name_outputs(model, folder, source.name, found)
        require_same_type(source.path, labels_of(model), labels, "y", "the model's")
        classes = joined_labels(labels_of(model), found)
        y = label_indices(source.path, labels, classes)
    known = len(labels_of(model))
    retrain(model, x, y, increment=True, solver="statistics", class_labels=classes)
    _keep(model, before)
    added = model.estimator.out_features - known
    return {"learnt": len(x)} | ({} if classes is None else {"classes": len(classes), "new_classes": added})


def _forget(model: GLAI, folder: Path, source: Source, rows: Rows) -> dict[str, Any]:
    before = provenance_of(model)
    forget_samples(model, features_for(model, source, rows), targets_for(model, source, rows))
    _keep(model, before)
    return {"forgotten": len(rows)}


def _keep(model: GLAI, before: dict[str, Any]) -> None:
    """Let a model know of itself what it did before its numbers changed."""
    kept = {name: before[name] for name in KEPT if name in before}
    set_provenance(model, provenance_of(model) | kept)
