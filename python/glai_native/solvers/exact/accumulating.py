"""Integer statistics of data that do not fit in memory are added up here, and go on after a kill."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from torch import Tensor

from glai_native.data.chunks import of_chunk
from glai_native.data.counts import require_count
from glai_native.machine.files import shown
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.progress import sample_progress
from glai_native.machine.writing import find_file, remove_leftovers, write_files
from glai_native.solvers.exact.aligning import joined
from glai_native.solvers.exact.alike import require_alike
from glai_native.solvers.exact.chunks import Chunk, ReadSamples, Source
from glai_native.solvers.exact.file import open_exact
from glai_native.solvers.exact.filing import FiledSums

Sums = TypeVar("Sums", bound=FiledSums)


class AccumulatedSums(FiledSums):
    """Integer sums that data of any size are added to."""

    @outside_inference_mode
    def accumulate(
        self,
        data: Any,
        targets: Any = None,
        sample_weight: Tensor | np.ndarray[Any, Any] | None = None,
        ids: Any = None,
        *,
        encode: Callable[[Self, Any, Any], Any] | None = None,
        chunk: int = 16384,
        checkpoint: str | os.PathLike[str] | None = None,
        save_seconds: float = 60.0,
        progress: bool = True,
    ) -> None:
        """Add samples chunk by chunk, so that they may lie on disk, or come from anywhere.

        With ``checkpoint`` the sums of these data are saved every so many seconds, and when all are in. Called again
        after a kill, with the same data, it goes on behind the last one saved, and ends with the same digest; chunks
        may be others, since no bits depend on them. The file is one that :meth:`load` reads.

        They are summed apart, and merged into these when all are in: what fails, or is interrupted, adds nothing.

        Args:
            data: x ``[N, D]``, a tensor or an array, memory-mapped or not; a path to an .npy of it; a path to an .npz
                of ``x`` and ``y`` (or ``x_train`` and ``y_train``), and ``id`` where samples have ids, which is read
                row by row; or an iterable of chunks ``(x, targets)``, ``(x, targets, sample_weight)`` or
                ``(x, targets, sample_weight, ids)``.
            targets: with x, of its N samples, or a path to an .npy of them.
            sample_weight: with x; as for :meth:`update`.
            ids: with x, the same.
            encode: called with the sums of these data, and with targets and weights as the data hold them, gives the
                targets that :meth:`update` takes; it may add classes to the sums. None: they are that already.
            chunk: samples that are read at a time.
            checkpoint: the file to save to and go on from; None: none.
            save_seconds: between two saves.
            progress: show a bar with samples per second.

        Raises:
            ValueError: data that do not fit, by chunk and by row within it, or a checkpoint of others.
        """
        owner = "accumulate"
        chunk = require_count(owner, "chunk", chunk)
        path = None if checkpoint is None else Path(checkpoint)
        if self.targets == "values" and self.fixed_point is None:
            raise ValueError(
                f"{owner}: statistics of values must have a step=, or the first chunk would choose it"
            )
        part, begin = self.emptied(), 0
        stated: dict[str, str] = {}
        if path is not None:
            remove_leftovers(path.parent, [path.name])
            if find_file(path) is not None:
                part, begin, stated = _resumed(path, part)
        source = Source.of(owner, data, targets, sample_weight, ids, chunk)
        job = {"rows": str(source.total), "first_rows": str(source.first)}
        if begin:
            for name, value in job.items():
                if stated.get(name) != value:
                    raise ValueError(
                        f"{owner}: checkpoint {path} is of other data, {name} must be {value}, got "
                        f"{shown(stated.get(name))}"
                    )
        saved = time.monotonic()
        read = None if path is None else ReadSamples()
        with sample_progress(progress) as bar:
            task = bar.add_task("samples", total=source.total, completed=begin)
            for number, rows in _going_on(source.chunks, begin, read, path, stated.get("read")):
                x, y, weight, names = rows
                with of_chunk(owner, number, begin if source.cut_here else None):
                    part.update(x, y if encode is None else encode(part, y, weight), weight, names)
                begin += len(x)
                del rows, x  # before the next ones are read
                bar.update(task, completed=begin)
                if path is not None and time.monotonic() - saved >= save_seconds:
                    write_files({path: part.to_pieces(next_row=str(begin), read=str(read), **job)})
                    saved = time.monotonic()
        if path is not None:
            write_files({path: part.to_pieces(next_row=str(begin), read=str(read), **job)})
        if self.n_samples:
            self.merge(part)
        else:  # which costs no second gram matrix
            self.__dict__ = part.__dict__

    @abstractmethod
    def update(self, x: Any, targets: Any, sample_weight: Any = None, ids: Any = None) -> None:
        """Add samples."""

    @abstractmethod
    def merge(self, other: Any) -> Self:
        """Add the samples of others."""

    @abstractmethod
    def emptied(self) -> Self:
        """Return sums of the same kind without samples."""


def _going_on(
    chunks: Iterator[Chunk], begin: int, read: ReadSamples | None, path: Path | None, known: str | None
) -> Iterator[tuple[int, Chunk]]:
    """Yield the samples behind the first ``begin``, with the numbers of their chunks.

    The first are read too: they must be those that a checkpoint knows.

    Args:
        chunks: all samples.
        begin: how many are in the checkpoint.
        read: is given all that is read; None: nobody wants to know.
        path: the checkpoint.
        known: what had been read when it was written; None: older ones do not say.
    """
    left = begin
    for number, chunk in enumerate(chunks):
        passed = min(left, len(chunk.x))
        left -= passed
        if passed and read is not None:
            read.add(chunk.part(slice(passed)))
            if not left and known is not None and known != str(read):
                raise ValueError(
                    f"accumulate: checkpoint {path} is of other data, the first {begin:,} samples have changed since"
                )
        if passed < len(chunk.x):
            rest = chunk.part(slice(passed, None)) if passed else chunk
            if read is not None:
                read.add(rest)
            yield number, rest
            del rest
        del chunk  # before the next is made
    if left:
        raise ValueError(
            f"accumulate: data must be those that were begun with, got {begin - left:,} samples where the checkpoint "
            f"is behind {begin:,}"
        )


def _resumed(path: Path, empty: Sums) -> tuple[Sums, int, dict[str, str]]:
    """Return the sums of a checkpoint, the first row that is not in them, and what it states of its data."""
    file = open_exact(path)
    found = type(empty).from_file(file, empty.features)
    require_alike("accumulate", empty, found)
    joined(empty._labels, found._labels, (empty.out_features, found.out_features))
    found.ledger = found.ledger if empty.ledger is not None else None
    found.class_grams = found.class_grams if empty.class_grams is not None else None
    return found, file.integer("next_row"), file.metadata
