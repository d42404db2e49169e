"""This module tells how much memory there is, which is asked before something large is made, and takes it late."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from collections.abc import Callable
from math import prod
from pathlib import Path

import torch
from torch import Tensor

GB = 10**9  # the one unit that sizes are told in
CONTROL_GROUP = Path("/sys/fs/cgroup")
# What malloc.h calls the sizes from which a block is one of its own, and beyond which the heap's end is given back.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE_BLOCK = 1 << 22


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


def give_back_freed() -> None:
    """Give pages of what was freed back to the system, which glibc keeps where something in use lies behind them.

    It takes some milliseconds, and so much again where the pages are asked for anew: called behind what has taken tens
    of megabytes, it keeps the peak of what follows from standing on them.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def give_back_large_blocks() -> None:
    """Let this process give blocks of some megabytes back as soon as they are freed, for as long as it lives.

    glibc does so until the first such block is freed, and then keeps them, up to 64 MB, for the next ones. A library
    leaves that to whose process it is; a command, to which the process belongs, says it here.
    """
    option = _of_glibc("mallopt")
    if option is not None:
        option(M_MMAP_THRESHOLD, LARGE_BLOCK)
        option(M_TRIM_THRESHOLD, 2 * LARGE_BLOCK)


@functools.cache
def _of_glibc(name: str) -> Callable[..., object] | None:
    """Return a function of glibc; None: memory is another C library's."""
    try:
        function: Callable[..., object] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
    return function


def require_memory(owner: str, what: str, n_bytes: int, device: torch.device, advice: str) -> None:
    """Raise MemoryError, before work is begun, if it would take more bytes than there are."""
    available = free_memory(device)
    if n_bytes > available:
        raise MemoryError(
            f"{owner}: {what} takes {n_bytes / GB:,.1f} GB and {available / GB:,.1f} GB are available; {advice}"
        )
