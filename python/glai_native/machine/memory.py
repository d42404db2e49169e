"""This module tells how much memory there is, which is asked before something large is made, and takes it late."""

from __future__ import annotations

import mmap
import os
from math import prod
from pathlib import Path

import torch
from torch import Tensor

GB = 10**9  # the one unit that sizes are told in
CONTROL_GROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Return the bytes that ``device`` can still give; for the CPU without swapping, and within its control group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # also counts what the file cache would give back
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else free
    limit, used, stat = (CONTROL_GROUP / name for name in ("memory.max", "memory.current", "memory.stat"))
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        cached = 0  # its use counts the file cache too, which data read from disk soon fill
        if stat.exists():
            entries = dict(line.split() for line in stat.read_text().splitlines())
            cached = sum(int(entries.get(name, 0)) for name in ("inactive_file", "active_file"))
        free = min(free, max(int(limit.read_text()) - int(used.read_text()) + cached, 0))
    return free


def unwritten_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros; on the CPU a page of them takes memory once it is written, of an upper triangle half of them."""
    size = prod(shape) * dtype.itemsize
    if device.type != "cpu" or not size:
        return torch.zeros(shape, dtype=dtype, device=device)
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size / GB:.3g} GB of memory are not there ({error})") from None
    return torch.frombuffer(pages, dtype=dtype).reshape(shape)


def require_memory(owner: str, what: str, n_bytes: int, device: torch.device, advice: str) -> None:
    """Raise MemoryError, before work is begun, if it would take more bytes than there are."""
    available = free_memory(device)
    if n_bytes > available:
        raise MemoryError(
            f"{owner}: {what} takes {n_bytes / GB:,.1f} GB and {available / GB:,.1f} GB are available; {advice}"
        )
