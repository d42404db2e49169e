"""This file opens whatever folder we wrote, says what it is, and lets any model answer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glai_native.data.features import float_features
from glai_native.data.labels import Label, label_array, label_indices, require_same_type
from glai_native.data.sources import Rows, Source
from glai_native.data.stored_rows import StoredRows
from glai_native.data.targets import class_labels_of, values_of
from glai_native.estimator.file import ESTIMATOR_FILE
from glai_native.estimator.outputs import Outputs
from glai_native.gates.store import GateStore
from glai_native.machine.writing import find_file, settle
from glai_native.model.glai import GLAI
from glai_native.solvers.dual.file import PATH_KERNEL_FILE
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.solvers.exact.file import EXACT_FILE, open_exact
from glai_native.solvers.exact.ledger import Ledger
from glai_native.structure.selector import STRUCTURE_FILE
from glai_native.training.exact.classifier import ExactClassifier
from glai_native.training.exact.learner import ExactLearner
from glai_native.training.exact.regressor import ExactRegressor

PathModel = GLAI | PathKernelModel
Model = PathModel | ExactLearner
Opened = Model | GateStore

# Samples that a model reads at a time.
ROWS = 16_384


def open_folder(folder: Path) -> Opened:
    """Open, and so validate, a model's or a gate store's folder.

    Raises:
        FileNotFoundError: the folder holds neither.
        ValueError: what it holds is damaged.
    """
    if not folder.is_dir():
        what = "is a file, a folder was expected" if folder.exists() else "there is no such folder"
        raise FileNotFoundError(f"{folder}: {what}")
    settle(folder)
    if find_file(folder / EXACT_FILE) is not None:
        return _exact_learner(folder)
    if find_file(folder / PATH_KERNEL_FILE) is not None and find_file(folder / ESTIMATOR_FILE) is None:
        return PathKernelModel.load(folder)
    if find_file(folder / STRUCTURE_FILE) is not None:
        return GLAI.load(folder)
    if any(folder.glob("shard-*.safetensors")):
        return GateStore.open(folder)
    raise FileNotFoundError(f"{folder}: holds neither a model ({STRUCTURE_FILE}) nor a gate store (shard-*)")


def open_model(folder: Path) -> Model:
    """Open a model's folder.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: what it holds is damaged.
    """
    opened = open_folder(folder)
    if isinstance(opened, GateStore):
        raise FileNotFoundError(f"{folder}: must hold a model, got a gate store, which 'glai inspect' shows")
    return opened


def open_path_model(folder: Path, verb: str) -> GLAI:
    """Open a model of path weights, which alone can be ``verb``.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: it is a model of another kind, or damaged.
    """
    model = open_model(folder)
    if not isinstance(model, GLAI):
        advice = ""
        if isinstance(model, PathKernelModel):
            advice = "; where they fit in memory, its to_estimator() in Python writes them out"
        raise ValueError(
            f"{folder}: must be a model with path weights to be {verb}, got a model of kind '{kind_of(model)}'{advice}"
        )
    return model


def _exact_learner(folder: Path) -> ExactLearner:
    file = open_exact(folder / EXACT_FILE)
    kind = ExactRegressor if file.metadata.get("targets") == "values" else ExactClassifier
    return kind.open(folder)


def kind_of(model: Model) -> str:
    """Name the kind of model."""
    if isinstance(model, ExactLearner):
        return "exact regressor" if has_values(model) else "exact classifier"
    return "path kernel model" if isinstance(model, PathKernelModel) else "model"


def has_values(model: Model) -> bool:
    """Return whether a model's outputs are values, not classes."""
    return (
        isinstance(model, ExactRegressor) if isinstance(model, ExactLearner) else outputs_of(model).has_values
    )


def outputs_of(model: Model) -> Outputs:
    """Return what says what a model's outputs mean."""
    if isinstance(model, ExactLearner):
        return model.statistics_
    return model if isinstance(model, PathKernelModel) else model.estimator


def labels_of(model: Model) -> list[Label]:
    """Return the labels of a model's classes, in the order of its answers; of outputs without labels, indices."""
    if isinstance(model, ExactClassifier):
        labels: list[Label] = model.classes_.tolist()
        return labels
    outputs = outputs_of(model)
    return outputs.class_labels or list(range(outputs.out_features))


def learnt_twice(before: Ledger | None, model: ExactLearner) -> dict[str, int]:
    """Return how many samples, and how many ids, a model has learnt since that it had already; {}: no ledger tells."""
    after = model.statistics_.ledger
    if before is None or after is None:
        return {}
    samples, ids = (new - old for new, old in zip(after.repeated(), before.repeated(), strict=True))
    return {"samples_counted_twice": samples, "ids_used_twice": ids}


def samples_seen(model: Model) -> int:
    """Return how many samples a model's numbers are of."""
    if isinstance(model, GLAI):
        return int(model.estimator.samples_seen)
    return model.n_samples_ if isinstance(model, ExactLearner) else model.n_samples


