"""Of a table that need not fit in memory some rows are drawn, by which its columns are typed and prepared."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glai_native.data.preparing.columns import Columns, number_of, typed_columns
from glai_native.data.preparing.frames import RawColumn
from glai_native.data.preparing.preparation import Preparation

MOST_ROWS, MOST_BYTES = 1 << 17, 1 << 26  # that are drawn
_VALUE_BYTES, _TEXT_BYTES = 8, 56  # of a number or a reference to a text; of a text, beside its characters


@dataclass(frozen=True)
class DrawnRows:
    """Rows that were drawn from a table.

    Attributes:
        columns: theirs, n rows.
        rows: which they are, ``[n]``, in increasing order.
        n_rows: how many rows the table has.
    """

    columns: Columns
    rows: NDArray[np.int64]
    n_rows: int

    def fit(self, owner: str, trained: NDArray[np.int64] | None = None) -> Preparation:
        """Fit a preparation to those of them that are trained on.

        Args:
            owner: whose they are, named in the errors.
            trained: rows of the table, in the order in which they are added up where all were drawn; None: all rows.

        Raises:
            ValueError: as :meth:`Preparation.fit`.
        """
        if trained is None:
            columns, n_trained = self.columns, self.n_rows
        else:
            place = np.full(self.n_rows, -1, dtype=np.int32)
            place[self.rows] = np.arange(len(self.rows))
            found = place[trained]
            columns, n_trained = self.columns[found[found >= 0]], len(trained)
        return Preparation.fit(owner, columns, n_trained)


class RowDraw:
    """Draws rows uniformly from all that are added, at most 131,072 of them and 64 MiB.

    Each row has a random number, and those of the smallest are kept: which ones they are does not hang on how many rows
    are added at a time.

    Args:
        seed: of these numbers.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._n_rows = 0
        self._below = np.inf  # numbers that are not, are not among the smallest
        self._kept: list[_Piece] = []  # one, of the smallest among those that were looked through
        self._new: list[_Piece] = []
        self._kinds: dict[str, set[str]] = {}
        self._texts: dict[str, tuple[int, str]] = {}

    def add(self, raw: Mapping[str, RawColumn]) -> None:
        """Add the rows that follow."""
        n_rows = len(next(iter(raw.values())).values)
        self._look(raw)
        numbers = self._random.random(n_rows)
        found = np.flatnonzero(numbers < self._below)
        if len(found):
            columns = {
                name: RawColumn(column.values[found], column.is_category) for name, column in raw.items()
            }
            rows = found + self._n_rows
            self._new.append(_Piece(columns, rows, numbers[found], _bytes_of_rows(columns)))
        self._n_rows += n_rows
        n_new, n_bytes = sum(map(len, self._new)), sum(piece.n_bytes for piece in self._new)
        if n_new > MOST_ROWS // 4 or n_bytes > MOST_BYTES // 4:
            self._keep_smallest()

    @property
    def of_two_kinds(self) -> list[str]:
        """Names of the columns that hold texts in some of the rows added, and numbers or truth values in others."""
        return [name for name, kinds in self._kinds.items() if len(kinds) > 1]

    def drawn(self, owner: str, categories: Collection[str]) -> DrawnRows:
        """Return the rows that are drawn of all that were added.

        Args:
            owner: whose they are, named in the errors.
            categories: names of the columns that hold categories, whatever they look like.

        Raises:
            ValueError: as :func:`typed_columns`; or a column that holds numbers in the rows drawn has a text in another
                one, which is named.
        """
        self._keep_smallest()
        piece = self._kept.pop()
        columns = typed_columns(owner, piece.columns, categories, rows=piece.rows)
        for name, (row, text) in self._texts.items():
            if columns.by_name[name].dtype.kind != "O":
                raise ValueError(
                    f"{owner}: row {row}, column {name!r}: {text!r:.80} is not a number, and the {len(piece):,} of "
                    f"{self._n_rows:,} rows that were drawn to prepare by hold no texts there; correct it, leave it "
                    f"empty where it is missing, or name {name!r} among the categories"
                )
        return DrawnRows(columns, piece.rows, self._n_rows)

    def _look(self, raw: Mapping[str, RawColumn]) -> None:
        """Remember of each column which kinds it holds, and the first text that is no number."""
        for name, (values, _) in raw.items():
            kind = _kind_of(values)
            if kind is not None:
                self._kinds.setdefault(name, set()).add(kind)
            if kind == "texts" and name not in self._texts:
                texts = ((row, one) for row, one in enumerate(values.tolist()) if isinstance(one, str))
                strange = next(((row, one) for row, one in texts if number_of(one) is None), None)
                if strange is not None:
                    self._texts[name] = (self._n_rows + strange[0], strange[1])

    def _keep_smallest(self) -> None:
        pieces = self._kept + self._new
        numbers, n_bytes = (
            np.concatenate([getattr(piece, name) for piece in pieces])
            for name in ("numbers", "bytes_of_rows")
        )
        order = np.argsort(numbers, kind="stable")
        fitting = int(np.searchsorted(np.cumsum(n_bytes[order]), MOST_BYTES, side="right"))
        n_kept = max(1, min(fitting, MOST_ROWS))
        if n_kept < len(order):
            self._below = float(numbers[order[n_kept]])
        self._kept, self._new = [_Piece.joined(pieces, np.sort(order[:n_kept]))], []


