"""Writes the page of a training step's times on a CPU.

python -m glai_bench.steps --output bench/results/sgd.json && python -m glai_bench.steps.report
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from glai_bench.clock import OURS
from glai_bench.markdown import held, report_files, table_header, table_row, write_page

STEP_TARGET = 1.3  # a step's time over that of its two products
INTRODUCTION = (
    "`python -m glai_bench.steps --output bench/results/sgd.json` measures this; `python -m glai_bench.steps.report` "
    "writes this page from it.",
    'A step is what training by `solver="sgd"` repeats: forward, loss, gradient and AdamW on one batch, natively. '
    "(N,P,D,C): samples of a batch, paths, features, outputs.",
)


def main(argv: Sequence[str] | None = None) -> None:
    read, page = report_files("python -m glai_bench.steps.report", __doc__, "sgd.json", "steps.md", argv)
    results = json.loads(read.read_text())
    if results.get("settings", {}).get("device") == "cuda":
        raise SystemExit(
            f"{read}: must be of a CPU; a GPU's are printed by python -m glai_bench.steps --device cuda"
        )
    write_page(page, "A step of the native loop", INTRODUCTION, markdown(results))


def markdown(results: dict[str, Any]) -> Iterator[str]:
    """A line per shape and kind of paths, the numbers of threads side by side."""
    machine, rows = results["machine"], results["rows"]
    threads = sorted({row["threads"] for row in rows})
    yield (
        f"`python -m glai_bench.steps`, density {machine['density']:g}, {machine['processor']}, {machine['cpu_isa']}, "
        f"torch {machine['torch']}. Times faster than the best PyTorch form with fused AdamW; missed targets are bold."
    )
    counts = [f"{n} thread: µs; times faster" if n == 1 else f"{n} threads" for n in threads]
    over = (
        f"step over its forward and gradient, {'; '.join(map(str, threads))} threads (target {STEP_TARGET:g})"
    )
    yield from ("", *table_header("(N,P,D,C)", *counts, "target", over))
    lines: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        name = f"({','.join(map(str, row['shape']))}), {'directions' if row['directions'] else 'full paths'}"
        lines.setdefault(name, {})[row["threads"]] = row
    for name, found in lines.items():
        taken = [_step(found[n]) if n in found else "" for n in threads]
        shares = [found[n].get("step over its two products") for n in threads if n in found]
        over = "; ".join(held(f"{share:.2f}", share <= STEP_TARGET) for share in shares if share is not None)
        target = next(iter(found.values()))["target"]
        yield table_row(name, *taken, "" if target is None else f"{target:g}", over)


def _step(row: dict[str, Any]) -> str:
    faster, target = row["times faster"], row["target"]
    return f"{row['microseconds'][OURS]:,.0f}; {held(f'{faster:.2f}', target is None or faster >= target)}"


if __name__ == "__main__":
    main()
