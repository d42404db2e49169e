"""Data files that need not fit in memory are read here: targets at once, features in chunks, as often as it takes."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glai_native.data.archives import ArrayRows
from glai_native.data.preparing.drawn import DrawnRows, RowDraw
from glai_native.data.preparing.preparation import Preparation
from glai_native.data.sources import (
    MNIST_STEMS,
    PARTS,
    Rows,
    Source,
    holds_arrays,
    names_of_arrays,
    open_idx,
    read_idx_labels,
    rows_of_split,
)
from glai_native.data.stored_rows import in_memory
from glai_native.data.tables import (
    NO_TABLE,
    TABLES,
    Preparing,
    Table,
    TableNames,
    parquet_file,
    read_table_chunks,
)

ROWS = 16_384  # that are read at a time
# Of a .parquet of numbers in so many parts: beside them Arrow takes three times as much.
PARTS_OF_ROWS = 4

Features = Callable[[], Iterator[NDArray[Any]]]


@dataclass(frozen=True)
class StreamedRows:
    """Samples of which targets and ids are in memory, and features are read from the file whenever they are asked for.

    Attributes:
        features: gives chunks ``[n, ...]`` of all rows that the file has there, from the first on.
        y: targets ``[N, ...]`` of these rows; None: the file holds none.
        ids: ``[N]``; None: samples have none.
        kept: which rows are meant, bool ``[N]``; None: all.
        mapped: features of all rows as they lie in a file of numbers; None: they do not.
    """

    features: Features
    y: NDArray[Any] | None
    ids: NDArray[Any] | None
    kept: NDArray[np.bool_] | None = None
    mapped: np.memmap[Any, Any] | None = None

    def __len__(self) -> int:
        """How many rows are meant."""
        if self.kept is not None:
            return int(self.kept.sum())
        assert self.y is not None
        return len(self.y)

    @property
    def targets(self) -> NDArray[Any] | None:
        """Those of the rows that are meant."""
        return self.y if self.y is None or self.kept is None else self.y[self.kept]

    def only(self, rows: NDArray[np.int64]) -> StreamedRows:
        """Return some of all rows that the file has there, in the file's order."""
        kept = np.zeros(len(self), dtype=np.bool_)
        kept[rows] = True
        return replace(self, kept=kept)

    def part(self, rows: slice) -> StreamedRows:
        """Return some of the rows that are meant."""
        assert self.y is not None
        kept = np.zeros(len(self.y), dtype=np.bool_)
        kept[(np.arange(len(self)) if self.kept is None else np.flatnonzero(self.kept))[rows]] = True
        return replace(self, kept=kept)

    def chunks(self) -> Iterator[Rows]:
        """Yield the rows that are meant, in the file's order, none of them empty."""
        begin = 0
        for x in self.features():
            part = slice(begin, begin + len(x))
            rows = Rows(x, *(None if each is None else each[part] for each in (self.y, self.ids)))
            if self.kept is not None:
                rows = rows[np.flatnonzero(self.kept[part])]
            if len(rows):
                yield rows
            begin = part.stop
            del x, rows  # before the next are read


@dataclass(frozen=True)
class StreamedSource:
    """A data set that is read in chunks.

    Attributes:
        source: what it is called, and its columns, without samples.
        parts: ``{"train": ..., "test": ...}``, or ``{"all": ...}``.
        drawn: of a table that is yet to be prepared, the rows to do it by; None: features are numbers already.
    """

    source: Source
    parts: Mapping[str, StreamedRows]
    drawn: DrawnRows | None = None

    def rows(self, part: str, seed: int, *, of_classes: bool, test_share: float) -> list[StreamedRows]:
        """Return the samples that :meth:`~glai_native.data.sources.Source.rows` gives, one part after the other."""
        if part in self.parts:
            return [self.parts[part]]
        if part == "all":
            both = [self.parts[name] for name in PARTS]
            if any(rows.ids is None for rows in both):
                both = [replace(rows, ids=None) for rows in both]
            return both
        whole = self.parts["all"]
        split = rows_of_split(self.source.path, len(whole), whole.y, seed, of_classes, test_share)
        return [whole.only(split[PARTS.index(part)])]

    def prepared(self, trained: NDArray[np.int64] | None = None) -> StreamedSource:
        """Return the data with features prepared by what is drawn of the rows that are trained on; None: of all.

        Raises:
            ValueError: a column has more than 10,000 categories there.
        """
        if self.drawn is None:
            return self
        preparation = self.drawn.fit(self.source.path, trained)
        names = replace(self.source.names, preparation=preparation)
        rows = replace(self.parts["all"], features=_features_of_table(Path(self.source.path), names))
        return StreamedSource(replace(self.source, names=names), {"all": rows})


