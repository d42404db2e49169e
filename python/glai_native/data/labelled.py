"""This module loads labelled data for the command line, ready to train on and to test on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glai_native.data.features import float_features
from glai_native.data.labels import Label, joined_labels, label_array, label_indices, require_same_type
from glai_native.data.sources import PARTS, Rows, Source, read_source
from glai_native.data.tables import NO_TABLE, TableNames

_VALUES = "values are for GLAIRegressor in Python, or glai train --exact --regression"


@dataclass(frozen=True)
class LabelledData:
    """Features ``[N, D]``, float32 or float64 (``features.py``), and class indices int64 ``[N]``, in train and test.

    Attributes:
        classes: the label of each class index, sorted.
        names: of a table's columns.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: list[Label]
    names: TableNames = NO_TABLE

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.classes)


def load_data(
    path: Path | None,
    seed: int = 0,
    classes: Sequence[Label] = (),
    centred_in: torch.dtype | None = None,
    label: str | None = None,
    known: TableNames = NO_TABLE,
) -> LabelledData:
    """Load a data set.

    Args:
        path: as :func:`~glai_native.data.sources.read_source` takes it, with targets.
        seed: of the split, where we make it.
        classes: labels that a model knows already; the data's must be of their type.
        centred_in: what the projection of a model that is to read them centres in; None: as the data need it.
        label: of a table, the label's column.
        known: what a model that is to read a table knows of its columns.
    """
    source = read_source(path, label, known, labelled=True)
    parts = {part: _readable(source, part, centred_in) for part in source.parts}
    source = replace(source, parts=parts)
    train, test = (source.rows(part, seed) for part in PARTS)
    return _numbered(source, train, test, classes, centred_in)


def class_labels_of(source: str, y: NDArray[Any] | None, name: str = "y") -> NDArray[Any]:
    """Raise unless targets ``[N]`` of a file can be the labels of classes; return them, of one type."""
    if y is None:
        raise ValueError(f"{source}: must hold {name}, the labels, beside x, got none")
    labels = label_array(source, y, name)
    if labels.ndim != 1:
        raise ValueError(f"{source}: {name} must be class labels [N], got {list(labels.shape)}; {_VALUES}")
    if labels.dtype.kind == "f" and (broken := labels[labels != labels.round()]).size:
        raise ValueError(
            f"{source}: {name} must be class labels, got numbers like {broken.flat[0]:g}; {_VALUES}"
        )
    return labels


def values_of(source: str, rows: Rows, n_outputs: int) -> NDArray[np.float64]:
    """Raise unless targets of a file are finite values ``[N, C=n_outputs]``, or ``[N]`` of one; return ``[N, C]``."""
    y = rows.y
    if y is None:
        raise ValueError(f"{source}: must hold y, the values, beside x, got none")
    if y.dtype.kind not in "iuf":
        raise ValueError(f"{source}: y must be values, as the model's outputs are, got {y.dtype}")
    values = y.reshape(len(y), -1).astype(np.float64) if y.ndim in (1, 2) else y
    if values.shape != (len(rows), n_outputs):
        raise ValueError(
            f"{source}: y must be values [N={len(rows)}, C={n_outputs}] like the model's outputs, got {list(y.shape)}"
        )
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).any(1).argmax())
        raise ValueError(f"{source}: y must be finite values, got {values[row].tolist()} in row {row}")
    return values


def _readable(source: Source, part: str, centred_in: torch.dtype | None) -> Rows:
    """Return rows with features as floats and labels of one type; rows that errors name are those of the file here."""
    rows, suffix = source.parts[part], "" if part == "all" else f"_{part}"
    y = class_labels_of(source.path, rows.y, f"y{suffix}")
    x = rows.x
    if x.ndim >= 2 and len(x):
        x = x.reshape(len(x), -1)
        x = float_features(source.path, x, f"x{suffix}", source.names.columns, centred_in=centred_in)
    return Rows(x, y, rows.ids)


def _numbered(
    source: Source, train: Rows, test: Rows, known: Sequence[Label], centred_in: torch.dtype | None
) -> LabelledData:
    path = source.path
    for part, rows in (("train", train), ("test", test)):
        assert rows.y is not None
        if rows.x.ndim < 2 or len(rows.x) != len(rows.y) or not len(rows.x):
            raise ValueError(
                f"{path}: {part} must be x [N >= 1, ...] and labels y [N], got {list(rows.x.shape)} and "
                f"{list(rows.y.shape)}"
            )
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
    x_train, x_test = (
        float_features(path, x.reshape(len(x), -1), centred_in=centred_in) for x in (train.x, test.x)
    )
    if x_train.shape[1] != x_test.shape[1]:
        raise ValueError(
            f"{path}: train and test must have the same features, got {x_train.shape[1]} and {x_test.shape[1]}"
        )
    dtype = np.result_type(x_train, x_test)  # float64 where either needs it
    x_train, x_test = (x.astype(dtype, copy=False) for x in (x_train, x_test))
    numbers = (
        (torch.from_numpy(x), label_indices(path, y, classes))
        for x, y in ((x_train, y_train), (x_test, y_test))
    )
    return LabelledData(source.name, *next(numbers), *next(numbers), classes, source.names)
