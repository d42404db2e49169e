"""Puts the times of a training step and of the matrices of the closed forms into the README.

python bench/bench_sgd.py --output bench/results/sgd.json
python bench/bench_paths.py --output bench/results/cpu-paths.json && python bench/report_steps.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glai_native.measuring import OURS
from report import ROOT, held, with_report

# Of path_kernel by D, and of path_gram at density 0.5: times faster than torch's best documented form.
KERNEL_TARGETS = {64: 7.0, 784: 3.5}
GRAM_TARGET = 3.0
STEP_TARGET = 1.3  # a step's time over that of its two products


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results = ROOT / "bench/results"
    parser.add_argument("--steps", type=Path, default=results / "sgd.json", metavar="FILE")
    parser.add_argument("--paths", type=Path, default=results / "cpu-paths.json", metavar="FILE")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", metavar="FILE")
    arguments = parser.parse_args()
    text = arguments.readme.read_text()
    for file, lines, marker in (
        (arguments.steps, steps, "step results"),
        (arguments.paths, matrices, "path results"),
    ):
        part = "\n".join(lines(json.loads(file.read_text())))
        text = with_report(text, part, marker, str(arguments.readme))
    arguments.readme.write_text(text)


def steps(results: dict[str, Any]) -> Iterator[str]:
    """A line per shape and kind of paths, the numbers of threads side by side."""
    machine, rows = results["machine"], results["rows"]
    threads = sorted({row["threads"] for row in rows})
    yield (
        f"`python bench/bench_sgd.py`, density {machine['density']:g}, {machine['processor']}, {machine['cpu_isa']}, "
        f"torch {machine['torch']}. Times faster than the best PyTorch form with fused AdamW; missed targets are bold."
    )
    yield ""
    counts = [f"{n} thread: µs; times faster" if n == 1 else f"{n} threads" for n in threads]
    over = (
        f"step over its forward and gradient, {'; '.join(map(str, threads))} threads (target {STEP_TARGET:g})"
    )
    yield f"| (N,P,D,C) | {' | '.join(counts)} | target | {over} |"
    yield f"|{'---|' * (3 + len(threads))}"
    lines: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        name = f"({','.join(map(str, row['shape']))}), {'directions' if row['directions'] else 'full paths'}"
        lines.setdefault(name, {})[row["threads"]] = row
    for name, found in lines.items():
        taken = [_step(found[n]) if n in found else "" for n in threads]
        shares = [found[n].get("step over its two products") for n in threads if n in found]
        over = "; ".join(held(f"{share:.2f}", share <= STEP_TARGET) for share in shares if share is not None)
        target = next(iter(found.values()))["target"]
        yield f"| {name} | {' | '.join(taken)} | {'' if target is None else f'{target:g}'} | {over} |"


def _step(row: dict[str, Any]) -> str:
    faster, target = row["times faster"], row["target"]
    return f"{row['microseconds'][OURS]:,.0f}; {held(f'{faster:.2f}', target is None or faster >= target)}"


def matrices(results: dict[str, Any]) -> Iterator[str]:
    """A line per case: our time, and how many times faster than torch's best documented form."""
    machine = results["machine"]
    yield (
        f"`python bench/bench_paths.py{' --quick' if machine['quick'] else ''}`, float32, {machine['threads']} "
        f"thread{'s' if machine['threads'] > 1 else ''} of {machine['processor']}, {machine['cpu_isa']}, torch "
        f"{machine['torch']}. Results of cases with `out=` go to memory that was written before, of others to fresh "
        "memory, page faults included."
    )
    yield ""
    yield "| | ms | times faster than the best documented torch form | target |"
    yield "|---|---|---|---|"
    for row in results["rows"]:
        target = _matrix_target(row)
        ratio = held(f"{row['ratio']:.2f}", target is None or row["ratio"] >= target)
        yield (
            f"| `{row['op']}`, {row['case']} | {row['ours_ms']:.1f} | {ratio} ({row['best']}) "
            f"| {'' if target is None else f'{target:g}'} |"
        )


def _matrix_target(row: dict[str, Any]) -> float | None:
    case = dict(item.split("=") for item in row["case"].split() if not item.endswith("="))
    if row["op"] == "path_gram":
        return GRAM_TARGET if case["density"] == "0.5" else None
    large = int(case["N"]) == 4096 and int(case["units"]) == 1024
    return KERNEL_TARGETS.get(int(case["D"])) if large else None


if __name__ == "__main__":
    main()
