"""Time of a training step: ours, its two products alone, and the same step in PyTorch with fused AdamW.

A call that is timed takes several steps, as training does: caches then hold what the step before left there.

python bench/bench_sgd.py --threads 1
python bench/bench_sgd.py --output bench/results/sgd.json && python bench/report_steps.py
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

import glai_native as glai
from glai_native.benchmark import cpu_name
from glai_native.measuring import OURS, measure
from glai_native.sgd_loop import Batches, NativeLoop, SgdSettings

# (batch, P, D, C), and the target: times faster than PyTorch's best
FULL = (((512, 193, 50, 10), 4.0), ((128, 17, 384, 77), 2.0))
DIRECTIONS = (((512, 1024, 50, 10), None), ((128, 512, 384, 77), None))
SAMPLES = 8192
STEPS = 8  # per call
RATE = 1e-3

Form = tuple[list[Tensor], Callable[..., Tensor]]


def full_forms(p: int, d: int, c: int) -> dict[str, Form]:
    """Outputs of a batch by autograd: (weights as the form likes them, function of z and float gates)."""

    def dense(chunk: int) -> Form:
        def run(z: Tensor, g: Tensor, bias: Tensor, *weights: Tensor) -> Tensor:
            y = g @ bias
            for a, w in zip(range(0, p, chunk), weights, strict=True):
                part = g[:, a : a + chunk]
                y = y + torch.bmm(part.unsqueeze(1), (z @ w).view(len(z), part.shape[1], c)).squeeze(1)
            return y

        return [torch.zeros(p, c), *(torch.zeros(d, min(chunk, p - a) * c) for a in range(0, p, chunk))], run

    def mask_sum(z: Tensor, g: Tensor, bias: Tensor, w: Tensor) -> Tensor:
        return g @ bias + ((z @ w).view(len(z), p, c) * g.unsqueeze(2)).sum(1)

    def loop(z: Tensor, g: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
        y = g @ bias
        for w, column in zip(weight, g.unbind(1), strict=True):
            ids = column.nonzero().squeeze(1)
            y = y.index_add(0, ids, z.index_select(0, ids) @ w)
        return y

    return {
        "dense, mask, sum": ([torch.zeros(p, c), torch.zeros(d, p * c)], mask_sum),
        "dense, bmm": dense(p),
        "chunks, bmm": dense(max(1, p // 4)),
        "loop over paths": ([torch.zeros(p, c), torch.zeros(p, d, c)], loop),
    }


def directions_forms(p: int, d: int, c: int, directions: Tensor) -> dict[str, Form]:
    def run(z: Tensor, g: Tensor, u: Tensor, beta: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return (g * linear(z, u, beta)) @ directions + torch.addmm(bias, z, weight)

    return {"dense, mask": ([torch.zeros(p, d), torch.zeros(p), torch.zeros(d, c), torch.zeros(c)], run)}


def torch_steps(z: Tensor, gates: Tensor, y: Tensor, batch: int, forms: dict[str, Form]) -> dict[str, Any]:
    """One call per form; each takes the next batches, indexed as a loop would."""
    calls = {}
    for name, (weights, run) in forms.items():
        weights = [torch.nn.init.normal_(w, std=0.01).requires_grad_() for w in weights]
        optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0, fused=True)
        batches = itertools.cycle(torch.randperm(len(z)).split(batch))

        def steps(run=run, weights=weights, optimizer=optimizer, batches=batches) -> Tensor:
            for ids in itertools.islice(batches, STEPS):
                optimizer.zero_grad()
                loss = cross_entropy(run(z[ids], gates[ids], *weights), y[ids])
                loss.backward()
                optimizer.step()
            return loss.detach()

        calls[name] = steps
    return calls


def time_steps(
    shape: tuple[int, int, int, int], density: float, along: bool, seconds: float
) -> dict[str, Any]:
    """Microseconds of a step by name, and the ratios."""
    batch, p, d, c = shape
    generator = torch.Generator().manual_seed(0)
    z = torch.randn((SAMPLES, d), generator=generator)
    bits = torch.rand((SAMPLES, p), generator=generator) < density
    bits[:, -1] = True
    y = torch.randint(c, (SAMPLES,), generator=generator)
    gates = glai.pack_gates(bits)
    directions = None
    if along:
        directions = torch.randn((p, c), generator=generator)
        directions[-1] = 0
    loop = NativeLoop(
        glai.PathEstimator(p, d, c, directions),
        Batches(z, gates, y, None),
        SgdSettings("cross_entropy", batch, RATE, 0.0, True, 0),
    )
    orders = itertools.cycle(torch.randperm(SAMPLES).split(STEPS * batch))
    ours = lambda: loop.run_epoch(next(orders), lambda share: None)  # noqa: E731
    kernels: dict[str, Any] = {}
    if not along:
        x, some, dy = torch.randn(batch, d + 1), gates[:batch], torch.randn(batch, c)
        weight = torch.randn(p, d + 1, c)
        out = torch.empty_like(weight)
        kernels = {
            "forward": lambda: [glai.gated_matmul(x, some, weight) for _ in range(STEPS)],
            "gradient": lambda: [glai.gated_matmul_weight_grad(x, some, dy, out=out) for _ in range(STEPS)],
        }
    forms = full_forms(p, d, c) if directions is None else directions_forms(p, d, c, directions)
    medians = measure(ours, kernels | torch_steps(z, bits.float(), y, batch, forms), seconds)
    taken = {name: median / STEPS * 1e6 for name, median in medians.items()}
    best = min(forms, key=lambda name: taken[name])
    figures = {"shape": list(shape), "directions": along, "microseconds": taken, "best torch form": best}
    figures["times faster"] = taken[best] / taken[OURS]
    if kernels:
        figures["step over its two products"] = taken[OURS] / (taken["forward"] + taken["gradient"])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="T")
    parser.add_argument("--density", type=float, default=0.5, help="of the gates (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="per table (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="figures as JSON on standard output")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json)
    rows = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for (shape, target), along in [(s, False) for s in FULL] + [(s, True) for s in DIRECTIONS]:
            figures = time_steps(shape, arguments.density, along, arguments.seconds)
            rows.append(figures | {"threads": threads, "target": target})
            kind = "directions" if along else "full paths"
            table = Table(title=f"(N,P,D,C) = {shape}, {kind}, {threads} threads", box=SIMPLE)
            for column in ("what", "µs", "over ours"):
                table.add_column(column, justify="left" if column == "what" else "right")
            for name, taken in figures["microseconds"].items():
                table.add_row(name, f"{taken:.0f}", f"{taken / figures['microseconds'][OURS]:.2f}")
            console.print(table)
            aim = "" if target is None else f" (target {target:g})"
            console.print(
                f"{figures['times faster']:.2f} times faster than {figures['best torch form']}{aim}"
            )
            if not along:
                console.print(f"step over its two products: {figures['step over its two products']:.2f}\n")
    machine = {
        "processor": cpu_name(),
        "cpu_isa": glai.build_info()["cpu_isa"],
        "torch": torch.__version__,
        "density": arguments.density,
    }
    results = json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n"
    if arguments.json:
        print(results, end="")
    if arguments.output:
        arguments.output.write_text(results)


if __name__ == "__main__":
    main()
