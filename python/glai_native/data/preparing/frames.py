"""Whoever holds a table, pandas, polars, Arrow, a mapping or an array, its columns are NumPy arrays here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class RawColumn(NamedTuple):
    """A column as its frame has it.

    Attributes:
        values: ``[N]``, of any dtype; what is missing is None or NaN.
        is_category: whether the frame says that its values are names, be they numbers.
    """

    values: NDArray[Any]
    is_category: bool = False


def raw_columns(owner: str, frame: Any) -> dict[str, RawColumn]:
    """Return the columns of a table ``[N, K]`` by name.

    Args:
        owner: who is asked, named in the errors.
        frame: of pandas; whatever has ``__arrow_c_stream__`` (polars, pyarrow) or ``__dataframe__``, which pyarrow
            reads; a mapping from names to arrays ``[N]``; or an array ``[N, K]``, a tensor too, whose columns are then
            called x0, x1, ...

    Source: the Arrow PyCapsule interface; the data-frame interchange protocol of the Data APIs consortium.

    Raises:
        ValueError: it is none of these, what it needs is not installed, two columns have one name, or one holds neither
            numbers nor texts.
    """
    if isinstance(frame, Mapping):
        _require_names(owner, list(map(str, frame)))
        return {str(name): RawColumn(_column(values)) for name, values in frame.items()}
    if _is_of_pandas(frame):
        return _of_pandas(owner, frame)
    if hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__dataframe__"):
        return _of_protocol(owner, frame)
    array = _array(frame)
    if array.ndim != 2:
        raise ValueError(
            f"{owner}: X must be a data frame, a mapping of columns or an array [N, K], got {type(frame).__name__} "
            f"{list(array.shape)}"
        )
    return {f"x{k}": RawColumn(array[:, k]) for k in range(array.shape[1])}


def _array(frame: Any) -> NDArray[Any]:
    if hasattr(frame, "detach"):  # of torch; NumPy knows no bfloat16
        frame = frame.detach().cpu()
        return np.asarray(frame.float() if frame.is_floating_point() and frame.itemsize == 2 else frame)
    return np.asarray(frame)


def _column(values: Any) -> NDArray[Any]:
    """Return a column's array; among texts NumPy would make a text of a gap."""
    if isinstance(values, list | tuple) and any(isinstance(value, str) for value in values):
        return _objects(list(values))
    return _array(values)


def _require_names(owner: str, names: list[str]) -> None:
    """Raise where two columns have one name."""
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"{owner}: X must have one column of a name, got {names.count(name)} called {name!r}"
        )


def _is_of_pandas(frame: Any) -> bool:
    return any(
        kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pandas"
        for kind in type(frame).__mro__
    )


def _of_pandas(owner: str, frame: Any) -> dict[str, RawColumn]:
    names = [str(name) for name in frame.columns]
    _require_names(owner, names)
    return {name: _pandas_column(owner, name, frame.iloc[:, k]) for k, name in enumerate(names)}


def _pandas_column(owner: str, name: str, column: Any) -> RawColumn:
    kind = getattr(column.dtype, "kind", "O")
    if hasattr(column, "cat"):
        column, kind, is_category = column.astype(object), "O", True
    else:
        is_category = False
    values = column.to_numpy()
    if values.dtype.kind in "biuf":
        return RawColumn(values, is_category)
    if kind in "biuf":  # one of pandas' own, which has gaps
        return RawColumn(column.to_numpy(dtype=np.float64, na_value=np.nan))
    if kind in "mM":
        raise _no_column(owner, name, column.dtype)
    values = values.astype(object)
    values[column.isna().to_numpy()] = None
    return RawColumn(values, is_category)


def _of_protocol(owner: str, frame: Any) -> dict[str, RawColumn]:
    if (
        importlib.util.find_spec("pyarrow") is None
    ):  # pandas' own reader takes gaps among categories for one of them
        kind = type(frame)
        raise ValueError(
            f"{owner}: reading a {kind.__module__}.{kind.__name__} needs pyarrow: pip install pyarrow"
        )
    if hasattr(frame, "__arrow_c_stream__"):
        return _of_arrow(owner, importlib.import_module("pyarrow").table(frame))
    return _of_arrow(owner, importlib.import_module("pyarrow.interchange").from_dataframe(frame))


def _of_arrow(owner: str, table: Any) -> dict[str, RawColumn]:
    _require_names(owner, list(map(str, table.column_names)))
    return {
        str(name): _arrow_column(owner, str(name), column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _arrow_column(owner: str, name: str, column: Any) -> RawColumn:
    types = importlib.import_module("pyarrow").types
    is_category = types.is_dictionary(column.type)
    kind = column.type.value_type if is_category else column.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        # Arrow casts no categories of polars' texts.
        return RawColumn(_objects(column.to_pylist()), is_category)
    if is_category:
        column = column.cast(kind)
    if types.is_decimal(kind):
        column = column.cast("float64")
    elif types.is_boolean(kind) and column.null_count:
        column = column.cast("uint8")
    elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        if types.is_null(kind):
            return RawColumn(_objects([None] * len(column)))
        raise _no_column(owner, name, kind)
    return RawColumn(np.asarray(column.to_numpy()), is_category)  # of integers with gaps float64


def _objects(values: list[Any]) -> NDArray[Any]:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def _no_column(owner: str, name: str, kind: Any) -> ValueError:
    return ValueError(
        f"{owner}: column {name!r} must hold numbers or texts, got {kind}; convert it, of dates the seconds or the "
        "parts that matter, or leave it out"
    )
