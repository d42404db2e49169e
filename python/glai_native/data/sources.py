"""What a data file holds: features, targets and ids as they stand there, whole, or in train and test."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from glai_native.data.splitting import split_rows
from glai_native.data.tables import NO_TABLE, TABLES, TableNames, read_table

IDX_IMAGES, IDX_LABELS = 0x803, 0x801
PARTS = ("train", "test")


@dataclass(frozen=True)
class Rows:
    """Samples as a file holds them.

    Attributes:
        x: ``[N, ...]``, of any dtype.
        y: targets ``[N, ...]``; None: the file holds none.
        ids: ``[N]``; None: samples have none.
    """

    x: NDArray[Any]
    y: NDArray[Any] | None = None
    ids: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: NDArray[Any]) -> Rows:
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
    """

    path: str
    name: str
    parts: Mapping[str, Rows]
    comes_in_parts: bool
    names: TableNames = NO_TABLE

    def rows(self, part: str, seed: int = 0, *, of_classes: bool = True) -> Rows:
        """Return the samples of ``"train"``, ``"test"`` (a quarter where we split) or ``"all"``.

        Args:
            part: which.
            seed: of the split, where we make it.
            of_classes: each class is split in proportion.
        """
        if part in self.parts:
            return self.parts[part]
        if part == "all":
            return _joined(self.path, *(self.parts[name] for name in PARTS))
        whole = self.parts["all"]
        if whole.y is None:
            raise ValueError(f"{self.path}: must hold y to be split into train and test, got x alone")
        try:
            split = _split(whole.x, whole.y, seed, of_classes)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None
        return whole[split[PARTS.index(part)]]


def read_source(
    path: Path | None,
    label: str | None = None,
    known: TableNames = NO_TABLE,
    *,
    labelled: bool = False,
) -> Source:
    """Read a data set.

    Args:
        path: None, or ``digits`` where there is no such file: scikit-learn's digits (1,797 images of 8 x 8, a quarter
            for test); a folder: MNIST's IDX files, plain or .gz; an .npz: arrays ``x_train, y_train, x_test, y_test``
            with ``id_train, id_test``, or ``x, y`` with ``id``; a table, .csv or .parquet
            (:func:`~glai_native.data.tables.read_table`), with a column ``id``. Targets and ids may be left out.
        label: of a table, the label's column; None: as :func:`read_table` finds it.
        known: what the model that is to read a table knows of its columns.
        labelled: whether a table must have a label.
    """
    if label is not None and (path is None or path.suffix not in TABLES):
        raise ValueError(f"--label is of tables, {' and '.join(TABLES)}, got {path or 'digits'}")
    if path is None or (path == Path("digits") and not path.exists()):
        digits = load_digits()
        return Source("digits", "digits", {"all": Rows(digits.data, digits.target)}, True)
    if path.is_dir():
        return Source(str(path), path.name, dict(zip(PARTS, _read_mnist(path), strict=True)), True)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if path.suffix in TABLES:
        table = read_table(path, label, known, labelled=labelled)
        rows = Rows(table.x, table.y, table.ids)
        return Source(str(path), path.stem, {"all": rows}, False, table.names)
    if path.suffix != ".npz":
        raise ValueError(
            f"{path}: data must be a folder of MNIST IDX files, or an .npz, .csv or .parquet file"
        )
    parts = _read_npz(path)
    return Source(str(path), path.stem, parts, "all" not in parts)


def _split(
    x: NDArray[Any], y: NDArray[Any], seed: int, of_classes: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if len(x) != len(y) or len(x) < 4:
        raise ValueError(f"x and y must be equally long, at least 4 samples, got {len(x)} and {len(y)}")
    train, test = split_rows(y if of_classes else None, len(y), -(-len(y) // 4), seed)
    if not len(test):
        raise ValueError(f"y must have a class of at least 2 samples to test on, got one of each of {len(y)}")
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
    for stem in ("train", "t10k"):
        images = _read_idx(folder, f"{stem}-images-idx3-ubyte", IDX_IMAGES)
        labels = _read_idx(folder, f"{stem}-labels-idx1-ubyte", IDX_LABELS)
        rows.append(Rows(images / np.float32(255), labels))
    return rows


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
    if {"x_train", "x_test"} <= arrays.keys():
        suffixes = {part: f"_{part}" for part in PARTS}
    elif "x" in arrays:
        suffixes = {"all": ""}
    else:
        raise ValueError(
            f"{path}: must hold x_train, y_train, x_test, y_test, or x, y; got {', '.join(sorted(arrays)) or 'nothing'}"
        )
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
