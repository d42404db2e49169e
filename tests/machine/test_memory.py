"""How much memory is said to be free."""

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
