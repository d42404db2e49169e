"""Which form each product of the benchmark's grid takes, and why; nothing is timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from glai_native import _native
from glai_native.benchmark import FORWARD, INPUT_GRAD, WEIGHT_GRAD, Grid
from glai_native.cases import Shape
from glai_native.gates import PackedGates
from glai_native.ops import pack_gates

NATIVE_OPS = {
    FORWARD: "gated_matmul",
    WEIGHT_GRAD: "gated_matmul_weight_grad",
    INPUT_GRAD: "gated_matmul_input_grad",
}
COSTS = ("compaction", "subset_sums", "reference")


def explain_form(op: str, gates: PackedGates, in_features: int, out_features: int) -> dict[str, Any]:
    """The form that ``op`` (forward, weight gradient, input gradient) takes for these gates, and what the model says.

    Returns:
        ``form``; ``group_gates``: gates taken together; ``density``, ``deviation``: of the gates; and per form what
        it is expected to cost per path, in rows of x multiplied by a vector of weights (0: not considered). The
        cheapest is taken, ``reference`` only where it saves a tenth; at run time it steps aside where weights nearly
        cancel.
    """
    return _native.explain_form(NATIVE_OPS[op], gates.words, gates.n_gates, in_features, out_features)


def explain_grid(
    quick: bool = False, shapes: Sequence[Shape] | None = None, data: Path | None = None
) -> list[dict[str, Any]]:
    """:func:`explain_form` for every cell of the benchmark's grid (arguments as for ``bench_ops``)."""
    rows = []
    for case in Grid.chosen(quick, shapes, data).cases(data):
        gates, shape = pack_gates(case.gates), case.shape
        for op in NATIVE_OPS:
            cell = {"op": op, "shape": [shape.n, shape.p, shape.d, shape.c], "gates": case.source}
            rows.append(cell | explain_form(op, gates, shape.d, shape.c))
    return rows


def print_explanation(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Prints a line per cell: the form, and the expected cost of each form."""
    table = Table(
        title="The form each product takes",
        title_justify="left",
        caption="gates: their density, deviation. costs: of compaction / subset_sums / reference, expected, per "
        "path, in rows of x multiplied by a vector of weights; the cheapest form is taken, and 'of 4' means four "
        "gates a group. At density 1 there is one product, with the sum of all weights.",
        caption_justify="left",
        box=SIMPLE,
    )
    for i, column in enumerate(("case", "gates", "form", "costs")):
        table.add_column(column, justify="left", no_wrap=i != 1)
    for row in rows:
        form = f"{row['form']} of {row['group_gates']}" if row["group_gates"] > 1 else row["form"]
        costs = [f"{row[name]:.0f}" if row[name] else "-" for name in COSTS]
        dense = row["density"] == 1
        table.add_row(
            f"{row['op']} {Shape(*row['shape'])}",
            f"{row['gates']}: {row['density']:.2f}, {row['deviation']:.2f}",
            "sum first" if dense else form,
            "" if dense else "/".join(costs),
        )
    console.print(table)
