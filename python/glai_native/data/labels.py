"""Labels, what data call their classes, are ints, floats, texts or truth values, of one type within a model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Label = bool | int | float | str

_TYPES = {"b": "bool", "i": "int", "u": "int", "f": "float", "U": "str"}


def label_array(owner: str, labels: ArrayLike, name: str = "y") -> NDArray[Any]:
    """Return labels as an array of one of the four types, whatever held them.

    Lists, tuples and object arrays are looked at one by one: NumPy would turn ``[1, "two"]`` into texts.

    Args:
        owner: who is asked, named in the errors.
        labels: of any shape; NumPy's scalars count as Python's.
        name: what the owner calls them.

    Raises:
        ValueError: they are of several types, of another one, or missing (None, NaN among texts).
    """
    if isinstance(labels, list | tuple) and not any(isinstance(one, list | tuple) for one in labels):
        array = np.empty(len(labels), dtype=object)
        array[:] = labels
    else:
        array = np.asarray(labels)
    if array.dtype.kind == "T":  # NumPy's texts of any length
        array = array.astype(object)
    if array.dtype.kind in _TYPES:
        return array
    if array.dtype.kind != "O":
        raise ValueError(f"{owner}: {name} must be class labels, numbers or text, got {array.dtype}")
    values = [_plain(one) for one in array.ravel()]
    found = list(dict.fromkeys(_type_of(one) for one in values))
    if len(found) > 1:
        raise ValueError(
            f"{owner}: {name} must be class labels of one type, got {' and '.join(found)}; convert them first"
        )
    if found and found[0] not in _TYPES.values():
        raise ValueError(f"{owner}: {name} must be class labels, numbers or text, got {found[0]}")
    typed = np.array(values).reshape(array.shape) if values else array
    if _TYPES.get(typed.dtype.kind) in found:
        return typed
    array = np.empty(array.shape, dtype=object)  # ints beyond 64 bits
    array.ravel()[:] = values
    return array


def label_list(owner: str, labels: Iterable[Any], name: str = "class_labels") -> list[Label]:
    """Return labels as Python's own values: of one type, each finite and there once.

    Raises:
        ValueError: they are not.
    """
    listed: list[Label] = label_array(owner, list(labels), name).tolist()
    if any(isinstance(one, float) and not math.isfinite(one) for one in listed):
        raise ValueError(f"{owner}: {name} must be finite, got NaN or infinite ones")
    if len(set(listed)) != len(listed):
        twice = next(one for one in listed if listed.count(one) > 1)
        raise ValueError(f"{owner}: {name} must name each class once, got {twice!r} more than once")
    return [one + 0.0 if isinstance(one, float) else one for one in listed]  # -0.0 is 0.0, by one name


def label_type(labels: Sequence[Label] | NDArray[Any]) -> str | None:
    """Return the type of checked labels: bool, int, float or str; None of none."""
    if not len(labels):
        return None
    if isinstance(labels, np.ndarray) and labels.dtype.kind in _TYPES:
        return _TYPES[labels.dtype.kind]
    return _type_of(_plain(labels[0]))


def require_same_type(
    owner: str,
    known: Sequence[Label] | NDArray[Any],
    labels: Sequence[Label] | NDArray[Any],
    name: str = "y",
    like: str = "the labels known so far",
) -> None:
    """Raise where checked labels are of another type than those known: 1, 1.0, True and "1" are four labels."""
    types = label_type(known), label_type(labels)
    if None not in types and types[0] != types[1]:
        raise ValueError(
            f"{owner}: {name} must hold labels of type {types[0]} like {like} ({listed_labels(known)}), got {types[1]} "
            f"({listed_labels(labels)}); convert them first"
        )


def joined_labels(known: Sequence[Label], labels: Iterable[Label]) -> list[Label]:
    """Return all labels of two lists of one type, sorted."""
    return sorted({*known, *labels})


def label_indices(owner: str, y: NDArray[Any], classes: Sequence[Label]) -> Tensor:
    """Return as int64 ``[N]`` where among ``classes``, in whatever order, each checked label is.

    Raises:
        ValueError: one is not among them.
    """
    found, place = np.unique(y, return_inverse=True)
    index = {label: i for i, label in enumerate(classes)}
    listed: list[Label] = found.tolist()
    unknown = [label for label in listed if label not in index]
    if unknown:
        raise ValueError(
            f"{owner}: y must hold labels among {listed_labels(classes)}, got {listed_labels(unknown)} besides"
        )
    order = np.array([index[label] for label in listed], dtype=np.int64)
    return torch.from_numpy(order[place.reshape(np.shape(y))])


def listed_labels(labels: Sequence[Label] | NDArray[Any]) -> str:
    """Return the first labels for a message."""
    shown = [repr(_plain(one)) for one in labels[:8]]
    return ", ".join(shown) + (", …" if len(labels) > 8 else "")


def _plain(value: Any) -> Any:
    """Return NumPy's scalars as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _type_of(value: Any) -> str:
    for kind in (bool, int, float, str):  # a bool is an int
        if isinstance(value, kind):
            return kind.__name__
    return type(value).__name__
