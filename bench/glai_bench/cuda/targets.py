"""What the GPU benchmark's rows add up to: the targets per precision, and which cells missed theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from glai_bench.cuda.card import PRECISIONS
from glai_bench.cuda.cell import PATH_KERNEL
from glai_bench.ops.cases import Shape
from glai_bench.ops.grid import FORWARD, OPS, Row
from glai_bench.ops.targets import Figure, geometric_mean

# Products of this many multiply-adds are bounded by the matrix units alone.
LARGE_WORK = 1 << 37


@dataclass(frozen=True)
class Line:
    """A line of the table: which rows it counts, and the target of their geometric mean.

    ``precisions``: those that the target is set for; ``figure``: what of a row is counted.
    """

    label: str
    counts: Callable[[Row], bool]
    target: float | None
    precisions: tuple[str, ...] = ("bf16", "tf32")
    figure: str = "ratio"

    def target_for(self, precision: str) -> float | None:
        """None: no target is set."""
        return self.target if precision in self.precisions else None


def _of(op: str, counts: Callable[[int, float], bool]) -> Callable[[Row], bool]:
    """Rows of one op whose number of outputs and density are counted."""
    return lambda row: row["op"] == op and counts(row["shape"][3], row["density"])


def _many(op: str, low: float, high: float) -> Callable[[Row], bool]:
    """Rows with many outputs whose density or deviation, the smaller of the two, is over low, up to high."""

    def counts(row: Row) -> bool:
        if row["op"] != op or row["shape"][3] < 128 or row["density"] == 1:
            return False
        return bool(low < min(row["density"], row["deviation"]) <= high)

    return counts


def _other(op: str) -> Callable[[Row], bool]:
    """Rows of one op under density 1 that no line with a target counts."""

    def counts(row: Row) -> bool:
        few = row["shape"][3] <= 64 and row["density"] <= 0.75
        return bool(row["op"] == op and row["density"] < 1 and not few and not _many(op, -1, 0.25)(row))

    return counts


def _large(row: Row) -> bool:
    return row["op"] == FORWARD and row["shape"][3] >= 64 and Shape(*row["shape"]).work >= LARGE_WORK


LINES = (
    *(Line(f"{op}, C <= 64, density <= 0.75", _of(op, lambda c, r: c <= 64 and r <= 0.75), 2) for op in OPS),
    *(Line(f"{op}, C >= 128, density or deviation <= 0.25", _many(op, 0.1, 0.25), 2) for op in OPS),
    *(Line(f"{op}, C >= 128, density or deviation <= 0.1", _many(op, -1, 0.1), 4) for op in OPS),
    *(Line(f"{op}, other C and density", _other(op), None) for op in OPS),
    *(Line(f"{op}, density 1", _of(op, lambda c, r: r == 1), 1) for op in OPS),
    Line("path kernel", lambda row: row["op"] == PATH_KERNEL, 3, ("bf16",)),
    Line("forward, share of the matrix rate", _large, 0.45, ("bf16",), "matrix_fraction"),
)
FLOOR = 1.0  # of any cell's ratio


def summarize(rows: Sequence[Row], precisions: Sequence[str]) -> list[tuple[str, list[Figure | None]]]:
    """Label and a figure per precision (None: no such cell); the last line is the worst cell of all."""
    summary = []
    for line in LINES:
        figures = [
            _figure(
                [row[line.figure] for row in _of_precision(rows, p) if line.counts(row)], line.target_for(p)
            )
            for p in precisions
        ]
        if any(figures):
            summary.append((line.label, figures))
    worst = [min((row["ratio"] for row in _of_precision(rows, p)), default=None) for p in precisions]
    summary.append(
        ("any cell", [None if one is None else Figure(one, one, len(rows), FLOOR) for one in worst])
    )
    return summary


def cuda_command_name(settings: dict[str, Any]) -> str:
    """The command that was run, its output file aside."""
    words = ["python -m glai_bench --device cuda"]
    if settings["quick"]:
        words.append("--quick")
    if settings["shapes"]:
        words += ["--shape", *(shape.strip("()") for shape in settings["shapes"])]
    if settings["precisions"] != list(PRECISIONS):
        words += ["--precisions", *settings["precisions"]]
    if settings.get("forms"):
        words.append("--forms")
    return " ".join([*words, f"--seconds {settings['seconds']:g}"])


def _of_precision(rows: Sequence[Row], precision: str) -> list[Row]:
    return [row for row in rows if row["precision"] == precision]


def _figure(values: Sequence[float], target: float | None) -> Figure | None:
    return Figure(geometric_mean(values), min(values), len(values), target) if values else None
