"""What the benchmark's rows add up to: the table of targets, and which cells missed theirs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from glai_bench.ops.cases import GIANT, INDEPENDENT, Shape
from glai_bench.ops.grid import OPS, Row

# Densities of independent gates at which useful multiply-adds over the processor's peak have a target.
PEAK_DENSITIES = (0.5, 0.25, 0.1)
DENSE = 0.85  # gates over this count as density 1, which stands outside all other lines
SCALING_TARGET = 0.95  # of sgemm's
CALL_TARGET = 1.5  # microseconds of the smallest call over its binding
BF16_TARGET = 1.8  # our own float32's time over bf16's


@dataclass(frozen=True)
class Line:
    """A line of the table: which rows it counts, and its targets.

    ``peak``: of the share of the processor's peak, by :data:`PEAK_DENSITIES`; ``ratio``: of the geometric mean of best
    torch form over ours; ``floor``: of the worst such cell. None: no target is set.
    """

    label: str
    counts: Callable[[Row], bool]
    peak: tuple[float, ...] | None
    ratio: float | None
    floor: float


def _line(op: str, outputs: str, peak: tuple[float, ...], ratio: float | None) -> Line:
    def counts(row: Row) -> bool:
        if row["op"] != op or is_dense(row) or Shape(*row["shape"]) == GIANT:
            return False
        c = row["shape"][3]
        return c == 10 if outputs == "C = 10" else bool(c >= 64)

    return Line(f"{op}, {outputs}", counts, peak, ratio, 1.0)


def _giant_line(op: str) -> Line:
    def counts(row: Row) -> bool:
        return bool(row["op"] == op and not is_dense(row) and Shape(*row["shape"]) == GIANT)

    return Line(f"{op}, {GIANT}", counts, None, None, 1.05)


def _dense_line(op: str) -> Line:
    return Line(f"{op}, density 1", lambda row: row["op"] == op and is_dense(row), None, None, 1.0)


LINES = (
    *(_line(op, "C = 10", (0.9, 0.6, 0.35), 3.0) for op in OPS),
    *(_line(op, "C >= 64", (1.3, 0.9, 0.7), None) for op in OPS),
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
    """Of a line: shares of peak by density (None: no such cell), ratios, the worst cell with its floor as target."""

    label: str
    peaks: tuple[Figure | None, ...]
    ratio: Figure
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


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive values."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def summarize(rows: Sequence[Row], threads: int) -> list[SummaryLine]:
    """The table for one number of threads; lines without any cell are left out."""
    summary = []
    for line in LINES:
        counted = [row for row in rows if row["threads"] == threads and line.counts(row)]
        if counted:
            ratios = [row["ratio"] for row in counted]
            floor = Figure(min(ratios), min(ratios), len(ratios), line.floor)
            summary.append(SummaryLine(line.label, _peaks(line, counted), _figure(ratios, line.ratio), floor))
    return summary


def _peaks(line: Line, counted: Sequence[Row]) -> tuple[Figure | None, ...]:
    """Shares of peak of independent gates, by density."""
    figures: list[Figure | None] = []
    for i, density in enumerate(PEAK_DENSITIES):
        shares = [
            row["peak_fraction"]
            for row in counted
            if row["gates"] == INDEPENDENT and row["density"] == density
        ]
        figures.append(_figure(shares, line.peak[i] if line.peak else None) if shares else None)
    return tuple(figures)


def _figure(values: Sequence[float], target: float | None) -> Figure:
    return Figure(geometric_mean(values), min(values), len(values), target)


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
            figures.append((line.label, _figure(ratios, BF16_TARGET)))
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
    peak = machine["fma_peak_gfma_per_s"]
    peak = (
        f"peak {peak:.0f} GFMA/s a thread" if peak else "peak not measured (no compiler found): sgemm's rate"
    )
    return (
        f"{machine['cpu']}, {machine['isa']}; torch {machine['torch']}, {machine['blas']}, "
        f"{machine['precision']}; {peak}; torch's sgemm {rates}"
    )
