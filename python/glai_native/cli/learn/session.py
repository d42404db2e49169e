"""What ``glai learn | forget`` do."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glai_native.cli.arguments import without_owner
from glai_native.cli.command import chosen_part, require_new_folder, show, tell_unknown
from glai_native.cli.learn.streaming import StreamedSamples, left_behind
from glai_native.cli.models import (
    Model,
    PathModel,
    as_learnt,
    columns_in_order,
    features_for,
    figures_tell_of_repeats,
    has_values,
    kind_of,
    labels_of,
    learnt_twice,
    name_outputs,
    open_model,
    samples_seen,
    targets_for,
)
from glai_native.cli.train.exact_streaming import Checkpoint
from glai_native.data.ids import rows_of_ids
from glai_native.data.labels import Label, joined_labels, label_indices, require_same_type
from glai_native.data.sources import Rows, Source, read_source
from glai_native.data.targets import class_labels_of
from glai_native.machine.writing import locked
from glai_native.model.glai import GLAI
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.solvers.exact.ledger import Ledger
from glai_native.training.exact.learner import ExactLearner
from glai_native.training.forgetting import forget as forget_samples
from glai_native.training.learners.saving import LEARNER, provenance_of, set_provenance
from glai_native.training.retraining import retrain
from glai_native.training.tables import TABLE, names_of

EXACTLY = "with: glai train DATA --exact --out FOLDER, or --solver statistics"
KEPT = (LEARNER, TABLE)  # of how a model came about: what it was told, which stays


def learn(arguments: argparse.Namespace) -> int:
    """Let samples join a model; return the exit status."""
    return _change(arguments, _learn)


def forget(arguments: argparse.Namespace) -> int:
    """Take samples out of a model; return the exit status."""
    return _change(arguments, _forget)


Change = Callable[[Model, Path, Source, Rows, int], dict[str, Any]]


class _Job(NamedTuple):
    """A change that is ready to be made, of which samples: its figures, and what is to go once it is saved."""

    source: Source
    part: str
    run: Callable[[], tuple[dict[str, Any], Checkpoint | None]]


def _change(arguments: argparse.Namespace, change: Change) -> int:
    folder: Path = arguments.model
    if arguments.out is not None:
        require_new_folder(arguments.out)
    out = folder if arguments.out is None else arguments.out
    open_model(folder)  # which says what is wrong with the folder
    with locked(
        folder
    ):  # of two that change one model the second waits, and goes on from what the first has made
        model = open_model(folder)
        is_exact = _keeps_what_it_learnt(model)
        if not is_exact and change is _forget:
            raise ValueError(_cannot_forget(folder))
        if isinstance(model, PathKernelModel) and model.kept is None:
            raise ValueError(_keeps_no_targets(folder))
        job = _job(arguments, model, change)
        tell_unknown(job.source)
        started = time.perf_counter()
        with _naming(job.source):
            changed, checkpoint = job.run()
        figures: dict[str, Any] = {"model": str(folder), "kind": kind_of(model), "data": job.source.name}
        figures |= {"part": job.part, **changed, "exact": is_exact}
        figures |= {"samples_seen": samples_seen(model), "seconds": round(time.perf_counter() - started, 3)}
        if isinstance(model, ExactLearner):
            figures |= {"digest": model.digest()} | _solved(model)
        model.save(out)
        if checkpoint is not None:
            checkpoint.remove()
        _tell_left(folder)
    show(figures | {"folder": str(out)}, arguments.json)
    return 0


def _job(arguments: argparse.Namespace, model: Model, change: Change) -> _Job:
    """Read the samples, or, of many that are to be learnt exactly, open them."""
    streamed = StreamedSamples.open(arguments, model) if change is _learn else None
    if streamed is not None:
        assert isinstance(model, ExactLearner)
        return _Job(streamed.source, streamed.part, partial(_learn_streamed, model, streamed))
    source = read_source(arguments.data, arguments.label, names_of(model), labelled=True)
    part = chosen_part(arguments.part, source, "train")
    split = {"of_classes": not has_values(model), "test_share": arguments.test_share}
    rows = source.rows(part, arguments.seed, **split)
    if getattr(arguments, "ids", None) is not None:
        rows = rows_of_ids(source.path, rows, arguments.ids)
    return _Job(source, part, lambda: (change(model, arguments.model, source, rows, arguments.seed), None))


@contextmanager
def _naming(source: Source) -> Iterator[None]:
    """Name the data, not who was asked, in errors of the library that are about samples."""
    try:
        yield
    except ValueError as error:
        raise ValueError(without_owner(str(error), source.path)) from None


def _keeps_what_it_learnt(model: Model) -> bool:
    """Return whether a model can learn and forget without forgetting, or keeping, anything else."""
    return not isinstance(model, GLAI) or model.has_statistics


def _cannot_forget(folder: Path) -> str:
    return (
        f"{folder}: must keep sums over its samples to forget some, and this model has weights alone, of which no "
        f"sample can be taken out; train it again without them, or from the start {EXACTLY}"
    )


def _keeps_no_targets(folder: Path) -> str:
    return (
        f"{folder}: must keep the targets of its samples to learn and forget, and this path kernel model does not: "
        "not every sample is a centre of it, or an earlier version wrote it; train it again, on all samples together"
    )


def _solved(model: ExactLearner) -> dict[str, Any]:
    """Solve for the weights, which the file then keeps; of a model without samples there are none."""
    if not model.n_samples_:
        return {}
    started = time.perf_counter()
    solution = model.solution()
    return {"l2": solution.l2, "solve_seconds": round(time.perf_counter() - started, 3)}


def _learn(model: Model, folder: Path, source: Source, rows: Rows, seed: int) -> dict[str, Any]:
    x, known = features_for(model, source, rows), labels_of(model)
    if has_values(model):
        y = targets_for(model, source, rows)
        if isinstance(model, ExactLearner):
            return _partial_fit(model, x, y.numpy(), rows)
        return _retrain(model, folder, x, y, seed)
    labels = class_labels_of(source.path, rows.y)
    found: list[Label] = np.unique(labels).tolist()
    if not isinstance(model, ExactLearner):
        name_outputs(model, folder, source.name, found)
    require_same_type(source.path, known, labels, "y", "the model's")
    classes = joined_labels(known, found)
    if isinstance(model, ExactLearner):
        learnt = _partial_fit(model, x, labels, rows)
    else:
        learnt = _retrain(model, folder, x, label_indices(source.path, labels, classes), seed, classes)
    return learnt | {"classes": len(classes), "new_classes": len(classes) - len(known)}


def _retrain(
    model: PathModel,
    folder: Path,
    x: Tensor,
    y: Tensor,
    seed: int,
    classes: Sequence[Label] | None = None,
) -> dict[str, Any]:
    """Return how many samples were learnt; of weights alone how many were held out, and what came of it."""
    if isinstance(model, PathKernelModel):
        model.learn(x, y, class_labels=classes, seed=seed)
        return {"learnt": len(x)}
    solver, before, seen = "statistics", provenance_of(model), samples_seen(model)
    if not model.has_statistics:
        solver = "sgd"
        print(
            f"{folder}: has weights alone, which are trained on the new samples alone, so what it knew of earlier ones "
            f"may be forgotten; a model that forgets none is trained {EXACTLY}",
            file=sys.stderr,
        )
    numbers = [] if solver == "statistics" else [one.clone() for one in model.estimator.parameters()]
    reason = retrain(model, x, y, increment=True, solver=solver, seed=seed, class_labels=classes).reason
    _keep(model, before)
    learnt = samples_seen(model) - seen
    found: dict[str, Any] = {"learnt": learnt}
    if solver == "sgd":
        now = list(model.estimator.parameters())
        kept = all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(numbers, now, strict=True))
        found |= {"held_out": len(x) - learnt, "numbers_changed": not kept, "reason": reason}
    return found


def _partial_fit(model: ExactLearner, x: Tensor, y: NDArray[Any], rows: Rows) -> dict[str, int]:
    """Return how many samples were learnt, and how many of them, and of their ids, the ledger knew already."""
    before = model.statistics_.ledger
    with columns_in_order(model), figures_tell_of_repeats():
        model.partial_fit(x.numpy(), as_learnt(y), ids=rows.ids)
    return {"learnt": len(x)} | _told_twice(before, model)


def _learn_streamed(
    model: ExactLearner, samples: StreamedSamples
) -> tuple[dict[str, Any], Checkpoint | None]:
    """Return what :func:`_learn` does, of samples that come in chunks, and the checkpoint of what was learnt."""
    ongoing = samples.ongoing
    if ongoing is not None and ongoing.is_saved:
        print(
            f"{samples.source.path}: was learnt by the run that {ongoing.saving.path} is left of, and is in the model: "
            "nothing is left to learn",
            file=sys.stderr,
        )
        return {"learnt": 0}, ongoing.saving
    before, known = model.statistics_.ledger, labels_of(model)
    ongoing = samples.learn(model).ongoing
    learnt: dict[str, Any] = {"learnt": len(samples)} | _told_twice(before, model)
    if not has_values(model):
        classes = len(labels_of(model))
        learnt |= {"classes": classes, "new_classes": classes - len(known)}
    return learnt, None if ongoing is None else ongoing.saving


def _tell_left(folder: Path) -> None:
    """Say which checkpoints stand beside a model that no command goes on with any more, now that it is another."""
    for path in left_behind(folder):
        print(
            f"{path}: is left of a glai learn that was ended, and holds sums of its samples; remove it, unless another "
            "folder has the model as it was then",
            file=sys.stderr,
        )


def _told_twice(before: Ledger | None, model: ExactLearner) -> dict[str, int]:
    """Return how many samples and ids the ledger knew already, and say so where there are some."""
    twice = learnt_twice(before, model)
    if any(twice.values()):
        samples, ids = twice.values()
        print(
            f"of the samples {samples:,} count twice, others of the same target and, to 7 bits, the same features were "
            f"learnt before or with them; of their ids {ids:,} were in use",
            file=sys.stderr,
        )
    return twice


def _forget(model: Model, folder: Path, source: Source, rows: Rows, seed: int) -> dict[str, Any]:
    x, y = features_for(model, source, rows), targets_for(model, source, rows)
    if isinstance(model, ExactLearner):
        ledger = model.statistics_.ledger
        ids = rows.ids if ledger is not None and ledger.ids is not None else None
        targets = as_learnt(y.numpy()) if has_values(model) else class_labels_of(source.path, rows.y)
        with columns_in_order(model):
            model.forget(x.numpy(), targets, ids=ids)
        is_known = ledger is not None
    else:
        _take_out(model, x, y, seed)
        is_known = isinstance(model, PathKernelModel)
    if not is_known:
        print(
            f"{folder}: keeps no ledger, so that only sums tell whether these samples were learnt: if some were not, "
            "the numbers are of no samples",
            file=sys.stderr,
        )
    return {"forgotten": len(rows), "known_to_be_learnt": is_known}


def _take_out(model: PathModel, x: Tensor, y: Tensor, seed: int) -> None:
    if isinstance(model, PathKernelModel):
        model.forget(x, y, seed=seed)
        return
    before = provenance_of(model)
    forget_samples(model, x, y)
    _keep(model, before)


def _keep(model: GLAI, before: dict[str, Any]) -> None:
    """Let a model know of itself what it did before its numbers changed."""
    kept = {name: before[name] for name in KEPT if name in before}
    set_provenance(model, provenance_of(model) | kept)
