"""What the benchmark's rows add up to: the table of targets, and which cells missed theirs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from glai_bench.ops.cases import DENSITIES, GIANT, INDEPENDENT, Shape
from glai_bench.ops.grid import FORWARD, INPUT_GRAD, OPS, WEIGHT_GRAD, Row

# Columns of the table, by density; real gates count in the one nearest their density.
COLUMNS = ("0.5-0.75", "0.25", "<= 0.1", "whole line")
WHOLE = len(COLUMNS) - 1
DENSE = 0.85  # gates over this count as density 1, which stands outside all columns
SCALING_TARGET = 0.9  # of sgemm's
BF16_TARGET = 1.8  # our own float32's time over bf16's

# A target per column, and the floor of any cell.
Targets = tuple[float | None, float | None, float | None, float | None, float]


@dataclass(frozen=True)
class Line:
    """A line of the table: which rows it counts, and its targets per number of threads."""

    label: str
    counts: Callable[[Row], bool]
    targets: dict[int, Targets]
    whole: bool = False

    def targets_for(self, threads: int) -> Targets:
        """Where none are set, no cell may still be slower than torch."""
        return self.targets.get(threads, (None, None, None, None, 1.0))


def _line(op: str, outputs: str, one: Targets, two: Targets | None) -> Line:
    def counts(row: Row) -> bool:
        if row["op"] != op or is_dense(row) or Shape(*row["shape"]) == GIANT:
            return False
        c = row["shape"][3]
        return not outputs or (c == 10 if outputs == "C = 10" else bool(c >= 64))

    return Line(f"{op}, {outputs}" if outputs else op, counts, {1: one} if two is None else {1: one, 2: two})


def _giant_line(op: str) -> Line:
    targets: Targets = (1.1, 1.1, 1.1, None, 1.1)
    return Line(
        f"{GIANT}: {op}",
        lambda row: row["op"] == op and not is_dense(row) and Shape(*row["shape"]) == GIANT,
        {1: targets, 2: targets},
    )


def _dense_line(op: str) -> Line:
    targets: Targets = (None, None, None, 1.0, 1.0)
    return Line(
        f"density 1: {op}",
        lambda row: row["op"] == op and is_dense(row),
        {1: targets, 2: targets},
        whole=True,
    )


def _steady(row: Row) -> bool:
    n, _, _, c = row["shape"]
    real = row["gates"] != INDEPENDENT and row["deviation"] <= 0.2
    return bool(real and row["op"] == FORWARD and n >= 1024 and c >= 64)


_FEW_FORWARD: Targets = (5, 5, 7, None, 3)
_FEW_WEIGHT_GRAD: Targets = (4, 4, 6, None, 2)
LINES = (
    _line(FORWARD, "C = 10", _FEW_FORWARD, _FEW_FORWARD),
    _line(WEIGHT_GRAD, "C = 10", _FEW_WEIGHT_GRAD, _FEW_WEIGHT_GRAD),
    _line(FORWARD, "C >= 64", (2.5, 2.3, 3, None, 1.5), (3, 3, 4, None, 1)),
    _line(WEIGHT_GRAD, "C >= 64", (2, 2, 2, None, 1.3), (3, 3, 3.5, None, 1)),
    _line(INPUT_GRAD, "", (2, 2, 2, None, 1), None),
    Line("forward, real gates, deviation <= 0.2", _steady, {1: (None, None, None, 5, 3)}, whole=True),
    *(_giant_line(op) for op in OPS),
    *(_dense_line(op) for op in OPS),
)


@dataclass(frozen=True)
class Figure:
    """Of some cells: geometric mean and worst of their ratios; ``target`` None: none is set."""

    mean: float
    worst: float
    cells: int
    target: float | None

    @property
    def missed(self) -> bool:
        """Whether the mean is under the target."""
        return self.target is not None and self.mean < self.target


@dataclass(frozen=True)
class SummaryLine:
    """Figures per column (None: no such cell); ``floor``: the worst cell as mean and worst, its floor as target."""

    label: str
    figures: tuple[Figure | None, ...]
    floor: Figure


@dataclass(frozen=True)
class Scaling:
    """How much faster a line's cells are with more threads, and the share of what sgemm gains."""

    label: str
    mean: float
    worst: float
    share: float


