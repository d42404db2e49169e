"""What ``glai learn | forget`` do."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from glai_native.cli.command import chosen_part, require_new_folder, show, tell_unknown
from glai_native.cli.models import (
    Model,
    as_learnt,
    columns_in_order,
    features_for,
    has_values,
    kind_of,
    labels_of,
    learnt_twice,
    name_outputs,
    open_model,
    samples_seen,
    targets_for,
)
from glai_native.data.ids import rows_of_ids
from glai_native.data.labels import Label, joined_labels, label_indices, require_same_type
from glai_native.data.sources import Rows, Source, read_source
from glai_native.data.targets import class_labels_of
from glai_native.machine.writing import locked
from glai_native.model.glai import GLAI
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.training.exact.learner import ExactLearner
from glai_native.training.forgetting import forget as forget_samples
from glai_native.training.learners.saving import LEARNER, provenance_of, set_provenance
from glai_native.training.retraining import retrain
from glai_native.training.tables import TABLE, names_of

_OWNER = re.compile(r"^(update|downdate|retrain|forget|ExactClassifier|ExactRegressor): ")
KEPT = (LEARNER, TABLE)  # of how a model came about: what it was told, which stays


def learn(arguments: argparse.Namespace) -> int:
    """Let samples join a model; return the exit status."""
    return _change(arguments, _learn)


def forget(arguments: argparse.Namespace) -> int:
    """Take samples out of a model; return the exit status."""
    return _change(arguments, _forget)


Change = Callable[[GLAI | ExactLearner, Path, Source, Rows], dict[str, Any]]


def _change(arguments: argparse.Namespace, change: Change) -> int:
    folder: Path = arguments.model
    if arguments.out is not None:
        require_new_folder(arguments.out)
    out = folder if arguments.out is None else arguments.out
    open_model(folder)  # which says what is wrong with the folder
    with locked(
        folder
    ):  # of two that change one model the second waits, and goes on from what the first has made
        model = _with_sums(folder, open_model(folder))
        source = read_source(arguments.data, arguments.label, names_of(model), labelled=True)
        tell_unknown(source)
        part = chosen_part(arguments.part, source, "train")
        split = {"of_classes": not has_values(model), "test_share": arguments.test_share}
        rows = source.rows(part, arguments.seed, **split)
        if getattr(arguments, "ids", None) is not None:
            rows = rows_of_ids(source.path, rows, arguments.ids)
        started = time.perf_counter()
        with _naming(source):
            changed = change(model, folder, source, rows)
        figures = {"model": str(folder), "kind": kind_of(model), "data": source.name, "part": part, **changed}
        figures |= {"samples_seen": samples_seen(model), "seconds": round(time.perf_counter() - started, 3)}
        if isinstance(model, ExactLearner):
            figures |= {"digest": model.digest()} | _solved(model)
        model.save(out)
    show(figures | {"folder": str(out)}, arguments.json)
    return 0


@contextmanager
def _naming(source: Source) -> Iterator[None]:
    """Name the data, not who was asked, in errors of the library that are about samples."""
    try:
        yield
    except ValueError as error:
        raise ValueError(_OWNER.sub(f"{source.path}: ", str(error), count=1)) from None


def _with_sums(folder: Path, model: Model) -> GLAI | ExactLearner:
    """Raise unless a model has what learning and forgetting exactly need."""
    if isinstance(model, ExactLearner) or (isinstance(model, GLAI) and model.has_statistics):
        return model
    has = "keeps samples" if isinstance(model, PathKernelModel) else "has weights alone"
    raise ValueError(
        f"{folder}: must be a model with sums over its samples to learn and forget, this {kind_of(model)} {has}; "
        "train it with: glai train DATA --exact --out FOLDER, or --solver statistics"
    )


def _solved(model: ExactLearner) -> dict[str, Any]:
    """Solve for the weights, which the file then keeps; of a model without samples there are none."""
    if not model.n_samples_:
        return {}
    started = time.perf_counter()
    solution = model.solution()
    return {"l2": solution.l2, "solve_seconds": round(time.perf_counter() - started, 3)}


def _learn(model: GLAI | ExactLearner, folder: Path, source: Source, rows: Rows) -> dict[str, Any]:
    x, known = features_for(model, source, rows), labels_of(model)
    if has_values(model):
        y = targets_for(model, source, rows)
        if isinstance(model, GLAI):
            _retrain(model, x, y)
            return {"learnt": len(x)}
        return {"learnt": len(x)} | _partial_fit(model, x, y.numpy(), rows)
    labels = class_labels_of(source.path, rows.y)
    twice: dict[str, int] = {}
    found: list[Label] = np.unique(labels).tolist()
    if isinstance(model, GLAI):
        name_outputs(model, folder, source.name, found)
    require_same_type(source.path, known, labels, "y", "the model's")
    classes = joined_labels(known, found)
    if isinstance(model, GLAI):
        _retrain(model, x, label_indices(source.path, labels, classes), classes)
    else:
        twice = _partial_fit(model, x, labels, rows)
    new_classes = len(classes) - len(known)
    return {"learnt": len(x), "classes": len(classes), "new_classes": new_classes} | twice


def _retrain(model: GLAI, x: Tensor, y: Tensor, classes: Sequence[Label] | None = None) -> None:
    before = provenance_of(model)
    retrain(model, x, y, increment=True, solver="statistics", class_labels=classes)
    _keep(model, before)


def _partial_fit(model: ExactLearner, x: Tensor, y: NDArray[Any], rows: Rows) -> dict[str, int]:
    """Return how many of the samples, and of their ids, the model holds twice for it, so far as its ledger knows."""
    before = model.statistics_.ledger
    with columns_in_order(model):
        model.partial_fit(x.numpy(), as_learnt(y), ids=rows.ids)
    twice = learnt_twice(before, model)
    if any(twice.values()):
        samples, ids = twice.values()
        print(
            f"of the samples {samples:,} count twice, equal ones were learnt before or are given twice; of their ids "
            f"{ids:,} were in use",
            file=sys.stderr,
        )
    return twice


def _forget(model: GLAI | ExactLearner, folder: Path, source: Source, rows: Rows) -> dict[str, Any]:
    x, y = features_for(model, source, rows), targets_for(model, source, rows)
    if isinstance(model, GLAI):
        before = provenance_of(model)
        forget_samples(model, x, y)
        _keep(model, before)
        return {"forgotten": len(rows)}
    ledger = model.statistics_.ledger
    ids = rows.ids if ledger is not None and ledger.ids is not None else None
    targets = as_learnt(y.numpy()) if has_values(model) else class_labels_of(source.path, rows.y)
    with columns_in_order(model):
        model.forget(x.numpy(), targets, ids=ids)
    return {"forgotten": len(rows)}


def _keep(model: GLAI, before: dict[str, Any]) -> None:
    """Let a model know of itself what it did before its numbers changed."""
    kept = {name: before[name] for name in KEPT if name in before}
    set_provenance(model, provenance_of(model) | kept)
