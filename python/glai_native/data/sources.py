"""What a data file holds: features, targets and ids as they stand there, whole, or in train and test."""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glai_native.data.splitting import split_rows
from glai_native.data.tables import NO_TABLE, TABLES, Preparing, TableNames, read_table

IDX_IMAGES, IDX_LABELS = 0x803, 0x801
PARTS = ("train", "test")
MNIST_STEMS = ("train", "t10k")
TEST_SHARE = 0.25  # where we split, and nobody says otherwise


@dataclass(frozen=True)
class Rows:
    """Samples as a file holds them.

    Attributes:
        x: ``[N, ...]``, of any dtype; or :class:`~glai_native.data.preparing.columns.Columns`, N rows of a table that
            are yet to be prepared.
        y: targets ``[N, ...]``; None: the file holds none.
        ids: ``[N]``; None: samples have none.
    """

    x: Any
    y: NDArray[Any] | None = None
    ids: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: NDArray[Any] | slice) -> Rows:
        parts = (None if each is None else each[rows] for each in (self.y, self.ids))
        return Rows(self.x[rows], *parts)


@dataclass(frozen=True)
class Source:
    """A data set as it stands in its file.

    Attributes:
        path: for errors.
        name: for reports.
        parts: ``{"train": ..., "test": ...}``, or ``{"all": ...}``.
        comes_in_parts: whether what is trained on and what is tested on are agreed upon.
        names: of a table's columns.
        unknown: columns of a table that its model has not seen, and that are left out.
    """

    path: str
    name: str
    parts: Mapping[str, Rows]
    comes_in_parts: bool
    names: TableNames = NO_TABLE
    unknown: Sequence[str] = ()

    def rows(
        self, part: str, seed: int = 0, *, of_classes: bool = True, test_share: float = TEST_SHARE
    ) -> Rows:
        """Return the samples of ``"train"``, ``"test"`` or ``"all"``.

        Args:
            part: which.
            seed: of the split, where we make it.
            of_classes: each class is split in proportion.
            test_share: of the samples, where we split.
        """
        if part in self.parts:
            return self.parts[part]
        if part == "all":
            return _joined(self.path, *(self.parts[name] for name in PARTS))
        whole = self.parts["all"]
        rows = rows_of_split(self.path, len(whole), whole.y, seed, of_classes, test_share)
        return whole[rows[PARTS.index(part)]]


def read_source(
    path: Path | None,
    label: str | None = None,
    known: TableNames = NO_TABLE,
    *,
    labelled: bool = False,
    preparing: Preparing | None = None,
) -> Source:
    """Read a data set.

    Args:
        path: None, or ``digits`` where there is no such file: scikit-learn's digits (1,797 images of 8 x 8, a quarter
            for test); a folder: MNIST's IDX files, plain or .gz, or .npy files of an archive's arrays; an .npz:
            arrays ``x_train, y_train, x_test, y_test`` with ``id_train, id_test``, or ``x, y`` with ``id``; a table,
            .csv or .parquet (:func:`~glai_native.data.tables.read_table`), with a column ``id``. Targets and ids may
            be left out.
        label: of a table, the label's column; None: as :func:`read_table` finds it.
        known: what the model that is to read a table knows of its columns; where it prepares them, arrays whose columns
            are in their order are prepared too.
        labelled: whether a table must have a label.
        preparing: of a model that is yet to be trained on a table, how its columns are to be prepared: ``x`` are
            columns then; None: they are numbers, as they are.
    """
    source = _read(path, label, known, labelled, preparing)
    if known.preparation is None or source.names.columns is not None:
        return source
    prepared = {}
    for part, rows in source.parts.items():
        x = known.preparation.features_of_array(source.path, rows.x)
        prepared[part] = replace(rows, x=x)
    return replace(source, parts=prepared)


def _read(
    path: Path | None, label: str | None, known: TableNames, labelled: bool, preparing: Preparing | None
) -> Source:
    if label is not None and (path is None or path.suffix not in TABLES):
        raise ValueError(f"--label is of tables, {' and '.join(TABLES)}, got {path or 'digits'}")
    if path is None or (path == Path("digits") and not path.exists()):
        from sklearn.datasets import load_digits  # with which much comes that no other data need

        digits = load_digits()
        return Source("digits", "digits", {"all": Rows(digits.data, digits.target)}, True)
    if path.is_dir() and holds_arrays(path):
        parts = _read_arrays(path)
        return Source(str(path), path.name, parts, "all" not in parts)
    if path.is_dir():
        return Source(str(path), path.name, dict(zip(PARTS, _read_mnist(path), strict=True)), True)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if path.suffix in TABLES:
        table = read_table(path, label, known, labelled=labelled, preparing=preparing)
        rows = Rows(table.x, table.y, table.ids)
        return Source(str(path), path.stem, {"all": rows}, False, table.names, table.unknown)
    if path.suffix != ".npz":
        raise ValueError(
            f"{path}: data must be a folder of MNIST IDX files, or an .npz, .csv or .parquet file"
        )
    parts = _read_npz(path)
    return Source(str(path), path.stem, parts, "all" not in parts)


def holds_arrays(folder: Path) -> bool:
    """Return whether a folder holds arrays, ``x.npy`` with ``y.npy`` or those of train and test."""
    return any((folder / f"{name}.npy").exists() for name in ("x", "x_train"))


