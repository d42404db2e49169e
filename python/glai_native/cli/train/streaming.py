"""Data that need not fit in memory stay on disk while ``glai train`` learns them, a window of rows at a time."""

from __future__ import annotations

import argparse
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy

from glai_native.cli.train.exact_streaming import StreamedRun, numbered, of_rows
from glai_native.data.features import float_features
from glai_native.data.labelled import AnyData, Labelled, numbered_targets
from glai_native.data.labels import Label
from glai_native.data.sources import Rows
from glai_native.data.stored_rows import StoredRows
from glai_native.data.streaming import StreamedRows
from glai_native.data.tables import TableNames
from glai_native.data.targets import Task, class_labels_of, values_of
from glai_native.machine.progress import samples_bar
from glai_native.training.reading import stored_or_whole


@contextmanager
def stored_data(
    arguments: argparse.Namespace,
    known: TableNames,
    has_values: bool | None,
    classes: Sequence[Label],
    centred_in: torch.dtype | None,
) -> Iterator[tuple[AnyData, Task]]:
    """Open the data of a training; for as long as it takes, features lie in an .npy file, that of the data or one made.

    Args:
        arguments: of ``glai train``.
        known: of its table by the model whose structure is kept.
        has_values: whether that model's outputs are values; None: there is none.
        classes: labels that it knows.
        centred_in: what its projection centres in; None: there is none.
    """
    run = StreamedRun.open(arguments, known, has_values, None)
    path, out, columns = run.source.path, Path(arguments.out), run.source.names.columns
    folder = _scratch_folder(out)
    try:
        train = _stored(path, "train", run.train, folder, centred_in, columns)
        test = _stored(path, "test", run.test, folder, centred_in, columns) if len(run.test) else None
        x_test: StoredRows | torch.Tensor = torch.empty((0, train.n_features))
        if test is not None:
            x_test = stored_or_whole(test)
        if train.n_features != x_test.shape[1]:
            raise ValueError(
                f"{path}: train and test must have the same features, got {train.n_features} and {x_test.shape[1]}"
            )
        rows = [_targets(path, part, run.of_values) for part in (run.train, run.test)]
        y_train, y_test, labels = numbered_targets(path, rows[0], rows[1], run.of_values, classes)
        data = Labelled(run.source.name, train, y_train, x_test, y_test, labels, run.source.names)
        task = run.task
        del run, rows  # and with them the targets as the file has them
        yield data, task
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _scratch_folder(out: Path) -> Path:
    """Make a folder beside ``out``; those of processes that are gone are removed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for folder in out.parent.glob(f".{glob.escape(out.name)}.rows-*-*"):
        number = folder.name.removeprefix(f".{out.name}.rows-").partition("-")[0]
        if number.isdecimal() and not _is_alive(int(number)):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f".{out.name}.rows-{os.getpid()}-", dir=out.parent))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _targets(path: str, rows: StreamedRows, of_values: bool) -> Rows:
    """Return targets, checked, as samples without features."""
    y = rows.targets
    found = values_of(path, Rows(y, y), None) if of_values else class_labels_of(path, y)
    return Rows(found, found)


def _stored(
    path: str,
    part: str,
    rows: StreamedRows,
    folder: Path,
    centred_in: torch.dtype | None,
    columns: Sequence[str] | None,
) -> StoredRows:
    """Return features that stay where they are, or in a file of their own."""
    if rows.mapped is not None:
        stored = StoredRows(path, rows.mapped)
        stored.centred_in = centred_in
        return stored if rows.kept is None else stored.part(np.flatnonzero(rows.kept))
    file, shape = folder / f"{part}.npy", None
    dtype: np.dtype[Any] = np.dtype(np.float32)
    with open(file, "wb") as stream, samples_bar(f"reading {part}", len(rows)) as done:
        for begin, chunk in numbered(rows):
            with of_rows(begin, chunk):
                if chunk.x.ndim < 2:
                    raise ValueError(f"{path}: {part} must be x [N >= 1, ...], got {list(chunk.x.shape)}")
                raw = chunk.x.reshape(len(chunk), -1)
                x = float_features(path, raw, columns=columns, centred_in=centred_in)
            if shape is None:
                # Whether float32 holds what they say, all of them tell, not the first.
                fine = raw.dtype.itemsize > 4 or (raw.dtype.kind in "iu" and raw.dtype.itemsize == 4)
                shape, dtype = (
                    (len(rows), x.shape[1]),
                    np.dtype(np.float64) if fine and centred_in is None else x.dtype,
                )
                header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                npy.write_array_header_1_0(stream, header)
            stream.write((raw if dtype == np.float64 else x).astype(dtype, copy=False).data)
            done(len(x))
    if shape is None:
        raise ValueError(f"{path}: {part} must be x [N >= 1, ...], got none")
    return StoredRows(path, np.load(file, mmap_mode="r"))
