"""Targets of a file are labels of classes or values, as is told, or as they look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glai_native.data.labels import label_array
from glai_native.data.preparing.columns import number_of
from glai_native.data.sources import Rows
from glai_native.data.tables import TableNames

TASKS = ("auto", "classification", "regression")
# Whole numbers in a table are classes where there are so few of them, or where they number classes from 0 or 1 on, of
# so many samples each.
FEW_CLASSES, SAMPLES_OF_A_CLASS = 20, 10
_VALUES = "values are learnt by glai train DATA --task regression"


class Task(NamedTuple):
    """What is learnt.

    Attributes:
        of_values: values, not classes.
        reason: in words.
    """

    of_values: bool
    reason: str

    @property
    def name(self) -> str:
        """As the command line calls it."""
        return "regression" if self.of_values else "classification"


def choose_task(names: TableNames, targets: Iterable[NDArray[Any] | None], told: str = "auto") -> Task:
    """Return whether a file's targets are values or the labels of classes, and why.

    Texts and truth values are labels. Numbers that are not all whole are values. Whole ones are labels in arrays; in a
    table, where prices and years are whole too, they are if there are at most 20 different ones, or if they number
    classes: without a gap from 0 or 1 on, of 10 samples each on average.

    Args:
        names: of a table's columns.
        targets: of each part that a file has.
        told: ``"classification"``, ``"regression"``, or ``"auto"``.
    """
    if told != "auto":
        return Task(told == "regression", "as asked")
    name = "y" if names.label is None else repr(names.label)
    ys = [y for y in targets if y is not None and y.size]
    if any(y.dtype.kind == "f" and (y.ndim == 2 or bool((y != np.round(y)).any())) for y in ys):
        return Task(True, f"{name} holds numbers that are not all whole")
    if not ys or any(y.dtype.kind not in "iuf" for y in ys):
        _require_no_stray_texts(name, ys)
        return Task(False, f"{name} holds labels")
    if names.columns is None:
        return Task(False, f"{name} holds whole numbers, which are labels in arrays")
    y = np.concatenate(ys)
    found = np.unique(y)
    if len(found) <= FEW_CLASSES:
        return Task(False, f"{name} holds {len(found)} different whole numbers")
    numbered = found[0] in (0, 1) and found[-1] - found[0] == len(found) - 1
    if numbered and len(y) >= SAMPLES_OF_A_CLASS * len(found):
        return Task(False, f"{name} numbers {len(found)} classes without a gap")
    return Task(True, f"{name} holds {len(found):,} different whole numbers")


def _require_no_stray_texts(name: str, ys: Sequence[NDArray[Any]]) -> None:
    """Raise where most texts are numbers, not all whole: a stray one would make a class of each."""
    texts = [value for y in ys if y.dtype.kind in "OU" for value in y.ravel().tolist()]
    numbers = [number_of(value) for value in texts]
    known = [number for number in numbers if number is not None]
    if 2 * len(known) > len(texts) and len(set(known)) > FEW_CLASSES:
        stray = next((i for i, number in enumerate(numbers) if number is None), None)
        if stray is not None:
            raise ValueError(
                f"row {stray}: {name} is {texts[stray]!r:.80} where most are numbers; mend it, or say --task "
                "classification, which takes each for a label"
            )


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


def values_of(source: str, rows: Rows, n_outputs: int | None = None, name: str = "y") -> NDArray[np.float64]:
    """Raise unless targets of a file are finite values ``[N, C]``, or ``[N]`` of one; return ``[N, C]``.

    Args:
        source: of the rows, for errors.
        rows: of the file.
        n_outputs: C; None: as many as there are.
        name: of the targets.
    """
    y = rows.y
    if y is None:
        raise ValueError(f"{source}: must hold {name}, the values, beside x, got none")
    if y.dtype.kind in "OU" and y.ndim == 1:
        y = _numbers(source, y.tolist(), name)
    if y.dtype.kind not in "iuf":
        raise ValueError(f"{source}: {name} must be values, as the model's outputs are, got {y.dtype}")
    values = y.reshape(len(y), -1).astype(np.float64) if y.ndim in (1, 2) else y
    n_outputs = values.shape[1] if n_outputs is None and values.ndim == 2 else n_outputs
    if values.shape != (len(rows), n_outputs):
        raise ValueError(
            f"{source}: {name} must be values [N={len(rows)}, C={n_outputs}] like the model's outputs, got "
            f"{list(y.shape)}"
        )
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).any(1).argmax())
        raise ValueError(f"{source}: {name} must be finite values, got {values[row].tolist()} in row {row}")
    return values


def _numbers(source: str, y: Sequence[Any], name: str) -> NDArray[np.float64]:
    numbers = [number_of(value) for value in y]
    if None in numbers:
        row = numbers.index(None)
        raise ValueError(
            f"{source}: row {row}, column {name!r}: {y[row]!r:.80} is not a number, and values are asked for; texts "
            "are labels, of --task classification"
        )
    return np.array(numbers, dtype=np.float64)