def name_outputs(model: PathModel, folder: Path, name: str, labels: Sequence[Label]) -> None:
    """Take the indices of a model's outputs for labels, where it has none and data of that name have no others.

    Raises:
        ValueError: they have others, which nobody can tell the outputs of.
    """
    if model.class_labels is not None:
        return
    outputs = labels_of(model)
    others = [label for label in labels if label not in outputs]
    if others:
        raise ValueError(
            f"{folder}: the model's outputs have no labels, and {name} has labels that are not their indices 0 to "
            f"{len(outputs) - 1}, such as {others[0]!r}; name them in Python: "
            f"model = glai.{type(model).__name__}.load(folder); "
            "model.class_labels = [...]; model.save(folder)"
        )
    model.class_labels = outputs


def as_learnt(y: NDArray[Any]) -> NDArray[Any]:
    """Return targets as learners take them: ``[N]`` of one output."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


@contextmanager
def figures_tell_of_repeats() -> Iterator[None]:
    """Let a learner learn ids that are in use, and samples once more, without a word: the figures say how many."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*: of the ids .* were in use")
        warnings.filterwarnings("ignore", message=".*merge: .* count twice now")
        yield


@contextmanager
def columns_in_order(model: ExactLearner) -> Iterator[None]:
    """Let a learner take arrays whose columns are in its order, without a word of names that they lack."""
    names = model.__dict__.pop("feature_names_in_", None)
    try:
        yield
    finally:
        if names is not None:
            model.feature_names_in_ = names


def features_for(model: Model, source: Source, rows: Rows) -> Tensor:
    """Return raw features ``[N, D]`` as the model reads them.

    Raises:
        ValueError: they are not as many as its own, no numbers, or not finite.
    """
    if isinstance(model, ExactLearner):
        expected, centred_in = model.features_.in_features, torch.float32
    else:
        expected, centred_in = model.selector.in_features, model.selector.projection.centred_in
    x = rows.x
    x = x.reshape(len(x), -1) if x.ndim > 1 and len(x) else x
    if x.ndim != 2 or x.shape[1] != expected or not len(x):
        raise ValueError(
            f"{source.path}: x must be [N >= 1, D={expected}] like the model's samples, got {list(rows.x.shape)}"
        )
    return torch.from_numpy(
        float_features(source.path, x, columns=source.names.columns, centred_in=centred_in)
    )


def targets_for(model: Model, source: Source, rows: Rows) -> Tensor:
    """Return targets as the model's outputs are: int64 indices ``[N]`` of its classes, or float64 values ``[N, C]``.

    Raises:
        ValueError: the data hold none, or labels that the model does not know, or values of another number.
    """
    if not has_values(model):
        labels, known = class_labels_of(source.path, rows.y), labels_of(model)
        require_same_type(source.path, known, labels, "y", "the model's")
        return label_indices(source.path, labels, known)
    return torch.from_numpy(values_of(source.path, rows, outputs_of(model).out_features))


@dataclass(frozen=True)
class Answers:
    """What a model says of N samples: classes, or values.

    Attributes:
        classes: the label of each class; None where the answers are values.
        best: int64 ``[N]``, which class it is; of values empty.
        log_probabilities: float64 ``[N, C]``; of values empty.
        values: float64 ``[N, C]``; of classes empty.
    """

    classes: list[Label] | None
    best: NDArray[np.int64]
    log_probabilities: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def labels(self) -> NDArray[Any]:
        """The label ``[N]`` of each sample's class."""
        assert self.classes is not None
        labels: NDArray[Any] = label_array("predict", self.classes)[self.best]
        return labels


@torch.no_grad()
def answers(model: Model, x: Tensor | StoredRows, done: Callable[[int], object]) -> Answers:
    """Return what a model says of raw x ``[N, in_features]``; ``done`` is told of samples as they are answered."""
    found = []
    parts = x.split(ROWS) if isinstance(x, Tensor) else (part for _, part in x.parts())
    with columns_in_order(model) if isinstance(model, ExactLearner) else nullcontext():
        for part in parts:
            found.append(_values(model, part) if has_values(model) else _log_probabilities(model, part))
            done(len(part))
    output, none = np.concatenate(found), np.empty((0, 0))
    if has_values(model):
        return Answers(None, np.empty(0, dtype=np.int64), none, output)
    return Answers(labels_of(model), output.argmax(1), output, none)


def _log_probabilities(model: Model, x: Tensor) -> NDArray[np.float64]:
    """Return them ``[N, C]``; the largest of a row is that of the answer."""
    if isinstance(model, ExactClassifier):
        return model.predict_log_proba(x.numpy())
    assert isinstance(model, PathModel)
    found: NDArray[np.float64] = model.predict_log_proba(x).cpu().numpy()
    return found


def _values(model: Model, x: Tensor) -> NDArray[np.float64]:
    """Return them ``[N, C]``."""
    if isinstance(model, ExactRegressor):
        return model.predict(x.numpy()).reshape(len(x), -1)
    assert isinstance(model, PathModel)
    found = model.predict(x)
    return found.double().cpu().numpy() if isinstance(found, Tensor) else found
