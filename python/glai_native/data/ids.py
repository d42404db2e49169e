"""Samples are chosen by their ids: a list of them is a text file, one a line, or the column ``id`` of a .csv."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glai_native.data.sources import Rows
from glai_native.data.tables import ID, ids_as_written

SHOWN = 8  # ids in a message


def rows_of_ids(source: str, rows: Rows, path: Path) -> Rows:
    """Return the samples, in their order, whose ids a file lists, as they are written: 3 is not 003.

    Args:
        source: of the samples, for errors.
        rows: with ids.
        path: of the list.

    Raises:
        ValueError: samples have no ids, the list is empty or cannot be read, or holds an id that no sample has.
    """
    if rows.ids is None:
        raise ValueError(f"{source}: must hold the samples' ids, a column or an array 'id', got none")
    ids, wanted = rows.ids, ids_as_written(_read_ids(path))
    if not ids.dtype.kind == wanted.dtype.kind == "i":
        ids, wanted = (np.asarray(each, dtype=np.str_) for each in (ids, wanted))
    chosen = np.isin(ids, wanted)
    unknown = wanted[~np.isin(wanted, ids)]
    if len(unknown):
        shown = ", ".join(map(repr, unknown[:SHOWN].tolist())) + (", …" if len(unknown) > SHOWN else "")
        raise ValueError(
            f"{path}: must list ids of {source}, got {len(unknown):,} that it does not hold: {shown}"
        )
    return rows[chosen.nonzero()[0]]


def _read_ids(path: Path) -> NDArray[np.str_]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                listed = [row.get(ID) or "" for row in csv.DictReader(file)]
            else:
                listed = [line.rstrip("\r\n") for line in file]  # spaces may be an id's own
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as a list of ids in UTF-8 ({error})") from None
    listed = [text for text in listed if text.strip()]
    if not listed:
        what = f"a column {ID!r}" if path.suffix == ".csv" else "an id a line"
        raise ValueError(f"{path}: must hold {what}, got none")
    return np.array(listed)
