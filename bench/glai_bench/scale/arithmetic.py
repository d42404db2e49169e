"""What a hundred million rows, and ten thousand clients, would take: arithmetic on what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from glai_bench.scale.data import CLASSES

ROWS, CLIENTS = 10**8, 10**4
LARGEST_SQUARE, INT32 = 127**2, 2**31 - 1  # of a feature; what a sum is sent in while it holds it
WIRE = 1e9 / 8  # bytes a second of one server's gigabit


def paragraphs(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the paragraphs; none where the exact head was not measured."""
    exact = [cell for cell in cells if cell["kind"] == "exact" and cell["source"] == "memory map"]
    exact = [cell for cell in exact if cell["task"] == "classification"]
    if not exact:
        return []
    cell = max(exact, key=lambda cell: (cell["rows"], cell["units"]))
    features, units = cell["features"], cell["units"]
    size = units + features + 1
    a_row = cell["processor_seconds"] / cell["rows"]
    hours = ROWS * a_row / 3600
    products = size * (size + 1) / 2
    cores = math.ceil(hours)
    numbers = size * (size + 1) // 2 + size * CLASSES + CLASSES + 1
    of_client = ROWS // CLIENTS
    width = 4 if of_client * LARGEST_SQUARE <= INT32 else 8
    sent = numbers * width
    raw = of_client * features * 4
    return [
        f"{ROWS:,} rows of D = {features} in float32 are {ROWS * features * 4 / 1e9:.0f} GB. "
        f"At M = {units:,} a row took {a_row * 1e6:.1f} µs of a processor (N = {cell['rows']:,}, everything "
        f"included), so that they take {hours:.1f} processor hours: {_count(cores, 'core')} for one hour, on as few "
        f"machines as have them, each with its own rows, since sums of parts add up to the digest of the whole. Each "
        f"core then reads {ROWS * features * 4 / 3600 / cores / 1e6:.1f} MB/s, which no disk notices. What bounds it "
        f"is the Gram's M(M + 1)/2 = {products / 1e6:.2f} million multiply-adds a row (M = {size:,} with the inputs "
        f"and the constant), {products / a_row / 1e9:.0f} billion a second here; time grows as N·M². Memory does not "
        f"grow with N: {8 * size**2 / 1e6:.0f} MB of sums a process, but for the ledger, 16 bytes a row, "
        f"{16 * ROWS / 1e9:.1f} GB of all, which `--no-ledger` leaves out. The largest sum, {ROWS:.0e}·127², is "
        f"{ROWS * LARGEST_SQUARE / 2**63:.1e} of what an int64 holds.",
        f"Of {CLIENTS:,} clients with {of_client:,} rows each, a client works {of_client * a_row:.1f} s and sends, "
        f"once, the upper triangle, the cross sums and the counts: {numbers:,} numbers as int{8 * width}, "
        f"{sent / 1e6:.1f} MB, {CLIENTS * sent / 1e9:.0f} GB from all; its rows are {raw / 1e6:.1f} MB, "
        f"{'less than' if raw < sent else 'more than'} that: sums that can be taken out again and keep rows at home "
        f"are what is paid for, not bandwidth. One server with a gigabit reads them in "
        f"{CLIENTS * sent / WIRE / 60:.0f} minutes and holds one set of sums; as a tree of 100 servers with 100 "
        f"clients each, {100 * sent / WIRE:.0f} s, and {100 * numbers * 8 / WIRE:.0f} s to the root, in int64. The "
        f"solution is one factorisation of M = {size:,}, whatever N.",
    ]


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
