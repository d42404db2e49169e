"""The GPU benchmark's results as tables on a console."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console

from glai_bench.cuda.targets import summarize
from glai_bench.ops.cases import INDEPENDENT, Shape
from glai_bench.ops.grid import Row
from glai_bench.ops.tables import LISTED, figure_text, make_table
from glai_bench.ops.targets import slower_cells


def print_cuda_results(results: dict[str, Any], console: Console, every_row: bool = False) -> None:
    """Prints the card's own rates, the summary against the targets, slower cells, and what was left out."""
    machine, rows, precisions = results["machine"], results["rows"], results["settings"]["precisions"]
    console.print(f"\n{card_name(machine)}\n", highlight=False)
    if every_row:
        _print_rows(rows, console)
    table = make_table(
        "best torch / ours: geometric mean (worst), below it the target",
        "Over 1: ours is faster.",
        1,
        "",
        *precisions,
    )
    table.columns[0].no_wrap = False
    for label, figures in summarize(rows, precisions):
        table.add_row(label, *map(figure_text, figures))
    console.print(table)
    _print_forms(rows, console)
    slower = slower_cells(rows)
    console.print(f"Cells under 1: {len(slower)} of {len(rows)}", highlight=False)
    for row in slower[:LISTED]:
        console.print(f"  {row['ratio']:.2f}  {cuda_cell_name(row)}: {row['best']}", highlight=False)
    if len(slower) > LISTED:
        console.print(f"  and {len(slower) - LISTED} more", highlight=False)
    missing = [f"{one['shape']}, {one['gates']}: {one['reason']}" for one in results["skipped"]]
    for line in missing[:LISTED]:
        console.print(f"Left out: {line}", highlight=False, markup=False)
    if len(missing) > LISTED:
        console.print(f"  and {len(missing) - LISTED} more", highlight=False)
    reasons = Counter((name, reason) for row in rows for name, reason in row["left_out"].items())
    for (name, reason), count in reasons.most_common(LISTED):
        console.print(
            f"Form left out of {count} of {len(rows)} cells: {name}: {reason}", highlight=False, markup=False
        )


def _print_rows(rows: list[Row], console: Console) -> None:
    columns = (
        "op",
        "(N,P,D,C)",
        "precision",
        "density",
        "ours ms",
        "torch ms",
        "floor ms",
        "ratio",
        "matrix",
    )
    table = make_table(
        "every row",
        "floor: inputs and result once at the copy's bandwidth, or useful multiply-adds at the matrix rate; "
        "matrix: multiply-adds of the dense product per second over the matrix rate",
        3,
        *columns,
        "best torch form",
    )
    for row in rows:
        table.add_row(
            row["op"],
            str(Shape(*row["shape"])),
            row["precision"],
            f"{row['density']:g}",
            f"{row['ours_ms']:.4f}",
            f"{row['baselines_ms'][row['best']]:.4f}",
            f"{row['floor_ms']:.4f}",
            f"{row['ratio']:.2f}",
            f"{row['matrix_fraction']:.2f}",
            row["best"],
        )
    console.print(table)


def _print_forms(rows: list[Row], console: Console) -> None:
    """Where another of our forms was faster than the one that was chosen, the worst first."""
    timed = [row for row in rows if "forms_ms" in row]
    if not timed:
        return
    worse = [row for row in timed if min(row["forms_ms"], key=row["forms_ms"].__getitem__) != row["form"]]
    worse.sort(key=lambda row: min(row["forms_ms"].values()) / row["forms_ms"][row["form"]])
    console.print(f"Cells where another form was faster: {len(worse)} of {len(timed)}", highlight=False)
    for row in worse[:LISTED]:
        times = ", ".join(f"{form} {ms:.4f}" for form, ms in row["forms_ms"].items())
        console.print(f"  {cuda_cell_name(row)}: {row['form']} was chosen; ms: {times}", highlight=False)


def card_name(machine: dict[str, Any]) -> str:
    """The card, and the rates that nothing on it passes."""
    rates = ", ".join(f"{name} {rate / 1e3:.3g}" for name, rate in machine["matrix_gfma_per_s"].items())
    return (
        f"{machine['card']}, torch {machine['torch']}; copies {machine['copy_gb_per_s']:.0f} GB/s read and "
        f"written, torch's large square products in TFMA/s: {rates}"
    )


def cuda_cell_name(row: Row) -> str:
    """A row in words."""
    gates = "" if row["gates"] == INDEPENDENT else f"{row['gates']}, "
    return f"{row['op']} {Shape(*row['shape'])}, {gates}density {row['density']:.3g}, {row['precision']}"
