"""Time of a training step: ours, its two products alone, and the same step in PyTorch with fused AdamW.

A call that is timed takes several steps, as training does: caches then hold what the step before left there. On a GPU
ours is timed against an MLP of as many parameters, each replayed from a CUDA graph.

python -m glai_bench.steps --threads 1
python -m glai_bench.steps --output bench/results/sgd.json && python -m glai_bench.steps.report
python -m glai_bench.steps --device cuda --output bench/results/h100-sgd.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy

import glai_native as glai
from glai_bench.clock import OURS, cpu_name, measure
from glai_bench.steps.cuda_step_times import bench_cuda_steps, print_cuda_steps
from glai_bench.steps.torch_forms import Form, directions_forms, full_forms
from glai_native.solvers.samples import Samples
from glai_native.solvers.sgd.native import NativeLoop, SgdSettings

# (batch, P, D, C), and the target: times faster than PyTorch's best
FULL = (((512, 193, 50, 10), 4.0), ((128, 17, 384, 77), 2.0))
DIRECTIONS = (((512, 1024, 50, 10), None), ((128, 512, 384, 77), None))
SAMPLES = 8192
STEPS = 8  # per call
RATE = 1e-3
SECONDS, QUICK_SECONDS = 3.0, 0.5


def torch_steps(z: Tensor, gates: Tensor, y: Tensor, batch: int, forms: dict[str, Form]) -> dict[str, Any]:
    """One call per form; each takes the next batches, indexed as a loop would."""
    calls = {}
    for name, (weights, run) in forms.items():
        weights = [torch.nn.init.normal_(w, std=0.01).requires_grad_() for w in weights]
        optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0, fused=True)
        batches = itertools.cycle(torch.randperm(len(z)).split(batch))

        def steps(
            run: Callable[..., Tensor] = run,
            weights: list[Tensor] = weights,
            optimizer: torch.optim.Optimizer = optimizer,
            batches: Iterator[Tensor] = batches,
        ) -> Tensor:
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
    samples = Samples(z, y, c, gates=gates)
    settings = SgdSettings("cross_entropy", batch, RATE, 0.0, True, 0)
    loop = NativeLoop(glai.PathEstimator(p, d, c, directions), samples, settings)
    orders = itertools.cycle(torch.randperm(SAMPLES).split(STEPS * batch))
    ours = lambda: loop.run_epoch([(samples, next(orders))], STEPS * batch, lambda share: None)  # noqa: E731
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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench.steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SECONDS:g} seconds per table")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], metavar="T", help="on the CPU (default: 1 2)"
    )
    parser.add_argument("--density", type=float, default=0.5, help="of the gates (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, help=f"per table; on a GPU per shape and precision (default: {SECONDS:g})"
    )
    parser.add_argument("--json", action="store_true", help="figures as JSON on standard output")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args(argv)
    console = Console(stderr=arguments.json)
    seconds = arguments.seconds
    if seconds is None:
        seconds = QUICK_SECONDS if arguments.quick else SECONDS

    def keep(results: dict[str, Any]) -> None:
        if arguments.output:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(results, indent=1) + "\n")

    if arguments.device == "cpu":
        results = time_cpu_steps(arguments.threads, arguments.density, seconds, console)
        keep(results)
    else:
        try:
            results = bench_cuda_steps(seconds, arguments.density, keep=keep)
        except RuntimeError as error:
            print(f"python -m glai_bench.steps: {str(error).splitlines()[0]}", file=sys.stderr)
            return 2
        print_cuda_steps(results, console)
    if arguments.json:
        print(json.dumps(results, indent=1))
    return 0 if results["rows"] else 1


def time_cpu_steps(
    numbers_of_threads: Sequence[int], density: float, seconds: float, console: Console
) -> dict[str, Any]:
    """Prints a table for each number of threads, shape and kind of paths; returns all of them."""
    rows = []
    for threads in numbers_of_threads:
        torch.set_num_threads(threads)
        for (shape, target), along in [(s, False) for s in FULL] + [(s, True) for s in DIRECTIONS]:
            figures = time_steps(shape, density, along, seconds)
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
        "density": density,
    }
    return {"machine": machine, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
