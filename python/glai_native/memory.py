"""Whether a matrix fits in memory, asked before it is made."""

from __future__ import annotations

from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")


def available_bytes(device: torch.device) -> int | None:
    """Bytes that can still be had on ``device``; None where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def require_memory(owner: str, what: str, n_bytes: int, device: torch.device, advice: str) -> None:
    """Refuses, before it is begun, what would take more bytes than there are."""
    available = available_bytes(device)
    if available is not None and n_bytes > available:
        raise MemoryError(
            f"{owner}: {what} takes {n_bytes / 1e9:,.1f} GB and {available / 1e9:,.1f} GB are available; {advice}"
        )
