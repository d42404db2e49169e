"""Columns are numbers or categories: which of the two is told, known of a model, or seen from what they hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glai_native.data.preparing.frames import RawColumn

Values = NDArray[np.float64] | NDArray[np.object_]
RowNumbers = Sequence[int] | NDArray[np.int64]
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Columns:
    """Columns of a table, ``[N]`` each.

    Attributes:
        by_name: in their order. Numbers are float64, NaN where one is missing; categories are texts, objects, None
            where one is missing.
        n_rows: N.
    """

    by_name: Mapping[str, Values]
    n_rows: int

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, rows: NDArray[Any] | slice) -> Columns:
        found = {name: values[rows] for name, values in self.by_name.items()}
        n_rows = len(np.empty(self.n_rows, dtype=np.bool_)[rows])
        return Columns(found, n_rows)

    @property
    def categories(self) -> list[str]:
        """Names of the columns that hold categories."""
        return [name for name, values in self.by_name.items() if values.dtype.kind == "O"]


def typed_columns(
    owner: str,
    raw: Mapping[str, RawColumn],
    categories: Collection[str] = (),
    known: Mapping[str, bool] | None = None,
    rows: RowNumbers | None = None,
) -> Columns:
    """Return columns as numbers and categories.

    Args:
        owner: whose they are, named in the errors.
        raw: by name.
        categories: names of those that hold categories whatever they look like; so do columns of texts, unless half of
            them or more read as numbers, and those that their frame says it of.
        known: of each column whether it holds categories, where a model says so; others do not matter then.
        rows: what the errors call the rows; None: they count from 0.

    Raises:
        ValueError: columns are not equally long, or a value is no number where numbers belong, or not finite: its row
            and its column are named.
    """
    lengths = {len(column.values) for column in raw.values()}
    flat = all(column.values.ndim == 1 for column in raw.values())
    if len(lengths) > 1 or not flat:
        found = {name: list(column.values.shape) for name, column in raw.items()}
        raise ValueError(f"{owner}: columns must be [N] and equally long, got {str(found)[:200]}")
    n_rows = lengths.pop() if lengths else 0
    rows = range(n_rows) if rows is None else rows
    typed: dict[str, Values] = {}
    for name, (values, is_category) in raw.items():
        told = known.get(name) if known is not None else (name in categories or is_category or None)
        if values.dtype.kind in "mMcSV":
            raise ValueError(f"{owner}: column {name!r} must hold numbers or texts, got {values.dtype}")
        if told:
            typed[name] = _as_categories(values)
        elif told is None and values.dtype.kind not in "biuf":
            typed[name] = _seen(owner, name, values, rows)
        else:
            typed[name] = _as_numbers(owner, name, values, rows, "and the model was trained on numbers there")
    return Columns(typed, n_rows)


def _seen(owner: str, name: str, values: NDArray[Any], rows: RowNumbers) -> Values:
    """Return a column of objects as what most of it looks like."""
    texts = [value for value in values.tolist() if isinstance(value, str)]
    distinct = {text: number_of(text) is not None for text in set(texts)}
    n_numbers = sum(distinct[text] for text in texts)
    strange = next(
        (value for value in values.tolist() if not _missing(value) and not isinstance(value, str)), None
    )
    if strange is not None and number_of(strange) is None:
        raise ValueError(
            f"{owner}: column {name!r} must hold numbers or texts, got {type(strange).__name__} {strange!r:.80}; leave "
            "it out"
        )
    n_present = sum(not _missing(value) for value in values.tolist())
    n_numbers += n_present - len(texts)
    if 2 * n_numbers < n_present:
        return _as_categories(values)
    others = f"as {n_numbers:,} of the {n_present:,} values there are"
    return _as_numbers(owner, name, values, rows, others, f", or name {name!r} among the categories")


def _as_numbers(
    owner: str, name: str, values: NDArray[Any], rows: RowNumbers, others: str, instead: str = ""
) -> NDArray[np.float64]:
    if values.dtype.kind in "biuf":
        numbers = values.astype(np.float64)
    else:
        numbers = np.full(len(values), np.nan)
        for row, value in enumerate(values.tolist()):
            if _missing(value):
                continue
            number = number_of(value)
            if number is None:
                raise ValueError(
                    f"{owner}: row {rows[row]}, column {name!r}: {value!r:.80} is not a number, {others}; correct it, "
                    f"leave it empty where it is missing{instead}"
                )
            numbers[row] = number
    beyond = np.abs(numbers) > LARGEST
    if beyond.any():
        row = int(beyond.argmax())
        raise ValueError(
            f"{owner}: row {rows[row]}, column {name!r}: {numbers[row]:g} is not a finite number in float32; correct "
            "it, or leave it empty where it is missing"
        )
    return numbers


def number_of(value: Any) -> float | None:
    """Return the number that a value is, or that a text reads as; None of others."""
    if isinstance(value, str) and "_" in value:  # which Python reads past
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _as_categories(values: NDArray[Any]) -> NDArray[np.object_]:
    texts = np.empty(len(values), dtype=object)
    texts[:] = [None if _missing(value) else _text(value) for value in values.tolist()]
    return texts


def _text(value: Any) -> str:
    """Return the name of a category: that of 3.0 is that of 3, since gaps make floats of integers, and True 1."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return value if isinstance(value, str) else str(value)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
