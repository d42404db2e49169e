"""Which form each product of the benchmark's grid takes, and why; nothing is timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import glai_native._native as _native
from glai_bench.cuda.card import PRECISIONS
from glai_bench.cuda.grid import cuda_grid
from glai_bench.ops.cases import Shape
from glai_bench.ops.grid import FORWARD, INPUT_GRAD, WEIGHT_GRAD, Grid
from glai_native.gates.packed import PackedGates
from glai_native.gates.packing import pack_gates
from glai_native.machine.backend import allows_tf32

NATIVE_OPS = {
    FORWARD: "gated_matmul",
    WEIGHT_GRAD: "gated_matmul_weight_grad",
    INPUT_GRAD: "gated_matmul_input_grad",
}
COSTS = ("compaction", "subset_sums", "reference")
CUDA_COSTS = ("dense", "compaction", "reference")


def explain_form(op: str, gates: PackedGates, in_features: int, out_features: int) -> dict[str, Any]:
    """The form that ``op`` (forward, weight gradient, input gradient) takes for these gates, and what the model says.

    Returns:
        ``form``; ``sums_first``: not that, but one product with the sum of the weights that are on: of all samples
        where all gates are on, of each where they are few; ``group_gates``: gates taken together; ``by_features``:
        vectors are filled with features instead of outputs; ``density``, ``deviation``: of the gates; and per form what
        it is expected to cost per path, in rows of x multiplied by a vector of weights (0: not considered). The
        cheapest is taken, ``reference`` only where it saves a tenth; at run time it steps aside where weights nearly
        cancel. Gates on CUDA: as :func:`explain_cuda_form` says for float32, or tf32 where torch allows it.
    """
    if gates.device.type == "cuda":
        precision = "tf32" if allows_tf32() else "fp32"
        return explain_cuda_form(op, gates, in_features, out_features, precision)
    return _native.explain_form(NATIVE_OPS[op], gates.words, gates.n_gates, in_features, out_features)


def explain_cuda_form(
    op: str, gates: PackedGates, in_features: int, out_features: int, precision: str
) -> dict[str, Any]:
    """The form that ``op`` takes on CUDA where the host knows the density of these gates; they may lie anywhere.

    Returns:
        ``form``, ``density``, ``deviation``, and what each form is expected to cost per path, for each 64 bytes of
        depth, in cycles of a multiprocessor (0: not considered; the weight gradient has one form).
    """
    density, deviation = gates.density(), gates.deviation()
    figures = {"density": density, "deviation": deviation}
    if op == WEIGHT_GRAD:
        return {"form": "compaction", **dict.fromkeys(CUDA_COSTS, 0.0), **figures}
    depth, columns = (in_features, out_features) if op == FORWARD else (out_features, in_features)
    sizes = (len(gates), gates.n_gates, depth, columns)
    return _native.explain_cuda_form(*sizes, precision != "fp32", (density, deviation)) | figures


def explain_cuda_grid(
    quick: bool = False,
    shapes: Sequence[Shape] | None = None,
    data: Path | None = None,
    precisions: Sequence[str] = tuple(PRECISIONS),
) -> list[dict[str, Any]]:
    """:func:`explain_cuda_form` for every cell of the GPU benchmark's grid; needs no GPU."""
    grid, rows = cuda_grid(quick, shapes, data), []
    real = grid.real_gates(data)
    for shape, density, source in grid.cells:
        generator = torch.Generator().manual_seed(0)
        bits = (
            real[shape, source]
            if density is None
            else torch.rand((shape.n, shape.p), generator=generator) < density
        )
        gates, sizes = pack_gates(bits), [shape.n, shape.p, shape.d, shape.c]
        for precision in precisions:
            for op in NATIVE_OPS:
                cell = {"op": op, "shape": sizes, "gates": source, "precision": precision}
                rows.append(cell | explain_cuda_form(op, gates, shape.d, shape.c, precision))
    return rows


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


def print_cuda_explanation(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Prints a line per cell of the GPU's grid."""
    table = Table(
        title="The form each product takes on CUDA",
        title_justify="left",
        caption="gates: their density, deviation. costs: of dense / compaction / reference, expected, in cycles of a "
        "multiprocessor per path and 64 bytes of depth; dense is left where another saves a fifth. Set from counting, "
        "not measured on a GPU yet.",
        caption_justify="left",
        box=SIMPLE,
    )
    for i, column in enumerate(("case", "precision", "gates", "form", "costs")):
        table.add_column(column, justify="left", no_wrap=i != 2)
    for row in rows:
        table.add_row(
            f"{row['op']} {Shape(*row['shape'])}",
            row["precision"],
            f"{row['gates']}: {row['density']:.2f}, {row['deviation']:.2f}",
            row["form"],
            "/".join(f"{row[name]:.0f}" if row[name] else "-" for name in CUDA_COSTS),
        )
    console.print(table)


def print_explanation(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Prints a line per cell: the form, and the expected cost of each form."""
    table = Table(
        title="The form each product takes",
        title_justify="left",
        caption="gates: their density, deviation. costs: of compaction / subset_sums / reference, expected, per "
        "path, in rows of x multiplied by a vector of weights; the cheapest form is taken, and 'of 4' means four "
        "gates a group. At density 1 there is one product, with the sum of all weights; few samples have one each.",
        caption_justify="left",
        box=SIMPLE,
    )
    for i, column in enumerate(("case", "gates", "form", "costs")):
        table.add_column(column, justify="left", no_wrap=i != 1)
    for row in rows:
        form = f"{row['form']} of {row['group_gates']}" if row["group_gates"] > 1 else row["form"]
        costs = [f"{row[name]:.0f}" if row[name] else "-" for name in COSTS]
        table.add_row(
            f"{row['op']} {Shape(*row['shape'])}",
            f"{row['gates']}: {row['density']:.2f}, {row['deviation']:.2f}",
            "sum first" if row["sums_first"] else form,
            "" if row["sums_first"] else "/".join(costs),
        )
    console.print(table)
