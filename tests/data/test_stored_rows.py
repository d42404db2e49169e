"""Rows of a memory map are copied, and leave no pages of the file behind."""

from pathlib import Path

import numpy as np
import pytest

from glai_native.data.stored_rows import StoredRows, in_memory

SMAPS = Path("/proc/self/smaps")


@pytest.mark.skipif(not SMAPS.exists(), reason="Linux alone says which pages are there")
def test_pages_that_were_read_do_not_stay(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(1 << 20, dtype=np.float32).reshape(-1, 64))
    x = np.load(path, mmap_mode="r")
    assert np.array_equal(in_memory(x[100:200]), np.arange(6400, 12800).reshape(-1, 64))
    assert StoredRows("x", x).read(np.arange(0, 16384, 7)).shape == (2341, 64)
    assert _resident_kilobytes(path) == 0
    assert np.array(x).nbytes == 1 << 22
    assert _resident_kilobytes(path) >= 1 << 12


def _resident_kilobytes(path):
    lines = SMAPS.read_text().splitlines()
    begin = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
    return next(int(line.split()[1]) for line in lines[begin:] if line.startswith("Rss:"))


def test_a_private_map_keeps_what_was_written(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((1000, 4), dtype=np.float32))
    x = np.load(path, mmap_mode="c")
    x[3] = 7
    assert in_memory(x[:10])[3, 0] == 7
    assert x[3, 0] == 7