@dataclass(frozen=True)
class _Piece:
    """Some rows: which, the random number of each, and how many bytes each takes."""

    columns: dict[str, RawColumn]
    rows: NDArray[np.int64]
    numbers: NDArray[np.float64]
    bytes_of_rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_bytes(self) -> int:
        return int(self.bytes_of_rows.sum())

    @classmethod
    def joined(cls, pieces: list[_Piece], kept: NDArray[np.int64]) -> _Piece:
        """Return some rows of pieces, which lose each column once it is joined: both at once are twice the memory."""
        columns = {}
        for name in list(pieces[0].columns):
            parts = [piece.columns.pop(name) for piece in pieces]
            is_category = any(part.is_category for part in parts)
            columns[name] = RawColumn(_concatenated([part.values for part in parts])[kept], is_category)
        rows, numbers, bytes_of_rows = (
            np.concatenate([getattr(piece, name) for piece in pieces])[kept]
            for name in ("rows", "numbers", "bytes_of_rows")
        )
        return cls(columns, rows, numbers, bytes_of_rows)


def _concatenated(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Return one column; numbers beside objects become objects, as they are where a column is read whole."""
    if all(part.dtype.kind != "O" for part in parts):
        return np.concatenate(parts)
    return np.concatenate([part.astype(object) for part in parts])


def _bytes_of_rows(columns: Mapping[str, RawColumn]) -> NDArray[np.int64]:
    """Return the bytes that each row takes, with its texts."""
    n_rows = len(next(iter(columns.values())).values)
    n_bytes = np.full(n_rows, _VALUE_BYTES * len(columns), dtype=np.int64)
    for values, _ in columns.values():
        if values.dtype.kind == "O":
            of_texts = (_TEXT_BYTES + len(one) if isinstance(one, str) else 0 for one in values.tolist())
            n_bytes += np.fromiter(of_texts, np.int64, n_rows)
    return n_bytes


def _kind_of(values: NDArray[Any]) -> str | None:
    """Return what a column holds: texts, truth values or numbers; None: all are missing."""
    kind = values.dtype.kind
    if kind != "O":
        missing = kind == "f" and bool(np.isnan(values).all())
        return None if missing else ("truth values" if kind == "b" else "numbers")
    present = [value for value in values.tolist() if value is not None and value == value]
    if any(isinstance(value, str) for value in present):
        return "texts"
    return None if not present else ("truth values" if isinstance(present[0], bool) else "numbers")
