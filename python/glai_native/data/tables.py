"""Tables, .csv and .parquet, are read by pandas: columns of features, one that is the label, one that may be the id."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glai_native.data.preparing.columns import Columns, typed_columns
from glai_native.data.preparing.frames import RawColumn, raw_columns
from glai_native.data.preparing.preparation import Preparation

TABLES = (".csv", ".parquet")
LABELS = ("label", "y", "target", "class")  # what the label's column is called, where nobody says
ID = "id"
EXACT_PANDAS = (3, 1)
PARQUET_BUFFER = 1 << 18  # bytes, of each column


@dataclass(frozen=True)
class TableNames:
    """What a model knows of the table that it was trained on.

    Attributes:
        columns: of the features, in their order; None: it was none.
        label: column of the label; None: nobody has said.
        preparation: what the columns become before the model reads them; None: they are numbers, read as they are.
    """

    columns: Sequence[str] | None = None
    label: str | None = None
    preparation: Preparation | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        known: dict[str, Any] = {"columns": None if self.columns is None else list(self.columns)}
        known["label"] = self.label
        if self.preparation is not None:
            known["preparation"] = self.preparation.to_json()
        return known

    @classmethod
    def from_json(cls, kept: Any) -> TableNames:
        """Return what :meth:`to_json` has made.

        Raises:
            ValueError: it is not.
        """
        try:
            columns, label = kept.get("columns"), kept.get("label")
            preparation = kept.get("preparation")
            known = cls(columns, label, None if preparation is None else Preparation.from_json(preparation))
        except (AttributeError, ValueError) as error:
            raise ValueError(f"what is known of its table cannot be read: {error!s:.200}") from None
        if known.preparation is not None and known.preparation.names != columns:
            raise ValueError("what is known of its table cannot be read: its columns are not those prepared")
        return known


NO_TABLE = TableNames()


@dataclass(frozen=True)
class Preparing:
    """How a table is to be prepared for a model that is yet to be trained.

    Attributes:
        categories: columns that hold categories, be they numbers; those of texts do anyway.
        dropped: columns that are left out.
    """

    categories: Sequence[str] = ()
    dropped: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """What a table holds.

    Attributes:
        x: features ``[N, D]``; or, where a preparation is yet to be fitted, columns, of a chunk as they stand there.
        y: targets ``[N]``, where it has them.
        ids: ``[N]``, where it has them.
        names: of its columns.
        unknown: columns that the model, which knows others, has not seen; they are left out.
    """

    x: NDArray[Any] | Columns | Mapping[str, RawColumn]
    y: NDArray[Any] | None
    ids: NDArray[Any] | None
    names: TableNames
    unknown: Sequence[str] = ()


def read_table(
    path: Path,
    label: str | None,
    known: TableNames,
    *,
    labelled: bool,
    preparing: Preparing | None = None,
) -> Table:
    """Read a table.

    Args:
        path: .csv, with a first line that names the columns, or .parquet.
        label: column of the label, as the user names it; None: the model's, or one of :data:`LABELS`.
        known: of the model that is to read it: its columns are taken, by name and in its order, others left out.
        labelled: whether it must have a label.
        preparing: of a model that knows no columns yet, how they are to be prepared; None: they are numbers, as is.

    Raises:
        ValueError: it cannot be read, or a column is missing, or holds what does not belong there.
    """
    if known.columns is not None:
        preparing = None
    frame = _read(path, _texts(label, known, preparing))
    table = _table(path, frame, label, known, labelled, preparing)
    if preparing is None:
        return table
    assert isinstance(table.x, Mapping)
    return replace(table, x=typed_columns(str(path), table.x, preparing.categories))


def read_table_chunks(
    path: Path, label: str | None, known: TableNames, rows: int, preparing: Preparing | None = None
) -> Iterator[Table]:
    """Read a table that has a label so many rows at a time; arguments and errors as :func:`read_table`.

    Of a table that is yet to be prepared a chunk's columns are what its own rows look like.
    """
    if known.columns is not None:
        preparing = None
    begin = 0
    for frame in _read(path, _texts(label, known, preparing), rows):
        table = _table(path, frame, label, known, True, preparing, begin)
        known, begin = table.names, begin + len(frame)
        del frame
        yield table
        del table  # before the next rows are read


def column_names(path: Path) -> list[str]:
    """Return what a table calls its columns; of its rows one at most is read.

    Raises:
        ValueError: it cannot be read, or does not name its columns.
    """
    frame = next(iter(_read(path, (), 1)), None)
    return [] if frame is None else [str(name) for name in frame.columns]


def ids_as_written(texts: NDArray[np.str_]) -> NDArray[Any]:
    """Return ids int64 ``[N]`` where all are the same texts once written again, which 003 is not, otherwise texts."""
    try:
        integers = texts.astype(np.int64)
    except (ValueError, OverflowError):
        return texts
    return integers if bool((integers.astype(str) == texts).all()) else texts


def _texts(label: str | None, known: TableNames, preparing: Preparing | None) -> Sequence[str]:
    """Return which columns hold categories, as far as that is known before the table is read, and that of ids."""
    categories = () if preparing is None else preparing.categories
    if known.preparation is not None:
        categories = known.preparation.categories
    if ID in (known.label if label is None else label, *(known.columns or ())):
        return categories
    return [*categories, ID]


def _table(
    path: Path,
    frame: Any,
    label: str | None,
    known: TableNames,
    labelled: bool,
    preparing: Preparing | None,
    first: int = 0,
) -> Table:
    preparation = known.preparation
    names = [str(name) for name in frame.columns]
    frame.columns = names
    label = _label(path, names, label, known, labelled)
    columns = list(known.columns or _features(path, names, label, preparing))
    missing = [name for name in columns if name not in names]
    if missing:
        raise ValueError(
            f"{path}: must have the {len(columns)} columns that the model was trained on, got none called "
            f"{listed(missing)}"
        )
    if not columns:
        raise ValueError(f"{path}: must have columns besides label and id, got {listed(names)}")
    y = None if label is None else _values(path, label, frame[label], first)
    ids = _ids(path, frame[ID], first) if ID in names and ID not in (label, *columns) else None
    unknown = (
        [name for name in names if name not in (label, ID, known.label, *columns)] if known.columns else []
    )
    x: NDArray[Any] | Mapping[str, RawColumn]
    if preparation is not None:
        x = preparation.features_of(str(path), frame[columns], first)
    elif preparing is not None:
        x = raw_columns(str(path), frame[columns])
    else:
        numbers = [_numbers(path, name, frame[name], first) for name in columns]
        dtype = np.result_type(*numbers)
        x = np.stack([column.astype(dtype, copy=False) for column in numbers], 1)
    return Table(x, y, ids, TableNames(columns, label, preparation), unknown)


def _features(path: Path, names: list[str], label: str | None, preparing: Preparing | None) -> list[str]:
    """Return which columns are features where no model knows them."""
    given = {} if preparing is None else {"categories": preparing.categories, "drop": preparing.dropped}
    for option, columns in given.items():
        strange = [name for name in columns if name not in names]
        if strange:
            raise ValueError(f"--{option} must name columns of {path} ({listed(names)}), got {strange[0]!r}")
    return [name for name in names if name not in (label, ID, *given.get("drop", ()))]


def _pandas(path: Path) -> Any:
    """Return pandas, and raise unless what it needs to read a table is there."""
    if importlib.util.find_spec("pandas") is None or (
        path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None
    ):
        raise ValueError(
            f"{path}: reading {path.suffix} needs pandas and pyarrow: pip install pandas pyarrow"
        )
    return importlib.import_module("pandas")


def parquet_file(path: Path) -> Any:
    """Open a .parquet, of which row groups are read piece by piece: one may be as large as the file."""
    with _readable(path, _pandas(path)):
        parquet = importlib.import_module("pyarrow.parquet")
        return parquet.ParquetFile(path, buffer_size=PARQUET_BUFFER, pre_buffer=False)


def _read(path: Path, texts: Sequence[str], rows: int | None = None) -> Any:
    """Return a table's frame, or frames of so many rows; columns ``texts`` of a .csv are read as they stand there."""
    pandas = _pandas(path)
    if path.suffix == ".csv":
        _require_names(path)
    elif rows is not None:
        return _checked(path, pandas, _frames(path, rows))
    with _readable(path, pandas):
        if path.suffix == ".parquet":
            return pandas.read_parquet(path, engine="pyarrow")
        # Numbers to the last bit, as pandas has them by default from 3.1 on: those of an .npz are the same data.
        exact = {"float_precision": "round_trip"} if _version(pandas) < EXACT_PANDAS else {}
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", pandas.errors.ParserWarning
            )  # of rows that are longer than the first line
            read = pandas.read_csv(
                path,
                low_memory=False,
                index_col=False,
                chunksize=rows,
                dtype=dict.fromkeys(texts, str),
                **exact,
            )
            return read if rows is None else _checked(path, pandas, read)


