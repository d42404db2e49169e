"""Data files that need not fit in memory are read here: targets at once, features in chunks, as often as it takes."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glai_native.data.archives import ArrayRows
from glai_native.data.preparing.preparation import Preparation
from glai_native.data.sources import (
    MNIST_STEMS,
    PARTS,
    TEST_SHARE,
    Rows,
    Source,
    holds_arrays,
    names_of_arrays,
    open_idx,
    read_idx_labels,
    rows_of_split,
)
from glai_native.data.stored_rows import in_memory
from glai_native.data.tables import NO_TABLE, TABLES, TableNames, read_table_chunks

ROWS = 16_384  # that are read at a time

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


@dataclass(frozen=True)
class StreamedSource:
    """A data set that is read in chunks.

    Attributes:
        source: what it is called, and its columns, without samples.
        parts: ``{"train": ..., "test": ...}``, or ``{"all": ...}``.
    """

    source: Source
    parts: Mapping[str, StreamedRows]

    def rows(
        self, part: str, seed: int = 0, *, of_classes: bool = True, test_share: float = TEST_SHARE
    ) -> StreamedRows:
        """Return the samples of ``"train"`` or ``"test"``, the same ones as :meth:`Source.rows`."""
        if part in self.parts:
            return self.parts[part]
        whole = self.parts["all"]
        split = rows_of_split(self.source.path, len(whole), whole.y, seed, of_classes, test_share)
        chosen = split[PARTS.index(part)]
        kept = np.zeros(len(whole), dtype=bool)
        kept[chosen] = True
        return replace(whole, kept=kept)


def stream_source(path: Path, label: str | None, known: TableNames) -> StreamedSource:
    """Open a data set with targets that :func:`~glai_native.data.sources.read_source` reads whole.

    Features are prepared as ``known`` says, row by row, to the same bits; where it does not, they are numbers.

    Raises:
        ValueError: it has no targets, or is none that can be read.
    """
    names = NO_TABLE
    if path.suffix in TABLES:
        parts, names = _of_table(path, label, known)
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
    return StreamedSource(Source(str(path), name, {}, "all" not in parts, names), parts)


def _prepared(path: Path, rows: StreamedRows, preparation: Preparation) -> StreamedRows:
    def features() -> Iterator[NDArray[Any]]:
        return (preparation.features_of_array(str(path), x) for x in rows.features())

    return replace(rows, features=features, mapped=None)


def _of_table(path: Path, label: str | None, known: TableNames) -> tuple[dict[str, StreamedRows], TableNames]:
    ys, ids, names = [], [], known
    for table in read_table_chunks(path, label, known, ROWS):
        ys.append(table.y)
        ids.append(table.ids)
        names = table.names
    if not ys:
        raise ValueError(f"{path}: must hold samples, got none")

    def features() -> Iterator[NDArray[Any]]:
        return (np.asarray(table.x) for table in read_table_chunks(path, names.label, names, ROWS))

    rows = StreamedRows(features, _joined(path, names.label, ys), _joined(path, "id", ids))
    return {"all": rows}, names


def _joined(path: Path, name: str | None, parts: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Return one column of all chunks; texts in some and numbers in others are refused."""
    found = [part for part in parts if part is not None]
    if len({"iuf".find(part.dtype.kind) >= 0 for part in found}) > 1:
        raise ValueError(f"{path}: column {name!r} must hold numbers, or texts, got both")
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
