"""Tables, .csv and .parquet, are read by pandas: columns of numbers, one that is the label, one that may be the id."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TABLES = (".csv", ".parquet")
LABELS = ("label", "y", "target", "class")  # what the label's column is called, where nobody says
ID = "id"
EXACT_PANDAS = (3, 1)


@dataclass(frozen=True)
class TableNames:
    """What a model knows of the table that it was trained on.

    Attributes:
        columns: of the features, in their order; None: it was none.
        label: column of the label; None: nobody has said.
    """

    columns: Sequence[str] | None = None
    label: str | None = None


NO_TABLE = TableNames()


@dataclass(frozen=True)
class Table:
    """Features ``[N, D]`` of a table, targets and ids ``[N]`` where it has them, and what its columns are called."""

    x: NDArray[Any]
    y: NDArray[Any] | None
    ids: NDArray[Any] | None
    names: TableNames


def read_table(path: Path, label: str | None, known: TableNames, *, labelled: bool) -> Table:
    """Read a table.

    Args:
        path: .csv, with a first line that names the columns, or .parquet.
        label: column of the label, as the user names it; None: the model's, or one of :data:`LABELS`.
        known: of the model that is to read it: its columns are taken, by name and in its order, others left out.
        labelled: whether it must have a label.

    Raises:
        ValueError: it cannot be read, or a column is missing, or holds text.
    """
    return _table(path, _read(path), label, known, labelled)


def read_table_chunks(path: Path, label: str | None, known: TableNames, rows: int) -> Iterator[Table]:
    """Read a table that has a label so many rows at a time; arguments and errors as :func:`read_table`."""
    for frame in _read(path, rows):
        table = _table(path, frame, label, known, labelled=True)
        yield table
        known = table.names


def _table(path: Path, frame: Any, label: str | None, known: TableNames, labelled: bool) -> Table:
    names = [str(name) for name in frame.columns]
    frame.columns = names
    label = _label(path, names, label, known, labelled)
    columns = list(known.columns or (name for name in names if name not in (label, ID)))
    missing = [name for name in columns if name not in names]
    if missing:
        raise ValueError(
            f"{path}: must have the {len(columns)} columns that the model was trained on, got none called "
            f"{_listed(missing)}"
        )
    if not columns:
        raise ValueError(f"{path}: must have columns besides label and id, got {_listed(names)}")
    x = [_numbers(path, name, frame[name]) for name in columns]
    dtype = np.result_type(*x)
    y = None if label is None else _values(path, label, frame[label])
    ids = _ids(path, frame[ID]) if ID in names and ID not in (label, *columns) else None
    return Table(np.stack([column.astype(dtype) for column in x], 1), y, ids, TableNames(columns, label))


def _read(path: Path, rows: int | None = None) -> Any:
    """Return a table's frame, or frames of so many rows."""
    if importlib.util.find_spec("pandas") is None or (
        path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None
    ):
        raise ValueError(
            f"{path}: reading {path.suffix} needs pandas and pyarrow: pip install pandas pyarrow"
        )
    pandas = importlib.import_module("pandas")
    if path.suffix == ".csv":
        _require_names(path)
    with _readable(path, pandas):
        if path.suffix == ".parquet":
            if rows is not None:
                parquet = importlib.import_module("pyarrow.parquet").ParquetFile(path)
                return _checked(path, pandas, (part.to_pandas() for part in parquet.iter_batches(rows)))
            return pandas.read_parquet(path, engine="pyarrow")
        # Numbers to the last bit, as pandas has them by default from 3.1 on: those of an .npz are the same data.
        exact = {"float_precision": "round_trip"} if _version(pandas) < EXACT_PANDAS else {}
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", pandas.errors.ParserWarning
            )  # of rows that are longer than the first line
            read = pandas.read_csv(path, low_memory=False, index_col=False, chunksize=rows, **exact)
            return read if rows is None else _checked(path, pandas, read)


def _checked(path: Path, pandas: Any, frames: Iterable[Any]) -> Iterator[Any]:
    frames = iter(frames)
    while True:
        with _readable(path, pandas), warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


@contextmanager
def _readable(path: Path, pandas: Any) -> Iterator[None]:
    """Name the file in what reading it raises."""
    try:
        yield
    except pandas.errors.ParserWarning:
        raise ValueError(
            f"{path}: rows must have as many values as the first line has names, got more"
        ) from None
    except (ValueError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: cannot be read as {path.suffix} ({reason})") from None


def _version(package: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in package.__version__.split(".")[:2])


def _require_names(path: Path) -> None:
    """Raise unless the first line of a .csv names its columns, each once."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as .csv in UTF-8 ({error})") from None
    twice = [name for name in names if names.count(name) > 1]
    if not names or twice or all(map(_is_number, names)):
        found = f"{twice[0]!r} twice" if twice and not _is_number(twice[0]) else _listed(names) or "nothing"
        raise ValueError(
            f"{path}: the first line must name the columns, each by a name of its own, got {found}"
        )


def _label(path: Path, names: list[str], label: str | None, known: TableNames, labelled: bool) -> str | None:
    if label is not None:
        if label not in names:
            raise ValueError(f"--label must name a column of {path} ({_listed(names)}), got {label!r}")
        return label
    if known.label is not None and known.label in names:
        return known.label
    found = [name for name in LABELS if name in names and name not in (known.columns or ())]
    if len(found) == 1:
        return found[0]
    if labelled:
        what = f"any of {_listed(found)} may be the label" if found else "none is called " + ", ".join(LABELS)
        raise ValueError(
            f"{path}: --label must name the label's column: {what}, got columns {_listed(names)}"
        )
    if found and known.columns is None:
        raise ValueError(f"{path}: --label must say which of {_listed(found)} is the label")
    return None


def _numbers(path: Path, name: str, column: Any) -> NDArray[Any]:
    """Return a column of numbers, what is missing as NaN."""
    values = column.to_numpy()
    if values.dtype.kind in "biuf":
        return np.asarray(values)
    if getattr(column.dtype, "kind", "O") in "biuf":  # one of pandas' own, which has gaps
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    strange = next(
        ((row, value) for row, value in enumerate(values) if not _is_number(value)), (0, values.dtype)
    )
    raise ValueError(
        f"{path}: column {name!r} must be numbers, got {strange[1]!r} in row {strange[0]}; leave it out, or encode it "
        "as numbers first"
    )


def _values(path: Path, name: str, column: Any) -> NDArray[Any]:
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"{path}: column {name!r} must say of each row what it is, got none in row {missing.argmax()}"
        )
    return np.asarray(column.to_numpy())


def _ids(path: Path, column: Any) -> NDArray[Any]:
    values = _values(path, ID, column)
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        values = values.astype(str)
    if values.dtype.kind not in "iuU":
        raise ValueError(f"{path}: column {ID!r} must hold integers or texts, got {column.dtype}")
    return values


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _listed(names: Sequence[str]) -> str:
    """Return the first names for a message."""
    return ", ".join(map(repr, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
