"""Samples are chosen by their ids: a list of them is a text file, one a line, or the column ``id`` of a .csv."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glai_native.data.sources import Rows
from glai_native.data.tables import ID

SHOWN = 8  # ids in a message


def rows_of_ids(source: str, rows: Rows, path: Path) -> Rows:
    """Return the samples, in their order, whose ids a file lists.

    Args:
        source: of the samples, for errors.
        rows: with ids.
        path: of the list.

    Raises:
        ValueError: samples have no ids, the list is empty or cannot be read, or holds an id that no sample has.
    """
    if rows.ids is None:
        raise ValueError(f"{source}: must hold the samples' ids, a column or an array 'id', got none")
    wanted = _read_ids(path, rows.ids.dtype.kind in "iu")
    chosen = np.isin(rows.ids, wanted)
    unknown = wanted[~np.isin(wanted, rows.ids)]
    if len(unknown):
        shown = ", ".join(map(repr, unknown[:SHOWN].tolist())) + (", …" if len(unknown) > SHOWN else "")
        raise ValueError(
            f"{path}: must list ids of {source}, got {len(unknown):,} that it does not hold: {shown}"
        )
    return rows[chosen.nonzero()[0]]


def _read_ids(path: Path, of_integers: bool) -> NDArray[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                listed = [row.get(ID) or "" for row in csv.DictReader(file)]
            else:
                listed = [line.strip() for line in file]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as a list of ids in UTF-8 ({error})") from None
    listed = [text for text in listed if text]
    if not listed:
        what = f"a column {ID!r}" if path.suffix == ".csv" else "an id a line"
        raise ValueError(f"{path}: must hold {what}, got none")
    if not of_integers:
        return np.array(listed)
    try:
        return np.array([int(text) for text in listed], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: ids must be integers, as those of the samples are ({error})") from None