def stream_source(
    path: Path,
    label: str | None,
    known: TableNames,
    *,
    preparing: Preparing | None = None,
    seed: int = 0,
) -> StreamedSource:
    """Open a data set with targets that :func:`~glai_native.data.sources.read_source` reads whole.

    Features are prepared as ``known`` says, row by row, to the same bits; where it does not, they are numbers, or yet
    to be prepared.

    Args:
        path: as :func:`~glai_native.data.sources.read_source`.
        label: of a table, the label's column; None: as it is found there.
        known: what the model that is to read a table knows of its columns.
        preparing: how the columns of a table are to be prepared that no model knows: features are there once it is
            :meth:`~StreamedSource.prepared`; None: they are numbers, as is.
        seed: of the rows that are drawn to prepare by.

    Raises:
        ValueError: it has no targets, or is none that can be read.
    """
    table, drawn = None, None
    if path.suffix in TABLES and preparing is not None and known.columns is None:
        table, drawn = _of_new_table(path, label, known, preparing, seed)
    elif path.suffix in TABLES:
        table = _of_table(path, label, known)
    if table is not None:
        parts = {"all": table.rows}
    elif path.is_dir() and holds_arrays(path):
        parts = _of_arrays(path)
    elif path.is_dir():
        parts = {part: _of_idx(path, stem) for part, stem in zip(PARTS, MNIST_STEMS, strict=True)}
    else:
        parts = _of_archive(path)
    if known.preparation is not None and path.suffix not in TABLES:
        parts = {part: _prepared(path, rows, known.preparation) for part, rows in parts.items()}
    for part, rows in parts.items():
        if rows.y is None:
            raise ValueError(f"{path}: {part} must hold y beside x, got x alone")
    is_table = path.suffix in TABLES
    name = path.stem if is_table or path.is_file() else path.name
    names, unknown = (NO_TABLE, ()) if table is None else (table.names, table.unknown)
    return StreamedSource(Source(str(path), name, {}, "all" not in parts, names, unknown), parts, drawn)


def size_of(path: Path) -> int:
    """Return how many bytes a data set's files are; of a .parquet, which is compressed, its values as float32."""
    if path.suffix == ".parquet":
        table = parquet_file(path).metadata
        return 4 * int(table.num_rows) * int(table.num_columns)
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.exists())


def _prepared(path: Path, rows: StreamedRows, preparation: Preparation) -> StreamedRows:
    def features() -> Iterator[NDArray[Any]]:
        return (preparation.features_of_array(str(path), x) for x in rows.features())

    return replace(rows, features=features, mapped=None)


class _OpenTable(NamedTuple):
    """A table's rows, and what its columns are called.

    Attributes:
        rows: all of them.
        names: of the columns.
        unknown: columns that a model which knows others has not seen.
    """

    rows: StreamedRows
    names: TableNames
    unknown: Sequence[str]