def rows_of_split(
    path: str,
    n_samples: int,
    y: NDArray[Any] | None,
    seed: int,
    of_classes: bool,
    test_share: float = TEST_SHARE,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that are trained on, and the share that is tested on, of data that come whole."""
    if y is None:
        raise ValueError(f"{path}: must hold y to be split into train and test, got x alone")
    if n_samples != len(y) or n_samples < 4:
        raise ValueError(
            f"{path}: x and y must be equally long, at least 4 samples, got {n_samples} and {len(y)}"
        )
    try:
        n_test = min(math.ceil(len(y) * test_share), len(y) - 1)
        train, test = split_rows(y if of_classes else None, len(y), n_test, seed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not len(test):
        raise ValueError(
            f"{path}: y must have a class of at least 2 samples to test on, got one of each of {len(y)}"
        )
    return train, test


def _joined(path: str, train: Rows, test: Rows) -> Rows:
    if train.x.shape[1:] != test.x.shape[1:]:
        raise ValueError(
            f"{path}: train and test must have the same features, got {list(train.x.shape[1:])} and "
            f"{list(test.x.shape[1:])}"
        )
    pairs = ((train.x, test.x), (train.y, test.y), (train.ids, test.ids))
    x, y, ids = (None if a is None or b is None else np.concatenate([a, b]) for a, b in pairs)
    assert x is not None
    return Rows(x, y, ids)


def _read_mnist(folder: Path) -> list[Rows]:
    rows = []
    for stem in MNIST_STEMS:
        images = _read_idx(folder, f"{stem}-images-idx3-ubyte", IDX_IMAGES)
        rows.append(Rows(images / np.float32(255), read_idx_labels(folder, stem)))
    return rows


def read_idx_labels(folder: Path, stem: str) -> NDArray[Any]:
    """Return the labels uint8 ``[N]`` of MNIST's ``train`` or ``t10k``."""
    return _read_idx(folder, f"{stem}-labels-idx1-ubyte", IDX_LABELS)


def open_idx(folder: Path, stem: str) -> tuple[Path, tuple[int, ...]]:
    """Return the file of the images of MNIST's ``train`` or ``t10k``, and their shape."""
    name = f"{stem}-images-idx3-ubyte"
    for path, opener in ((folder / name, open), (folder / f"{name}.gz", gzip.open)):
        if path.exists():
            with opener(path, "rb") as file:
                head = file.read(16)
            if len(head) < 16 or struct.unpack(">I", head[:4])[0] != IDX_IMAGES:
                raise ValueError(f"{path}: must be an IDX file with magic number {IDX_IMAGES:#010x}")
            return path, struct.unpack(">3I", head[4:])
    raise FileNotFoundError(f"{folder}: must hold {name} or {name}.gz (MNIST's IDX files)")


def _read_idx(folder: Path, stem: str, magic: int) -> NDArray[Any]:
    for path, opener in ((folder / stem, open), (folder / f"{stem}.gz", gzip.open)):
        if not path.exists():
            continue
        try:
            with opener(path, "rb") as file:
                data = file.read()
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: truncated or not a gzip file ({error})") from None
        dims = magic & 0xFF
        if len(data) < 4 + 4 * dims or struct.unpack(">I", data[:4])[0] != magic:
            raise ValueError(f"{path}: must be an IDX file with magic number {magic:#010x}")
        shape = struct.unpack(f">{dims}I", data[4 : 4 + 4 * dims])
        values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dims)
        if values.size != int(np.prod(shape)):
            raise ValueError(
                f"{path}: must hold {'x'.join(map(str, shape))} bytes, got {values.size}; truncated?"
            )
        return values.reshape(shape[0], -1) if dims > 1 else values
    raise FileNotFoundError(f"{folder}: must hold {stem} or {stem}.gz (MNIST's IDX files)")


def _read_npz(path: Path) -> dict[str, Rows]:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: is no .npz archive (numpy.savez writes one), or truncated")
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = archive[name]
    except ValueError as error:
        name = next((name for name in archive.files if name not in arrays), "it")
        raise ValueError(
            f"{path}: {name} cannot be read ({error}); text wants a str dtype, not object"
        ) from None
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: truncated or damaged ({error})") from None
    return _parts_of(path, arrays)


def _read_arrays(folder: Path) -> dict[str, Rows]:
    arrays: dict[str, NDArray[Any]] = {}
    for path in folder.glob("*.npy"):
        try:
            arrays[path.stem] = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: cannot be read ({error})") from None
    return _parts_of(folder, arrays)


def names_of_arrays(path: Path, held: Collection[str]) -> dict[str, str]:
    """Return what is added to ``x``, ``y`` and ``id`` in each part that arrays of these names hold."""
    if {"x_train", "x_test"} <= set(held):
        return {part: f"_{part}" for part in PARTS}
    if "x" in held:
        return {"all": ""}
    raise ValueError(
        f"{path}: must hold x_train, y_train, x_test, y_test, or x, y; got {', '.join(sorted(held)) or 'nothing'}"
    )


def _parts_of(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Rows]:
    suffixes = names_of_arrays(path, arrays.keys())
    return {
        part: _rows_of(path, suffix, *(arrays.get(f"{name}{suffix}") for name in ("x", "y", "id")))
        for part, suffix in suffixes.items()
    }


def _rows_of(
    path: Path, suffix: str, x: NDArray[Any] | None, y: NDArray[Any] | None, ids: NDArray[Any] | None
) -> Rows:
    assert x is not None
    if ids is not None and (ids.shape != x.shape[:1] or ids.dtype.kind not in "iuU"):
        raise ValueError(
            f"{path}: id{suffix} must be an integer or a text for each row of x{suffix}, "
            f"got {ids.dtype} {list(ids.shape)} for {list(x.shape)}"
        )
    return Rows(x, y, ids)
