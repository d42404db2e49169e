"""How much memory is said to be free, and that zeros take some only where they are written."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glai_native.machine import memory


def test_the_file_cache_of_a_control_group_is_free(tmp_path, monkeypatch):
    """What was read from disk counts as used until something else needs it."""
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    cpu = torch.device("cpu")
    without = memory.free_memory(cpu)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("9000000\n")
    assert memory.free_memory(cpu) > without / 2
    (tmp_path / "memory.max").write_text("10000000\n")
    assert memory.free_memory(cpu) == 1_000_000
    (tmp_path / "memory.stat").write_text(
        "anon 1000000\nfile 8000000\nactive_file 3000000\ninactive_file 4000000\n"
    )
    assert memory.free_memory(cpu) == 8_000_000


def resident():
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("nobody says how much memory is used")
    return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if "VmRSS" in line)


def test_zeros_take_memory_where_they_are_written():
    before = resident()
    zeros = memory.unwritten_zeros((2048, 4096), torch.int64, torch.device("cpu"))
    assert resident() - before < zeros.nbytes // 8
    zeros[:512] = 1
    assert resident() - before > zeros.nbytes // 8
    assert (int(zeros.sum()), int(zeros[512:].abs().max())) == (512 * 4096, 0)
    assert memory.unwritten_zeros((0, 3), torch.int64, torch.device("cpu")).shape == (0, 3)


def test_freed_pages_are_given_back_where_glibc_keeps_them():
    """In a process of its own: the options hold for as long as it lives."""
    code = (
        "from glai_native.machine import memory\n"
        "memory.give_back_large_blocks()\n"
        "memory.give_back_freed()\n"
        "assert memory._of_glibc('no such function') is None\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
