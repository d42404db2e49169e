"""The benchmark's results as tables on a console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from glai_bench.ops.cases import Shape
from glai_bench.ops.grid import Row
from glai_bench.ops.targets import (
    CALL_TARGET,
    PEAK_DENSITIES,
    SCALING_TARGET,
    Figure,
    Scaling,
    SummaryLine,
    bf16_figures,
    cell_name,
    machine_name,
    scaling,
    slower_cells,
    summarize,
    threads_name,
)

# Cells under 1 that are listed; --all prints every row anyway.
LISTED = 20


def print_results(results: dict[str, Any], console: Console, every_row: bool = False) -> None:
    """Prints the summary against the targets, the cells that are slower than torch, and what was left out."""
    machine, rows = results["machine"], results["rows"]
    console.print(f"\n{machine_name(machine)}\n", highlight=False)
    if every_row:
        console.print(_rows_table(rows))
    for threads in machine["threads"]:
        console.print(_summary_table(summarize(rows, threads), threads))
        lines = scaling(results, threads)
        if lines:
            console.print(_scaling_table(lines, threads, machine["sgemm_scaling"][str(threads)]))
        figures = bf16_figures(rows, threads)
        if figures:
            console.print(_bf16_table(figures, threads))
    call = machine["call"]
    console.print(
        f"Smallest call without a gradient: {call['op_us']:.2f} µs, the binding alone {call['binding_us']:.2f} µs; "
        f"{call['extra_us']:.2f} µs between them, target {CALL_TARGET:g}.",
        highlight=False,
    )
    slower = slower_cells(rows)
    console.print(f"Cells under 1: {len(slower)} of {len(rows)}", highlight=False)
    for row in slower[:LISTED]:
        console.print(f"  {row['ratio']:.2f}  {cell_name(row)}: {row['best']}", highlight=False)
    if len(slower) > LISTED:
        console.print(f"  and {len(slower) - LISTED} more", highlight=False)
    for left_out in results["skipped"]:
        console.print(
            f"Left out: {left_out['shape']} with gates of {left_out['gates']}: {left_out['reason']}",
            highlight=False,
        )


def make_table(title: str, caption: str, left: int, *columns: str) -> Table:
    """A table whose first ``left`` columns are words and the others numbers."""
    table = Table(
        title=title, title_justify="left", caption=caption or None, caption_justify="left", box=SIMPLE
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", no_wrap=True)
    return table


def _summary_table(summary: Sequence[SummaryLine], threads: int) -> Table:
    table = make_table(
        f"{threads_name(threads)}: geometric mean (worst), below it the target",
        "Useful work over the processor's peak, by density; best torch over ours: over 1, ours is faster. Gates over "
        "density 0.85 count as density 1.",
        0,
        "",
        *(f"peak, {density:g}" for density in PEAK_DENSITIES),
        "torch / ours",
        "worst",
    )
    table.columns[0].justify, table.columns[0].no_wrap = "left", False  # so that it fits 80 columns
    for line in summary:
        floor = f"{line.floor.worst:.2f}\n>= {line.floor.target:g}"
        table.add_row(
            line.label,
            *(figure_text(figure) for figure in (*line.peaks, line.ratio)),
            f"[red]{floor}[/]" if line.floor.missed else floor,
        )
    return table


def figure_text(figure: Figure | None) -> str:
    """Mean, worst and target, in red where it is missed."""
    if figure is None:
        return ""
    text = f"{figure.mean:.2f} ({figure.worst:.2f})"
    if figure.target is not None:
        text += f"\n>= {figure.target:g}"
    return f"[red]{text}[/]" if figure.missed else text


def _scaling_table(lines: Sequence[Scaling], threads: int, sgemm: float) -> Table:
    table = make_table(
        f"time with one thread / with {threads}; sgemm {sgemm:.2f}",
        "",
        1,
        "",
        "mean (worst)",
        f"of sgemm's, >= {SCALING_TARGET:g}",
    )
    for line in lines:
        share = f"{line.share:.2f}"
        table.add_row(
            line.label,
            f"{line.mean:.2f} ({line.worst:.2f})",
            f"[red]{share}[/]" if line.share < SCALING_TARGET else share,
        )
    return table


def _bf16_table(figures: Sequence[tuple[str, Figure]], threads: int) -> Table:
    table = make_table(
        f"our fp32 / our bf16, {threads_name(threads)}, density >= 0.25: geometric mean (worst), target",
        "",
        1,
        "",
        "",
    )
    for label, figure in figures:
        table.add_row(label, figure_text(figure).replace("\n", "  "))
    return table


def _rows_table(rows: Sequence[Row]) -> Table:
    table = make_table(
        "every row",
        "N samples, P paths, D features, C outputs; peak: useful multiply-adds per second over the processor's",
        3,
        "op",
        "(N,P,D,C)",
        "gates",
        "density",
        "deviation",
        "threads",
        "ours ms",
        "torch ms",
        "ratio",
        "peak",
        "best torch form",
    )
    for row in rows:
        table.add_row(
            row["op"],
            str(Shape(*row["shape"])),
            row["gates"],
            f"{row['density']:.3g}",
            f"{row['deviation']:.2f}",
            str(row["threads"]),
            f"{row['ours_ms']:.3f}",
            f"{row['baselines_ms'][row['best']]:.3f}",
            f"{row['ratio']:.2f}",
            f"{row['peak_fraction']:.2f}",
            row["best"],
        )
    return table