def _of_table(path: Path, label: str | None, known: TableNames) -> _OpenTable:
    return _opened(path, known, read_table_chunks(path, label, known, ROWS // _parts(path, known)))


def _opened(path: Path, names: TableNames, tables: Iterator[Table]) -> _OpenTable:
    """Return rows of which targets and ids are collected."""
    ys, ids = [], []
    unknown: Sequence[str] = ()
    for table in tables:
        ys.append(table.y)
        ids.append(table.ids)
        names, unknown = table.names, table.unknown
    if not sum(len(y) for y in ys if y is not None):
        raise ValueError(f"{path}: must hold samples, got none")
    y, found = _joined(path, names.label, ys), _joined_ids(ids)
    return _OpenTable(StreamedRows(_features_of_table(path, names), y, found), names, unknown)


def _of_new_table(
    path: Path, label: str | None, known: TableNames, preparing: Preparing, seed: int
) -> tuple[_OpenTable, DrawnRows]:
    """Return rows that are yet to be prepared, and those that are drawn for that.

    A .csv is read once more where chunks differ in what a column looks like: it is of texts then, and these are to be
    what stands there, as where all of it is read at once.
    """
    draw, texts = RowDraw(seed), preparing
    table = _opened(path, known, _added(draw, read_table_chunks(path, label, known, ROWS, texts)))
    if path.suffix == ".csv" and draw.of_two_kinds:
        draw, texts = (
            RowDraw(seed),
            replace(preparing, categories=[*preparing.categories, *draw.of_two_kinds]),
        )
        table = _opened(path, known, _added(draw, read_table_chunks(path, label, known, ROWS, texts)))

    def features() -> Iterator[NDArray[Any]]:
        raise ValueError(f"{path}: its columns must be prepared before they are read")

    drawn = draw.drawn(str(path), preparing.categories)
    return table._replace(rows=replace(table.rows, features=features)), drawn


def _added(draw: RowDraw, tables: Iterator[Table]) -> Iterator[Table]:
    """Yield tables, whose rows are drawn from meanwhile."""
    for table in tables:
        assert isinstance(table.x, Mapping)
        draw.add(table.x)
        yield table


def _features_of_table(path: Path, names: TableNames) -> Features:
    count = _parts(path, names)

    def features() -> Iterator[NDArray[Any]]:
        parts = map(_features_of, read_table_chunks(path, names.label, names, ROWS // count))
        return parts if count == 1 else _joined_by(parts, count)

    return features


def _parts(path: Path, names: TableNames) -> int:
    """Return in how many parts a chunk of a table is read."""
    of_numbers = path.suffix == ".parquet" and names.preparation is None
    return PARTS_OF_ROWS if of_numbers and ROWS >= PARTS_OF_ROWS else 1


def _joined_by(parts: Iterator[NDArray[Any]], count: int) -> Iterator[NDArray[Any]]:
    """Yield so many parts at a time as one."""
    for first in parts:
        yield np.concatenate([first, *islice(parts, count - 1)])


def _features_of(table: Table) -> NDArray[Any]:
    return np.asarray(table.x)


def _joined(path: Path, name: str | None, parts: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Return one column of all chunks; texts in some and numbers in others are refused."""
    found = [part for part in parts if part is not None]
    if len({"iuf".find(part.dtype.kind) >= 0 for part in found}) > 1:
        raise ValueError(f"{path}: column {name!r} must hold numbers, or texts, got both")
    return np.concatenate(found) if found else None


def _joined_ids(parts: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Return the ids of all chunks: texts where those of one are, as where all of it is read at once."""
    found = [part for part in parts if part is not None]
    if any(part.dtype.kind == "U" for part in found):
        found = [np.asarray(part, dtype=np.str_) for part in found]
    return np.concatenate(found) if found else None


def _of_archive(path: Path) -> dict[str, StreamedRows]:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: is no .npz archive (numpy.savez writes one), or truncated")
    archive = zipfile.ZipFile(path)
    held = {name.removesuffix(".npy") for name in archive.namelist()}

    def part(suffix: str) -> StreamedRows:
        def features() -> Iterator[NDArray[Any]]:
            x = ArrayRows(archive, path, f"x{suffix}")
            return (x.read(min(ROWS, len(x) - at)) for at in range(0, len(x), ROWS))

        y, ids = (
            _whole(ArrayRows(archive, path, name)) if name in held else None
            for name in (f"y{suffix}", f"id{suffix}")
        )
        x = ArrayRows(archive, path, f"x{suffix}")
        return _checked(path, suffix, x, StreamedRows(features, y, ids))

    return {name: part(suffix) for name, suffix in names_of_arrays(path, held).items()}


def _whole(rows: ArrayRows) -> NDArray[Any]:
    return rows.read(len(rows))


def _of_arrays(path: Path) -> dict[str, StreamedRows]:
    """Open a folder of .npy files, as an archive's arrays are called; features are memory-mapped."""
    held = {file.stem for file in path.glob("*.npy")}

    def part(suffix: str) -> StreamedRows:
        x = np.load(path / f"x{suffix}.npy", mmap_mode="r", allow_pickle=False)

        def features() -> Iterator[NDArray[Any]]:
            return (in_memory(x[at : at + ROWS]) for at in range(0, len(x), ROWS))

        y, ids = (
            np.load(path / f"{name}.npy", allow_pickle=False) if name in held else None
            for name in (f"y{suffix}", f"id{suffix}")
        )
        return _checked(path, suffix, x, StreamedRows(features, y, ids, mapped=x))

    return {name: part(suffix) for name, suffix in names_of_arrays(path, held).items()}


def _checked(path: Path, suffix: str, x: Any, rows: StreamedRows) -> StreamedRows:
    """Raise unless features, targets and ids are of the same samples."""
    for name, each in (("y", rows.y), ("id", rows.ids)):
        if each is not None and len(each) != len(x):
            raise ValueError(
                f"{path}: x{suffix} and {name}{suffix} must be equally long, got {len(x)} and {len(each)}"
            )
    return rows


def _of_idx(folder: Path, stem: str) -> StreamedRows:
    labels = read_idx_labels(folder, stem)

    def features() -> Iterator[NDArray[Any]]:
        path, shape = open_idx(folder, stem)
        width = int(np.prod(shape[1:]))
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            file.read(4 + 4 * len(shape))
            for begin in range(0, shape[0], ROWS):
                count = min(ROWS, shape[0] - begin)
                content = file.read(count * width)
                if len(content) != count * width:
                    raise ValueError(f"{path}: must hold {'x'.join(map(str, shape))} bytes; truncated?")
                yield np.frombuffer(content, dtype=np.uint8).reshape(count, width) / np.float32(255)

    return StreamedRows(features, labels, None)
