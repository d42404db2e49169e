"""Ratio of the best torch form to ours for path_kernel and path_gram, float32. Where a case says
out=, results go to memory that was written before; elsewhere to fresh memory, page faults included.

python -m glai_bench.ops.path_matrices --quick
python -m glai_bench.ops.path_matrices --threads 1 --output paths.json
"""

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

import glai_native as glai
from glai_bench.clock import OURS, cpu_name, measure
from glai_native.ops.oracle import path_features_ref

# (N, units of the only hidden layer, D)
KERNEL_SHAPES = ((4096, 1024, 64), (4096, 1024, 784), (4096, 256, 50), (1024, 512, 384))
QUICK_KERNEL_SHAPES = ((4096, 1024, 64), (1024, 512, 384))
# (N, P, D, density); P·(D+1) of about 3,500, 9,800 and 19,600
GRAM_SHAPES = (
    (2048, 70, 49, 0.5),
    (2048, 70, 49, 0.1),
    (2048, 196, 49, 0.5),
    (2048, 25, 783, 0.5),
    (2048, 392, 49, 0.5),
)
QUICK_GRAM_SHAPES = GRAM_SHAPES[:2]

# Not part of torch's documented interface, so listed apart from what a user would write.
INT8 = "torch._int_mm on int8 bits (undocumented)"

Calls = dict[str, Callable[[], Tensor]]


def kernel_calls(n: int, units: int, d: int, reuse: bool) -> tuple[Calls, Callable[[], Tensor]]:
    """Every torch form and ours; bits are kept as each form likes them, outside the clock.

    Args:
        n: samples.
        units: of the only hidden layer.
        d: features.
        reuse: results and products go to tensors that are there, instead of fresh ones.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((n, d), generator=generator)
    bits = torch.rand((n, units), generator=generator) < 0.5
    layers = [glai.pack_gates(bits)]
    a, a8 = bits.float(), bits.to(torch.int8)
    one = torch.ones(())
    ones = torch.ones((n, 1))
    x_one, a_one = torch.cat([x, ones], 1), torch.cat([a, ones], 1)
    if not reuse:
        return {
            "two products, ones left out": lambda: (x @ x.T) * (a @ a.T),
            "two products, ones left out, in place": lambda: (x @ x.T).mul_(a @ a.T),
            "two products, ones as columns": lambda: (x_one @ x_one.T).mul_(a_one @ a_one.T),
            "addmm": lambda: torch.addmm(one, x, x.T).mul_(torch.addmm(one, a, a.T)),
            INT8: lambda: torch.addmm(one, x, x.T).mul_(torch._int_mm(a8, a8.T).add_(1)),
        }, lambda: glai.path_kernel(x, layers)
    out, shared = torch.ones((n, n)), torch.ones((n, n))
    shared8 = torch.ones((n, n), dtype=torch.int32)
    return {
        "two products, ones left out": lambda: torch.mm(x, x.T, out=out).mul_(torch.mm(a, a.T, out=shared)),
        "two products, ones as columns": lambda: torch.mm(x_one, x_one.T, out=out).mul_(
            torch.mm(a_one, a_one.T, out=shared)
        ),
        "addmm": lambda: torch.addmm(one, x, x.T, out=out).mul_(torch.addmm(one, a, a.T, out=shared)),
        INT8: lambda: torch.addmm(one, x, x.T, out=out).mul_(torch._int_mm(a8, a8.T, out=shared8).add_(1)),
    }, lambda: glai.path_kernel(x, layers, out=out)


def gram_calls(n: int, p: int, d: int, density: float) -> tuple[Calls, Callable[[], Tensor]]:
    """Every torch form and ours, adding to one result; features and index lists are made outside the clock."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((n, d), generator=generator)
    bits = torch.rand((n, p), generator=generator) < density
    gates = glai.pack_gates(bits)
    width = d + 1
    features = path_features_ref(x, bits)
    rows = [bits[:, i].nonzero().squeeze(1) for i in range(p)]

    gram = torch.zeros((p * width, p * width))

    def loop() -> Tensor:
        for i, active in enumerate(rows):
            begin = i * width
            selected = features[:, begin:].index_select(0, active)
            gram[begin : begin + width, begin:].addmm_(selected[:, :width].T, selected)
        return gram

    p0, q0 = torch.triu_indices(p, p)
    d0, e0 = torch.triu_indices(width, width)
    pair_gates = (bits[:, p0] & bits[:, q0]).float()
    x_one = torch.cat([x, torch.ones((n, 1))], 1)
    pair_features = x_one[:, d0] * x_one[:, e0]
    square = torch.empty((width, width), dtype=torch.int64)
    square[d0, e0] = square[e0, d0] = torch.arange(len(d0))
    square = square.flatten()

    def pairs() -> Tensor:
        products = pair_gates.T @ pair_features
        gram.view(p, width, p, width)[p0, :, q0] += products.index_select(1, square).view(-1, width, width)
        return gram

    return {
        "materialised features, F.T @ F": lambda: gram.addmm_(features.T, features),
        "loop over p, rows that are on, q >= p": loop,
        "pairs of gates by pairs of features": pairs,
    }, lambda: glai.path_gram(x, gates, out=gram)


