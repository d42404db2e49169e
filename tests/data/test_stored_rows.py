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


def test_a_file_that_was_replaced_is_not_read(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1000, 4), dtype=np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.save(tmp_path / "other.npy", np.ones((1000, 4), dtype=np.float32))
    (tmp_path / "other.npy").replace(tmp_path / "x.npy")
    assert not StoredRows("x", x).read(slice(0, 10)).any()


def test_views_of_a_map_are_read_from_where_they_lie(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(4000, dtype=np.float32).reshape(1000, 4))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    for view in (x[17:], x[::5], x[::5][:1], x[:, 1:3], x[300:301]):
        assert np.array_equal(StoredRows("x", view).read(slice(None)), view)
        rows = np.unique(np.linspace(0, len(view) - 1, 7).astype(np.int64))
        assert np.array_equal(StoredRows("x", view).read(rows), view[rows])
