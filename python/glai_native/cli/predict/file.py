"""Answers become a file here, of the kind that its suffix names."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glai_native.cli.command import require_writable_file
from glai_native.cli.models import Answers
from glai_native.machine.writing import write_files

SUFFIXES = (".csv", ".npz", ".npy", ".jsonl", ".json")


def require_answers_file(path: Path, proba: bool) -> None:
    """Raise, before the work, where answers could not be written after it."""
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"--out: FILE must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got '{path}'"
        )
    if proba and path.suffix == ".npy":
        raise ValueError(f"--proba needs a file of several columns (.csv, .npz, .jsonl), got '{path}'")
    require_writable_file("--out", path)


def write_answers(path: Path, found: Answers, ids: NDArray[Any] | None, proba: bool) -> None:
    """Write answers, in one step, with ids ``[N]`` where samples have some.

    A column ``label`` and, with ``proba``, one for each class, ``p(LABEL)``; of values a column ``value``, or
    ``value 0``, ``value 1`` and so on.
    """
    columns: dict[str, NDArray[Any]] = {} if ids is None else {"id": ids}
    arrays = dict(columns)
    if found.classes is None:
        width = found.values.shape[1]
        names = ["value"] if width == 1 else [f"value {c}" for c in range(width)]
        columns |= dict(zip(names, found.values.T, strict=True))
        arrays["value"] = found.values[:, 0] if width == 1 else found.values
    else:
        columns["label"] = arrays["label"] = found.labels
        if proba:
            shares = np.exp(found.log_probabilities)
            columns |= {f"p({label})": shares[:, c] for c, label in enumerate(found.classes)}
            arrays |= {"proba": shares, "classes": np.array(found.classes)}
    write_files({path: _content(path.suffix, columns, arrays)})


def _content(suffix: str, columns: dict[str, NDArray[Any]], arrays: dict[str, NDArray[Any]]) -> bytes:
    if suffix in (".npz", ".npy"):
        binary = io.BytesIO()
        if suffix == ".npz":
            np.savez_compressed(binary, **arrays)  # type: ignore[arg-type]
        else:
            np.save(binary, arrays["value"] if "value" in arrays else arrays["label"])
        return binary.getvalue()
    text = io.StringIO(newline="")
    if suffix == ".csv":
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(_rows(columns))
    else:
        for row in _rows(columns):
            text.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")
    return text.getvalue().encode()


def _rows(columns: dict[str, NDArray[Any]]) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.tolist() for column in columns.values()), strict=True)