def is_dense(row: Row) -> bool:
    """Whether the row counts as density 1."""
    return bool(row["density"] > DENSE)


def column_of(row: Row) -> int:
    """Index of the column that a row under density 1 counts in."""
    nearest = min((density for density in DENSITIES if density < 1), key=lambda d: abs(d - row["density"]))
    return 0 if nearest >= 0.5 else 1 if nearest == 0.25 else 2


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive values."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def summarize(rows: Sequence[Row], threads: int) -> list[SummaryLine]:
    """The table for one number of threads; lines without any cell are left out."""
    summary = []
    for line in LINES:
        counted = [row for row in rows if row["threads"] == threads and line.counts(row)]
        if not counted:
            continue
        *targets, floor = line.targets_for(threads)
        columns: list[list[float]] = [[] for _ in COLUMNS]
        for row in counted:
            columns[WHOLE if line.whole else column_of(row)].append(row["ratio"])
        figures = tuple(
            Figure(geometric_mean(ratios), min(ratios), len(ratios), target) if ratios else None
            for ratios, target in zip(columns, targets, strict=True)
        )
        worst = min(row["ratio"] for row in counted)
        summary.append(SummaryLine(line.label, figures, Figure(worst, worst, len(counted), floor)))
    return summary


def scaling(results: dict[str, Any], threads: int) -> list[Scaling]:
    """Per line, our time with one thread over that with ``threads``; empty where one thread was not timed."""
    gain = results["machine"]["sgemm_scaling"].get(str(threads))
    if gain is None or threads == 1:
        return []

    def key(row: Row) -> tuple[Any, ...]:
        return (row["op"], *row["shape"], row["gates"], row["density"])

    one = {key(row): row["ours_ms"] for row in results["rows"] if row["threads"] == 1}
    lines = []
    for line in LINES:
        ratios = [
            one[key(row)] / row["ours_ms"]
            for row in results["rows"]
            if row["threads"] == threads and line.counts(row)
        ]
        if ratios:
            mean = geometric_mean(ratios)
            lines.append(Scaling(line.label, mean, min(ratios), mean / gain))
    return lines


def bf16_figures(rows: Sequence[Row], threads: int) -> list[tuple[str, Figure]]:
    """Per line, our time in float32 over ours with bf16, where it was timed."""
    figures = []
    for line in LINES:
        ratios = [
            row["bf16_ratio"]
            for row in rows
            if row["threads"] == threads and line.counts(row) and row.get("bf16_ratio") is not None
        ]
        if ratios:
            figures.append(
                (line.label, Figure(geometric_mean(ratios), min(ratios), len(ratios), BF16_TARGET))
            )
    return figures


def slower_cells(rows: Sequence[Row]) -> list[Row]:
    """Rows with a ratio under 1, the worst first."""
    return sorted((row for row in rows if row["ratio"] < 1), key=lambda row: row["ratio"])


def cell_name(row: Row) -> str:
    """A row in words."""
    gates = (
        f"density {row['density']:g}"
        if row["gates"] == INDEPENDENT
        else f"{row['gates']} (density {row['density']:.2f}, deviation {row['deviation']:.2f})"
    )
    return f"{row['op']} {Shape(*row['shape'])}, {gates}, {threads_name(row['threads'])}"


def threads_name(threads: int) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{threads} thread{'s' if threads != 1 else ''}"


def command_name(settings: dict[str, Any]) -> str:
    """The command that was run, its output file aside."""
    words = ["python -m glai_bench"]
    if settings["quick"]:
        words.append("--quick")
    if settings["shapes"]:
        words += ["--shape", *(shape.strip("()") for shape in settings["shapes"])]
    if settings["threads"] != [1, 2]:
        words += ["--threads", *map(str, settings["threads"])]
    if settings["seconds"] != 1.0:
        words += ["--seconds", f"{settings['seconds']:g}"]
    return " ".join(words)


def machine_name(machine: dict[str, Any]) -> str:
    """Machine and libraries in one line."""
    rates = ", ".join(
        f"{rate:.0f} GFMA/s with {threads_name(int(threads))}"
        for threads, rate in machine["sgemm_gfma_per_s"].items()
    )
    return (
        f"{machine['cpu']}, {machine['isa']}; torch {machine['torch']}, {machine['blas']}, "
        f"{machine['precision']}; torch's sgemm {rates}"
    )