def run(quick: bool, seconds: float) -> Iterator[dict[str, Any]]:
    for (n, units, d), reuse in itertools.product(
        QUICK_KERNEL_SHAPES if quick else KERNEL_SHAPES, (False, True)
    ):
        calls, ours = kernel_calls(n, units, d, reuse)
        expected = ours().clone()
        for name, call in calls.items():
            if "left out" not in name:
                torch.testing.assert_close(
                    call(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
                )
        case = f"N={n} units={units} D={d}" + (" out=" if reuse else "")
        yield row("path_kernel", case, measure(ours, calls, seconds))
    for shape in QUICK_GRAM_SHAPES if quick else GRAM_SHAPES:
        calls, ours = gram_calls(*shape)
        gram = ours()
        upper = gram.triu()
        for name, call in calls.items():
            gram.zero_()
            error = call().triu().sub_(upper).abs_().max()
            if error > 1e-3 * float(upper.abs().max()):
                raise RuntimeError(f"path_gram {shape}: '{name}' computes something else")
        n, p, d, density = shape
        case = f"N={n} P={p} D={d} density={density:g}"
        yield row("path_gram", case, measure(ours, calls, seconds))


def row(op: str, case: str, medians: dict[str, float]) -> dict[str, Any]:
    mine = medians.pop(OURS)
    public = {name: value for name, value in medians.items() if name != INT8}
    best = min(public, key=lambda name: public[name])
    return {
        "op": op,
        "case": case,
        "ours_ms": mine * 1e3,
        "baselines_ms": {name: value * 1e3 for name, value in medians.items()},
        "best": best,
        "ratio": public[best] / mine,
    }


def print_rows(rows: list[dict[str, Any]], machine: dict[str, Any], console: Console) -> None:
    """One line per form of torch, the best one with the ratio that counts."""
    table = Table(
        title=f"torch / ours, float32, {machine['threads']} threads, torch {machine['torch']}, {machine['cpu_isa']}",
        title_justify="left",
        caption="a ratio over 1: ours is faster; * the best documented form",
        caption_justify="left",
        box=SIMPLE,
    )
    for column in ("op", "case", "ours ms", "torch ms", "ratio", "torch form"):
        table.add_column(column, justify="right" if "ms" in column or column == "ratio" else "left")
    for line in rows:
        for i, (name, milliseconds) in enumerate(line["baselines_ms"].items()):
            table.add_row(
                line["op"] if i == 0 else "",
                line["case"] if i == 0 else "",
                f"{line['ours_ms']:.1f}" if i == 0 else "",
                f"{milliseconds:.1f}",
                f"{milliseconds / line['ours_ms']:.2f}",
                name + (" *" if name == line["best"] else ""),
            )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench.ops.path_matrices",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a few cases only")
    parser.add_argument("--threads", type=int, help="default: as torch")
    parser.add_argument("--seconds", type=float, default=3.0, help="budget per case (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of a table")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    machine = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu_isa": glai.build_info()["cpu_isa"],
        "processor": cpu_name(),
        "quick": arguments.quick,
    }
    rows = list(run(arguments.quick, arguments.seconds))
    results = json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n"
    if arguments.json:
        print(results, end="")
    else:
        print_rows(rows, machine, Console())
    if arguments.output:
        arguments.output.write_text(results)


if __name__ == "__main__":
    main()
