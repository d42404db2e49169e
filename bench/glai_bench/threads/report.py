"""Writes the figures of one thread and two as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glai_bench.markdown import held, table_header, table_row

MOST_WALL, MOST_PROCESSOR = 1.5, 2.0  # of two threads over one, on a busy machine


def markdown(results: Mapping[str, Any]) -> str:
    """Write the whole of threads.md; misses of a target are bold."""
    machine, settings = results["machine"], results["settings"]
    idle = {(row["kind"], row["call"]): row for row in results["rows"] if not row["busy"]}
    busy = {(row["kind"], row["call"]): row for row in results["rows"] if row["busy"]}
    lines = [
        "# A second thread, on an idle machine and on a busy one",
        "",
        f"`python -m glai_bench.threads --rounds {settings['rounds']}`: {machine['cores']} cores of "
        f"{machine['processor']}, {machine['cpu_isa']}, torch {results['torch']}.",
        "",
        f"Two threads over one, in turns, medians. Busy: beside {settings['busy']} processes that never rest. Targets, "
        f"on a busy machine: at most {MOST_WALL} times the wall time and {MOST_PROCESSOR:g} times the processor time; "
        "bold: missed. torch's own product is for comparison: its threads wait for each other. What is worth less than "
        "a second thread (32,768 operations) is done by one.",
        "",
        *table_header(
            "call", "one thread, idle", "two / one, idle", "two / one, busy", "processor time, busy"
        ),
    ]
    kind = ""
    for key, row in idle.items():
        if row["kind"] != kind:
            kind = row["kind"]
            lines.append(table_row(f"*{kind}*", "", "", "", ""))
        other = busy[key]
        ratio, used = other["two"] / other["one"], other["processor"]
        has_target = not row["call"].startswith("torch")
        lines.append(
            table_row(
                row["call"],
                _duration(row["one"]),
                f"{row['two'] / row['one']:.2f}",
                held(f"{ratio:.2f}", not has_target or ratio <= MOST_WALL),
                held(f"{used:.2f}", not has_target or used <= MOST_PROCESSOR),
            )
        )
    return "\n".join(lines) + "\n"


def _duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