def _frames(path: Path, rows: int) -> Iterator[Any]:
    """Yield a .parquet's frames of so many rows; what Arrow keeps of one for later is given back before the next."""
    pool = importlib.import_module("pyarrow").default_memory_pool()
    batches = parquet_file(path).iter_batches(rows)
    with suppress(StopIteration):
        while True:
            # Columns of numbers are Arrow's own. No name is given to what is yielded, which would keep it.
            yield next(batches).to_pandas(split_blocks=True)
            pool.release_unused()


def _checked(path: Path, pandas: Any, frames: Iterable[Any]) -> Iterator[Any]:
    frames = iter(frames)
    while True:
        with _readable(path, pandas), warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            read = list(islice(frames, 1))
        if not read:
            return
        yield read.pop()  # and keep none while it is used


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
        found = f"{twice[0]!r} twice" if twice and not _is_number(twice[0]) else listed(names) or "nothing"
        raise ValueError(
            f"{path}: the first line must name the columns, each by a name of its own, got {found}"
        )


def _label(path: Path, names: list[str], label: str | None, known: TableNames, labelled: bool) -> str | None:
    if label is not None:
        if label not in names:
            raise ValueError(f"--label must name a column of {path} ({listed(names)}), got {label!r}")
        return label
    if known.label is not None and known.label in names:
        return known.label
    # Another column that is called as labels often are is not taken for it: a model would learn something else.
    found = [] if known.label is not None else _called_label(names, known)
    if len(found) == 1:
        return found[0]
    if labelled and known.label is not None:
        raise ValueError(
            f"{path}: must have the label's column, which the model knows as {known.label!r}, got columns "
            f"{listed(names)}; --label names another"
        )
    if labelled:
        what = f"any of {listed(found)} may be the label" if found else "none is called " + ", ".join(LABELS)
        raise ValueError(f"{path}: --label must name the label's column: {what}, got columns {listed(names)}")
    if found and known.columns is None:
        raise ValueError(f"{path}: --label must say which of {listed(found)} is the label")
    return None


def _called_label(names: list[str], known: TableNames) -> list[str]:
    return [name for name in LABELS if name in names and name not in (known.columns or ())]


def _numbers(path: Path, name: str, column: Any, first: int) -> NDArray[Any]:
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
        f"{path}: column {name!r} must be numbers, got {strange[1]!r} in row {first + strange[0]}; leave it out, or "
        "encode it as numbers first, which glai train does"
    )


def _values(path: Path, name: str, column: Any, first: int) -> NDArray[Any]:
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"{path}: column {name!r} must say of each row what it is, got none in row {first + missing.argmax()}"
        )
    return np.asarray(column.to_numpy())


def _ids(path: Path, column: Any, first: int) -> NDArray[Any]:
    values = _values(path, ID, column, first)
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        values = values.astype(str)
        if path.suffix == ".csv":  # which does not say of what type they are
            values = ids_as_written(values)
    if values.dtype.kind not in "iuU":
        raise ValueError(f"{path}: column {ID!r} must hold integers or texts, got {column.dtype}")
    return values


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def listed(names: Sequence[str]) -> str:
    """Return the first names for a message."""
    return ", ".join(map(repr, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
