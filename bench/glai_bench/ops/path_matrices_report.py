"""Writes the page of the matrices of the closed forms.

python -m glai_bench.ops.path_matrices --threads 1 --output bench/results/cpu-paths.json &&
python -m glai_bench.ops.path_matrices_report
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from glai_bench.markdown import held, report_files, write_page

# Of path_kernel by D, and of path_gram at density 0.5: times faster than torch's best documented form.
KERNEL_TARGETS = {64: 7.0, 784: 3.5}
GRAM_TARGET = 3.0
COMMAND = "python -m glai_bench.ops.path_matrices"
INTRODUCTION = (
    f"`{COMMAND} --threads 1 --output bench/results/cpu-paths.json` measures this; `{COMMAND}_report` writes this page "
    "from it.",
    "The path kernel is what the dual solver needs of its samples, the gram matrix what statistics are; N samples, P "
    "paths, D features. Missed targets are bold.",
)


def main(argv: Sequence[str] | None = None) -> None:
    read, page = report_files(f"{COMMAND}_report", __doc__, "cpu-paths.json", "paths.md", argv)
    write_page(page, "The matrices of the closed forms", INTRODUCTION, markdown(json.loads(read.read_text())))


def markdown(results: dict[str, Any]) -> Iterator[str]:
    """A line per case: our time, and how many times faster than torch's best documented form."""
    machine = results["machine"]
    yield (
        f"`{COMMAND}{' --quick' if machine['quick'] else ''}`, float32, {machine['threads']} "
        f"thread{'s' if machine['threads'] > 1 else ''} of {machine['processor']}, {machine['cpu_isa']}, torch "
        f"{machine['torch']}. Results of cases with `out=` go to memory that was written before, of others to fresh "
        "memory, page faults included."
    )
    yield ""
    yield "| | ms | times faster than the best documented torch form | target |"
    yield "|---|---|---|---|"
    for row in results["rows"]:
        target = _target(row)
        ratio = held(f"{row['ratio']:.2f}", target is None or row["ratio"] >= target)
        yield (
            f"| `{row['op']}`, {row['case']} | {row['ours_ms']:.1f} | {ratio} ({row['best']}) "
            f"| {'' if target is None else f'{target:g}'} |"
        )


def _target(row: dict[str, Any]) -> float | None:
    case = dict(item.split("=") for item in row["case"].split() if not item.endswith("="))
    if row["op"] == "path_gram":
        return GRAM_TARGET if case["density"] == "0.5" else None
    large = int(case["N"]) == 4096 and int(case["units"]) == 1024
    return KERNEL_TARGETS.get(int(case["D"])) if large else None


if __name__ == "__main__":
    main()
