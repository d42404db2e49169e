"""This module loads labelled data for the command line, ready to train on and to test on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from glai_native.data.features import float_features
from glai_native.data.labels import Label, joined_labels, label_indices, require_same_type
from glai_native.data.sources import Rows
from glai_native.data.stored_rows import StoredRows
from glai_native.data.tables import NO_TABLE, TableNames
from glai_native.data.trained_on import TrainedOn, trained_on

Features = TypeVar("Features", Tensor, Tensor | StoredRows, covariant=True)


@dataclass(frozen=True)
class Labelled(Generic[Features]):
    """Features ``[N, D]``, float32 or float64 (``features.py``), or where they are stored; targets; in train and test.

    Targets are class indices int64 ``[N]``, or values float64 ``[N, C]``. There may be no test samples.

    Attributes:
        classes: the label of each class index, sorted; of values none.
        names: of a table's columns.
    """

    name: str
    x_train: Features
    y_train: Tensor
    x_test: Features
    y_test: Tensor
    classes: list[Label]
    names: TableNames = NO_TABLE

    @property
    def n_classes(self) -> int:
        """C, of classes."""
        return len(self.classes)

    @property
    def has_values(self) -> bool:
        """Whether targets are values."""
        return self.y_train.is_floating_point()

    @property
    def n_outputs(self) -> int:
        """C."""
        return self.y_train.shape[1] if self.has_values else self.n_classes


LabelledData = Labelled[Tensor]  # in memory
AnyData = Labelled[Tensor | StoredRows]


def load_data(
    path: Path | None,
    seed: int = 0,
    classes: Sequence[Label] = (),
    centred_in: torch.dtype | None = None,
    label: str | None = None,
    known: TableNames = NO_TABLE,
) -> LabelledData:
    """Load a data set of classes, a quarter for test where it does not come in train and test.

    Args:
        path: as :func:`~glai_native.data.sources.read_source` takes it, with targets.
        seed: of the split, where we make it.
        classes: labels that a model knows already; the data's must be of their type.
        centred_in: what the projection of a model that is to read them centres in; None: as the data need it.
        label: of a table, the label's column.
        known: what a model that is to read a table knows of its columns.
    """
    found = trained_on(path, label, known, seed=seed, task="classification", centred_in=centred_in)
    return as_tensors(found, classes, centred_in)


def as_tensors(
    found: TrainedOn, classes: Sequence[Label] = (), centred_in: torch.dtype | None = None
) -> LabelledData:
    """Return samples as tensors, their labels numbered; ``classes`` are labels that a model knows already.

    Raises:
        ValueError: train or test do not fit each other, or the classes.
    """
    path, train, test, names = found.source.path, found.train, found.test, found.source.names
    _require_samples(path, "train", train)
    if len(test):
        _require_samples(path, "test", test)
    x_train, x_test = (
        float_features(path, x.reshape(len(x), -1), centred_in=centred_in) if len(x) else x
        for x in (train.x, test.x)
    )
    if not len(test):
        x_test = x_train[:0]
    if x_train.shape[1] != x_test.shape[1]:
        raise ValueError(
            f"{path}: train and test must have the same features, got {x_train.shape[1]} and {x_test.shape[1]}"
        )
    dtype = np.result_type(x_train, x_test)  # float64 where either needs it
    x_train, x_test = (torch.from_numpy(x.astype(dtype, copy=False)) for x in (x_train, x_test))
    y_train, y_test, known = numbered_targets(path, train, test, found.task.of_values, classes)
    return LabelledData(found.source.name, x_train, y_train, x_test, y_test, known, names)


def numbered_targets(
    path: str, train: Rows, test: Rows, of_values: bool, classes: Sequence[Label] = ()
) -> tuple[Tensor, Tensor, list[Label]]:
    """Return targets of train and of test, and the label of each class index; ``classes`` are known already.

    Raises:
        ValueError: those of test do not fit those of train, or the classes.
    """
    if of_values:
        return *_values(path, train, test), []
    known = _classes(path, train, test, classes)
    y_train, y_test = (label_indices(path, rows.y, known) for rows in (train, test) if rows.y is not None)
    return y_train, y_test, known


def _require_samples(path: str, part: str, rows: Rows) -> None:
    assert rows.y is not None
    if rows.x.ndim < 2 or len(rows.x) != len(rows.y) or not len(rows.x):
        raise ValueError(
            f"{path}: {part} must be x [N >= 1, ...] and labels y [N], got {list(rows.x.shape)} and "
            f"{list(rows.y.shape)}"
        )


def _values(path: str, train: Rows, test: Rows) -> tuple[Tensor, Tensor]:
    assert train.y is not None
    assert test.y is not None
    y_test = test.y if len(test) else train.y[:0]
    if train.y.shape[1] != y_test.shape[1]:
        raise ValueError(
            f"{path}: train and test must have as many targets, got {train.y.shape[1]} and {y_test.shape[1]}"
        )
    return torch.from_numpy(train.y), torch.from_numpy(y_test)


def _classes(path: str, train: Rows, test: Rows, known: Sequence[Label]) -> list[Label]:
    """Return all labels; those of test must be known, or occur in train."""
    y_train, y_test = train.y, test.y
    assert y_train is not None
    assert y_test is not None
    found: list[Label] = np.unique(y_train).tolist()
    require_same_type(path, found, y_test, "y_test", "y_train's")
    require_same_type(path, known, found, "y", "the model's")
    classes = joined_labels(known, found)
    unseen = sorted(set(np.unique(y_test).tolist()) - set(classes))
    if unseen:
        raise ValueError(f"{path}: every test label must occur in train, got {unseen[0]!r} in test only")
    if len(classes) < 2:
        raise ValueError(f"{path}: train must have at least 2 classes, got {len(classes)}")
    return classes
