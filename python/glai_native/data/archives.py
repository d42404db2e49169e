"""Arrays of an .npz archive are read some rows at a time, so that they need not fit in memory."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


class ArrayRows:
    """Rows of one array of an archive, from the first to the last.

    Args:
        archive: open.
        path: for the messages.
        name: of the array, without ``.npy``.

    Raises:
        ValueError: it is of objects, in Fortran's order, or damaged.
    """

    def __init__(self, archive: zipfile.ZipFile, path: Path, name: str) -> None:
        self._source = f"{path}: {name}"
        try:
            self._file: IO[bytes] = archive.open(f"{name}.npy")
            self.shape, fortran, self.dtype = _read_header(self._file)
        except (ValueError, zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{self._source} cannot be read ({error})") from None
        if self.dtype.hasobject or not self.shape or (fortran and len(self.shape) > 1):
            raise ValueError(
                f"{self._source} must be an array [N, ...] of numbers or texts in C's order, got {self.dtype} "
                f"{list(self.shape)}{' in Fortran order' if fortran else ''}"
            )
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, count: int) -> NDArray[Any]:
        """Return the next rows."""
        rows = np.empty((count, *self.shape[1:]), dtype=self.dtype)
        self._fill(rows.reshape(-1).view(np.uint8).data)
        return rows

    def _fill(self, content: memoryview) -> None:
        """Read as many bytes as there is room for."""
        filled = 0
        while filled < len(content):
            try:
                read = self._file.readinto(content[filled:])  # type: ignore[attr-defined]
            except (zipfile.BadZipFile, EOFError, zlib.error) as error:
                raise ValueError(f"{self._source} is damaged ({error})") from None
            if not read:
                raise ValueError(f"{self._source} is truncated")
            filled += read


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"its version must be 1.0 or 2.0, got {version[0]}.{version[1]}")
    return read[version](file)
