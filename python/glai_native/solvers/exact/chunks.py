"""Samples of any size come in chunks from here: from a file, a memory map, arrays, or whoever hands them over."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from glai_native.data.archives import ArrayRows
from glai_native.data.stored_rows import in_memory
from glai_native.machine.files import crc32

# Of x, by which a checkpoint knows its data.
KNOWN_ROWS = 16
# What an archive calls samples and targets; what ids.
NAMES = (("x", "y"), ("x_train", "y_train"))
IDS = "id"


class Chunk(NamedTuple):
    """Some samples: x ``[n, D]``, targets, and weights and ids ``[n]`` where there are some."""

    x: Any
    targets: Any
    sample_weight: Any = None
    ids: Any = None

    def part(self, rows: slice) -> Chunk:
        """Return some of the samples."""
        return Chunk(*(None if each is None else each[rows] for each in self))


class ReadSamples:
    """What has been read of x, targets, weights and ids, as checksums: the same ones, however it was cut into chunks.

    Source: CRC-32, going on from chunk to chunk.
    """

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}

    def add(self, chunk: Chunk) -> None:
        """Take samples that are read next."""
        for name, values in chunk._asdict().items():
            if values is not None and len(values):
                self._sums[name] = _checksum(values, self._sums.get(name, 0))

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:08x}" for name, value in self._sums.items())


def _checksum(values: Any, before: int) -> int:
    if isinstance(values, Tensor):
        return crc32(values, before)
    array = np.asarray(values)
    if isinstance(values, np.ndarray) and array.dtype.kind in "biufc":
        return crc32(torch.from_numpy(np.array(array, order="C").view(np.uint8)), before)
    # Of lists integers and floats may be mixed, and texts' arrays are as wide as the longest of a chunk.
    array = array.astype(np.float64) if array.dtype.kind in "biuf" else array
    for one in array.reshape(-1).tolist():
        before = zlib.crc32(repr(one).encode(), before)
    return before


class CountedChunks:
    """An iterator of chunks whose number of samples is known.

    Args:
        chunks: as :meth:`~glai_native.IntegerStatistics.accumulate` takes them.
        total: how many samples they hold; None: nobody knows.
    """

    def __init__(self, chunks: Iterable[Any], total: int | None) -> None:
        self._chunks, self.total = iter(chunks), total

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._chunks)


@dataclass(frozen=True)
class Source:
    """Where samples come from.

    Attributes:
        total: how many there are; None: nobody knows.
        chunks: all of them, once; some may be empty.
        cut_here: the chunks are of ``size`` rows; otherwise as the caller has cut them.
        first: CRC-32 of the first rows of x, of an iterable's first alone, however it is cut; None: there is none.
    """

    total: int | None
    chunks: Iterator[Chunk]
    first: str | None
    cut_here: bool = True

    @classmethod
    def of(cls, owner: str, data: Any, targets: Any, weight: Any, ids: Any, size: int) -> Source:
        """Open data of any kind that :func:`accumulate` takes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is none of these, or its parts are not as long as each other.
        """
        if isinstance(data, str | os.PathLike):
            path = Path(data)
            if not path.exists():
                raise FileNotFoundError(f"{path}: there is no such file")
            if zipfile.is_zipfile(path):
                if any(each is not None for each in (targets, weight, ids)):
                    raise ValueError(f"{owner}: targets, weights and ids must be those of {path}, got others")
                return cls._of_archive(path, size)
            data = _mapped(path)
        if isinstance(data, Tensor | np.ndarray):
            if targets is None:
                raise ValueError(f"{owner}: targets must be given with x, got none")
            if isinstance(targets, str | os.PathLike):
                targets = _mapped(Path(targets))
            whole = Chunk(data, targets, weight, ids)
            lengths = {name: len(each) for name, each in whole._asdict().items() if each is not None}
            if len(set(lengths.values())) > 1:
                listed = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
                raise ValueError(f"{owner}: all must be of the same N samples, got {listed}")
            return cls(len(data), _slices(whole, size), _first(data[:KNOWN_ROWS]))
        if not isinstance(data, Iterable) or any(each is not None for each in (targets, weight, ids)):
            raise ValueError(
                f"{owner}: data must be a path, x with targets, or an iterable of (x, targets) chunks alone, "
                f"got {type(data).__name__}"
            )
        first, chunks = _begun(iter(data))
        total = data.total if isinstance(data, CountedChunks) else None
        return cls(total, _checked(owner, chunks), first, cut_here=False)

    @classmethod
    def _of_archive(cls, path: Path, size: int) -> Source:
        archive = zipfile.ZipFile(path)
        held = {name.removesuffix(".npy") for name in archive.namelist()}
        names = next((pair for pair in NAMES if set(pair) <= held), None)
        if names is None:
            raise ValueError(f"{path}: must hold x, y or x_train, y_train; got {', '.join(sorted(held))}")
        parts = [ArrayRows(archive, path, name) for name in (*names, *([IDS] if IDS in held else []))]
        if len({len(part) for part in parts}) > 1:
            raise ValueError(f"{path}: all arrays must be as long as x, got {[len(part) for part in parts]}")
        first = _first(ArrayRows(archive, path, names[0]).read(min(KNOWN_ROWS, len(parts[0]))))
        return cls(len(parts[0]), _read(parts, size), first)


def _mapped(path: Path) -> np.ndarray[Any, Any]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        mapped: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: must be an .npy or .npz file ({error})") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: must be an .npy or .npz file, got a folder") from None
    return mapped


def _first(x: Any) -> str:
    rows = x.detach().cpu() if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
    return f"{rows.dtype} {list(rows.shape[1:])} {crc32(rows) if rows.numel() else 0}"


def _slices(whole: Chunk, size: int) -> Iterator[Chunk]:
    for at in range(0, len(whole.x), size):
        yield Chunk(*(None if each is None else _rows_in_memory(each[at : at + size]) for each in whole))


def _rows_in_memory(rows: Any) -> Any:
    return in_memory(rows) if isinstance(rows, np.memmap) else rows


def _read(parts: list[ArrayRows], size: int) -> Iterator[Chunk]:
    total = len(parts[0])
    for at in range(0, total, size):
        x, targets, *ids = (part.read(min(size, total - at)) for part in parts)
        yield Chunk(x, targets, None, ids[0] if ids else None)


def handed_on(pulled: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    """Yield what was pulled out of the list, then the rest; none of it is kept."""
    while pulled:
        yield pulled.pop(0)
    yield from rest


def _begun(chunks: Iterator[Any]) -> tuple[str | None, Iterator[Any]]:
    """Return the CRC-32 of the first row that comes, and all chunks, that one's too."""
    pulled: list[Any] = []
    for chunk in chunks:
        pulled.append(chunk)
        if not isinstance(chunk, tuple | list) or not chunk:
            break
        if len(chunk[0]):
            row = chunk[0][:1]
            known = isinstance(row, Tensor) or np.asarray(row).dtype.kind in "biuf"
            return _first(row) if known else None, handed_on(pulled, chunks)
    return None, handed_on(pulled, chunks)


def _checked(owner: str, chunks: Iterator[Any]) -> Iterator[Chunk]:
    for number, chunk in enumerate(chunks):
        if not isinstance(chunk, tuple | list) or not 2 <= len(chunk) <= 4:
            raise ValueError(
                f"{owner}: chunk {number} must be (x, targets), with sample_weight and ids where there are some, "
                f"got {type(chunk).__name__}"
            )
        yield Chunk(*chunk)
        del chunk  # before the next is made
